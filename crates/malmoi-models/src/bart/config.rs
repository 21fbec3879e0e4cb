//! Published configuration of BART.

use malmoi_checkpoint::{ConfigError, ConfigReader, Tensors};
use malmoi_nn::Activation;
use serde_json::{Value, json};

use super::{model::Bart, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::common::{COMMON_KEYS, Common, CommonKeys, SideSizes, common_field};
use crate::config::{Sizes, SpecialTokens};
use crate::config_keys::{self, decimal};
use crate::head::Head;
use crate::names::Rule;
use crate::published::Published;
use crate::side::Which;

/// Sizes and rates of a BART model.
#[derive(Clone, Debug, PartialEq)]
pub struct BartConfig {
    /// What all architectures have.
    pub common: Common,
    /// Activation of the feed-forward layers.
    pub activation: Activation,
    /// Factor on the token embedding: 1, or `√d_model` (`scale_embedding`).
    pub embedding_scale: f32,
    /// Dropout after embeddings, attention and feed-forward.
    pub dropout: f32,
    /// Dropout on attention probabilities.
    pub attention_dropout: f32,
    /// Dropout inside the feed-forward layers.
    pub activation_dropout: f32,
    /// Dropout before and inside a classifier.
    pub classifier_dropout: f32,
    /// Whether the file's `final_logits_bias` is the zeros that it always was; another one is refused as unused.
    pub unbiased: bool,
}

const KEYS: CommonKeys = CommonKeys {
    initializer: "init_std",
    ..COMMON_KEYS
};

/// Classes of a configuration that says nothing of them, as published: those of natural language inference.
const DEFAULT_LABELS: usize = 3;

impl Architecture for BartConfig {
    const MODEL_TYPES: &'static [&'static str] = &["bart"];

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "bart")?;
        read.refuse_unless("tie_word_embeddings", true)?;
        read.refuse_unless("is_encoder_decoder", true)?;
        read.refuse_unless("encoder_layerdrop", 0.0)?;
        read.refuse_unless("decoder_layerdrop", 0.0)?;
        // Of the first release: what its only form was, and what generation and unused heads read.
        read.refuse_unless("normalize_before", false)?;
        read.refuse_unless("add_final_layer_norm", false)?;
        read.refuse_unless("normalize_embedding", true)?;
        read.refuse_unless("static_position_embeddings", false)?;
        read.refuse_unless("add_bias_logits", false)?;
        read.inert(&["classif_dropout", "force_bos_token_to_be_generated"]);
        read.inert(&[
            "forced_bos_token_id",
            "forced_eos_token_id",
            "num_hidden_layers",
        ]);
        let d_model = config_keys::positive(&read, "d_model", Some(1024))?;
        let side = |name: &str| {
            let key = |part: &str| format!("{name}_{part}");
            let n_heads = config_keys::positive(&read, &key("attention_heads"), Some(16))?;
            config_keys::divisible(&read, "d_model", d_model, &key("attention_heads"), n_heads)?;
            Ok::<_, ConfigError>(SideSizes {
                n_layers: read.usize_or(&key("layers"), 12)?,
                n_heads,
                d_ff: config_keys::positive(&read, &key("ffn_dim"), Some(4096))?,
            })
        };
        let (encoder, decoder) = (side("encoder")?, side("decoder")?);
        let sizes = Sizes {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            max_len: config_keys::positive(&read, "max_position_embeddings", Some(1024))?,
            n_layers: decoder.n_layers,
            d_ff: decoder.d_ff,
            ..Sizes::of_heads(d_model, decoder.n_heads)
        };
        let mut common = Common::read(&read, sizes, &KEYS)?;
        common.pad_with(&read, 1);
        common.tokens.bos.get_or_insert(0);
        if common.labels.labels.is_empty() {
            common.labels.n_labels = DEFAULT_LABELS;
        }
        let start = *common.tokens.eos.get_or_insert(2);
        let this = Self {
            common: common.with_source(&read, encoder, Some(start))?,
            activation: config_keys::activation(&read, "activation_function", "gelu")?,
            embedding_scale: match read.bool_or("scale_embedding", false)? {
                true => (d_model as f32).sqrt(),
                false => 1.0,
            },
            dropout: config_keys::rate(&read, "dropout", 0.1)?,
            attention_dropout: config_keys::rate(&read, "attention_dropout", 0.0)?,
            activation_dropout: config_keys::rate(&read, "activation_dropout", 0.0)?,
            classifier_dropout: config_keys::rate(&read, "classifier_dropout", 0.0)?,
            unbiased: true,
        };
        read.finish(accept_unknown)?;
        Ok(this)
    }

    /// Lewis et al. (2019), section 4 and the large model of section 5.
    fn presets() -> Vec<(&'static str, Value)> {
        let size = |layers: usize, d: usize, heads: usize| {
            json!({
                "model_type": "bart", "vocab_size": 50265, "d_model": d, "encoder_layers": layers, "decoder_layers": layers,
                "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": 4 * d,
                "decoder_ffn_dim": 4 * d,
            })
        };
        vec![
            ("bart-base", size(6, 768, 12)),
            ("bart-large", size(12, 1024, 16)),
        ]
    }
}

impl Config for BartConfig {
    fn published(&self) -> &'static Published {
        &super::PUBLISHED
    }

    common_field!();

    fn to_json(&self) -> Value {
        let sizes = &self.common.sizes;
        let mut json = json!({
            "vocab_size": sizes.vocab_size,
            "d_model": sizes.d_model,
            "max_position_embeddings": sizes.max_len,
            "activation_function": config_keys::activation_name(self.activation),
            "scale_embedding": self.embedding_scale != 1.0,
            "dropout": decimal(self.dropout),
            "attention_dropout": decimal(self.attention_dropout),
            "activation_dropout": decimal(self.activation_dropout),
            "classifier_dropout": decimal(self.classifier_dropout),
            "forced_eos_token_id": null,
        });
        for (name, which) in [("encoder", Which::Encoder), ("decoder", Which::Decoder)] {
            let side = self.common.side(which);
            json[format!("{name}_layers")] = side.n_layers.into();
            json[format!("{name}_attention_heads")] = side.n_heads.into();
            json[format!("{name}_ffn_dim")] = side.d_ff.into();
        }
        self.common.write(&mut json, &KEYS);
        json
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        self.common.resize(sizes);
        if self.embedding_scale != 1.0 {
            self.embedding_scale = (sizes.d_model as f32).sqrt();
        }
    }

    fn set_dropout(&mut self, rate: f32) {
        (self.dropout, self.attention_dropout) = (rate, rate);
        self.classifier_dropout = rate;
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        let pad = tokens.pad.or(Some(0));
        let start = tokens.eos.or(tokens.bos).or(pad);
        self.common
            .set_tokens(SpecialTokens { pad, ..tokens }, start);
    }

    fn settle(&mut self, tensors: &Tensors) {
        if let Ok((_, bias)) = tensors.to_f32(weights::LOGITS_BIAS) {
            self.unbiased = bias.iter().all(|x| *x == 0.0);
        }
    }

    fn rules(&self, _head: Head) -> Vec<&'static [Rule]> {
        weights::RULES.to_vec()
    }

    fn is_redundant(&self, name: &str) -> bool {
        let mut copies = self.published().redundant.iter();
        (self.unbiased && name == weights::LOGITS_BIAS) || copies.any(|end| name.ends_with(end))
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(Bart::new(self, head))
    }
}
