//! Published configuration of BART.

use malmoi_checkpoint::{ConfigError, ConfigReader, Tensors};
use malmoi_nn::{Activation, Sharing};
use serde_json::{Value, json};

use super::{model::Bart, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys::{self, decimal};
use crate::head::Head;
use crate::names::NameTable;

/// Sizes of one of the two stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideConfig {
    /// Blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
}

/// Sizes and rates of a BART model.
#[derive(Clone, Debug, PartialEq)]
pub struct BartConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// The encoder.
    pub encoder: SideConfig,
    /// The decoder.
    pub decoder: SideConfig,
    /// Layers that share their parameters, in each of the two.
    pub sharing: Sharing,
    /// Longest sequence.
    pub max_len: usize,
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
    /// Standard deviation of initial weights.
    pub initializer_range: f32,
    /// The padding token.
    pub pad_token_id: u32,
    /// Start-of-text token.
    pub bos_token_id: Option<u32>,
    /// End-of-text token.
    pub eos_token_id: Option<u32>,
    /// The token that a decoder starts with.
    pub decoder_start_token_id: u32,
    /// Names of labels, kept from the file.
    pub labels: Vec<String>,
    /// Whether the file's `final_logits_bias` is the zeros that it always was; another one is refused as unused.
    pub unbiased: bool,
}

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
        read.inert(&[
            "classifier_dropout",
            "classif_dropout",
            "force_bos_token_to_be_generated",
        ]);
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
            Ok::<_, ConfigError>(SideConfig {
                n_layers: read.usize_or(&key("layers"), 12)?,
                n_heads,
                d_ff: config_keys::positive(&read, &key("ffn_dim"), Some(4096))?,
            })
        };
        let (encoder, decoder) = (side("encoder")?, side("decoder")?);
        let eos_token_id = config_keys::token(&read, "eos_token_id")?.or(Some(2));
        let start = config_keys::token(&read, "decoder_start_token_id")?;
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model,
            encoder,
            decoder,
            sharing: config_keys::sharing(&read, encoder.n_layers.min(decoder.n_layers))?,
            max_len: config_keys::positive(&read, "max_position_embeddings", Some(1024))?,
            activation: config_keys::activation(&read, "activation_function", "gelu")?,
            embedding_scale: match read.bool_or("scale_embedding", false)? {
                true => (d_model as f32).sqrt(),
                false => 1.0,
            },
            dropout: config_keys::rate(&read, "dropout", 0.1)?,
            attention_dropout: config_keys::rate(&read, "attention_dropout", 0.0)?,
            activation_dropout: config_keys::rate(&read, "activation_dropout", 0.0)?,
            initializer_range: read.f64_or("init_std", 0.02)? as f32,
            pad_token_id: config_keys::token(&read, "pad_token_id")?.unwrap_or(1),
            bos_token_id: config_keys::token(&read, "bos_token_id")?.or(Some(0)),
            eos_token_id,
            decoder_start_token_id: start.or(eos_token_id).unwrap_or(2),
            labels: config_keys::labels(&read)?.labels,
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
    fn to_json(&self) -> Value {
        let mut config = json!({
            "model_type": "bart",
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "encoder_layers": self.encoder.n_layers,
            "encoder_attention_heads": self.encoder.n_heads,
            "encoder_ffn_dim": self.encoder.d_ff,
            "decoder_layers": self.decoder.n_layers,
            "decoder_attention_heads": self.decoder.n_heads,
            "decoder_ffn_dim": self.decoder.d_ff,
            "max_position_embeddings": self.max_len,
            "activation_function": config_keys::activation_name(self.activation),
            "scale_embedding": self.embedding_scale != 1.0,
            "dropout": decimal(self.dropout),
            "attention_dropout": decimal(self.attention_dropout),
            "activation_dropout": decimal(self.activation_dropout),
            "init_std": decimal(self.initializer_range),
            "is_encoder_decoder": true,
            "tie_word_embeddings": true,
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "decoder_start_token_id": self.decoder_start_token_id,
            "forced_eos_token_id": null,
        });
        config_keys::write_sharing(&mut config, self.sharing);
        config_keys::write_labels(&mut config, &self.labels, None);
        config
    }

    fn model_type(&self) -> &'static str {
        "bart"
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        &[
            (Head::None, "BartModel"),
            (Head::Seq2SeqLm, "BartForConditionalGeneration"),
        ]
    }

    fn direction(&self) -> Direction {
        Direction::EncoderDecoder
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            max_len: self.max_len,
            d_model: self.d_model,
            n_layers: self.decoder.n_layers,
            n_heads: self.decoder.n_heads,
            n_kv_heads: self.decoder.n_heads,
            d_head: self.d_model / self.decoder.n_heads,
            d_ff: self.decoder.d_ff,
            n_segments: 1,
        }
    }

    /// Both sides take what is given; one that stays as it is leaves the encoder alone.
    fn set_sizes(&mut self, sizes: &Sizes) {
        let given = SideConfig {
            n_layers: sizes.n_layers,
            n_heads: sizes.n_heads,
            d_ff: sizes.d_ff,
        };
        if given != self.decoder {
            (self.encoder, self.decoder) = (given, given);
            self.sharing = self.sharing.for_layers(sizes.n_layers);
        }
        if self.embedding_scale != 1.0 {
            self.embedding_scale = (sizes.d_model as f32).sqrt();
        }
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        self.d_model = sizes.d_model;
    }

    fn set_dropout(&mut self, rate: f32) {
        (self.dropout, self.attention_dropout) = (rate, rate);
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.pad_token_id = tokens.pad.unwrap_or(0);
        (self.bos_token_id, self.eos_token_id) = (tokens.bos, tokens.eos);
        let start = tokens.eos.or(tokens.bos);
        self.decoder_start_token_id = start.unwrap_or(self.pad_token_id);
    }

    fn decoder_start(&self) -> Option<u32> {
        Some(self.decoder_start_token_id)
    }

    fn pad_token(&self) -> Option<u32> {
        Some(self.pad_token_id)
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn initializer_range(&self) -> f32 {
        self.initializer_range
    }

    fn set_initializer_range(&mut self, deviation: f32) {
        self.initializer_range = deviation;
    }

    fn settle(&mut self, tensors: &Tensors) {
        if let Ok((_, bias)) = tensors.to_f32(weights::LOGITS_BIAS) {
            self.unbiased = bias.iter().all(|x| *x == 0.0);
        }
    }

    fn prefix(&self) -> &'static str {
        "model."
    }

    fn names(&self, _head: Head, prefixed: bool) -> NameTable {
        weights::table(if prefixed { self.prefix() } else { "" })
            .sharing_in("encoder.layers.", self.sharing, self.encoder.n_layers)
            .sharing_in("decoder.layers.", self.sharing, self.decoder.n_layers)
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        (parameter == "token.weight").then_some("lm_head.weight")
    }

    fn is_redundant(&self, name: &str) -> bool {
        (self.unbiased && name == weights::LOGITS_BIAS) || name.ends_with("embed_tokens.weight")
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(Bart::new(self, head))
    }
}
