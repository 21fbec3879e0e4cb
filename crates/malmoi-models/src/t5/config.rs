//! Published configuration of T5 (1.0 and 1.1) and mT5.

use malmoi_checkpoint::{ConfigError, ConfigReader, Tensors, directory};
use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::{Activation, FeedForwardKind};
use serde_json::{Value, json};

use super::{model::T5, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::common::{COMMON_KEYS, Common, CommonKeys, HeadSizes, SideSizes, common_field};
use crate::config::{Sizes, SpecialTokens};
use crate::config_keys;
use crate::head::Head;
use crate::names::Rule;
use crate::published::Published;
use crate::side::Which;

/// Published sizes: name, layers of each side, d_model, heads, d_head, d_ff.
const V1_0: &[(&str, usize, usize, usize, usize, usize)] = &[
    ("t5-small", 6, 512, 8, 64, 2048),
    ("t5-base", 12, 768, 12, 64, 3072),
    ("t5-large", 24, 1024, 16, 64, 4096),
    ("t5-3b", 24, 1024, 32, 128, 16384),
    ("t5-11b", 24, 1024, 128, 128, 65536),
];

/// Sizes that version 1.1 and mT5 share: name, layers of each side, d_model, heads, d_ff; heads are 64 wide.
const V1_1: &[(&str, usize, usize, usize, usize)] = &[
    ("small", 8, 512, 6, 1024),
    ("base", 12, 768, 12, 2048),
    ("large", 24, 1024, 16, 2816),
    ("xl", 24, 2048, 32, 5120),
    ("xxl", 24, 4096, 64, 10240),
];

/// What the decoder's output is multiplied by before the vocabulary projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputScale {
    /// 1 (version 1.1, mT5).
    One,
    /// `1 / √d_model` (version 1.0, whose projection is the embedding).
    ByWidth,
}

/// Sizes and rates of a T5 model.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// T5 or mT5.
    pub published: &'static Published,
    /// What all architectures have. The usual length is what the model is meant for; the computation has no limit.
    pub common: Common,
    /// Whether the feed-forward layer is gated.
    pub feed_forward: FeedForwardKind,
    /// Its activation.
    pub activation: Activation,
    /// Buckets of relative positions.
    pub n_buckets: usize,
    /// Distance from which on all keys share a bucket.
    pub max_distance: usize,
    /// Added to the mean square in the norms.
    pub norm_eps: f32,
    /// Dropout everywhere.
    pub dropout: f32,
    /// Dropout before and inside a classifier.
    pub classifier_dropout: f32,
    /// What the decoder's output is multiplied by.
    pub output_scale: OutputScale,
}

const KEYS: CommonKeys = CommonKeys {
    initializer: "initializer_factor",
    initializer_default: 1.0,
    ..COMMON_KEYS
};

impl Architecture for T5Config {
    const MODEL_TYPES: &'static [&'static str] = &["t5", "mt5"];

    fn presets() -> Vec<(&'static str, Value)> {
        let v1_0 = V1_0.iter().map(|(name, layers, d, heads, d_head, d_ff)| {
            let config = json!({
                "model_type": "t5", "vocab_size": 32128, "d_model": d, "num_layers": layers, "num_heads": heads,
                "d_kv": d_head, "d_ff": d_ff, "feed_forward_proj": "relu", "n_positions": 512,
            });
            (*name, config)
        });
        let v1_1 = [("t5", "t5-v1_1-", 32128), ("mt5", "mt5-", 250_112)];
        let v1_1 = v1_1.into_iter().flat_map(|(family, prefix, vocab_size)| {
            V1_1.iter().map(move |(size, layers, d, heads, d_ff)| {
                let config = json!({
                    "model_type": family, "vocab_size": vocab_size, "d_model": d, "num_layers": layers, "num_heads": heads,
                    "d_kv": 64, "d_ff": d_ff, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
                });
                (preset_name(prefix, size), config)
            })
        });
        v1_0.chain(v1_1).collect()
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let published = match directory::model_type(config) {
            "mt5" => &super::MT5,
            _ => &super::T5,
        };
        let is_mt5 = published.model_type == super::MT5.model_type;
        let read = ConfigReader::new(config, published.model_type)?;
        read.refuse_unless("is_decoder", false)?;
        // Python writes false where the encoder alone is saved; `architectures` says the same.
        read.inert(&["is_encoder_decoder"]);
        let form = read.str_or(
            "feed_forward_proj",
            if is_mt5 { "gated-gelu" } else { "relu" },
        )?;
        let (feed_forward, name) = match form.split_once('-') {
            None => (FeedForwardKind::Plain, form),
            Some(("gated", name)) => (FeedForwardKind::Gated, name),
            Some(_) => {
                let expected = "an activation or gated-ACTIVATION";
                return Err(read.unsupported("feed_forward_proj", &form.into(), expected));
            }
        };
        // A gated GELU has always been the tanh approximation here.
        let name = if form == "gated-gelu" {
            "gelu_new"
        } else {
            name
        };
        let activation = config_keys::activation_named(&read, "feed_forward_proj", name)?;
        // What Python derives from it and writes down once more.
        read.refuse_unless("is_gated_act", feed_forward == FeedForwardKind::Gated)?;
        read.refuse_unless("dense_act_fn", name)?;
        let n_heads = config_keys::positive(&read, "num_heads", None)?;
        let encoder = SideSizes {
            n_layers: read.usize("num_layers")?,
            n_heads,
            d_ff: config_keys::positive(&read, "d_ff", None)?,
        };
        let d_model = config_keys::positive(&read, "d_model", None)?;
        let sizes = Sizes {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            max_len: config_keys::positive(&read, "n_positions", Some(512))?,
            n_layers: read.usize_or("num_decoder_layers", encoder.n_layers)?,
            d_head: config_keys::positive(&read, "d_kv", None)?,
            d_ff: encoder.d_ff,
            ..Sizes::of_heads(d_model, n_heads)
        };
        let mut common = Common::read(&read, sizes, &KEYS)?;
        common.heads = HeadSizes::FreeWidth;
        let pad = *common.tokens.pad.get_or_insert(0);
        common.tokens.eos.get_or_insert(1);
        let common = common.with_source(&read, encoder, Some(pad))?;
        let scaled = !is_mt5 && read.bool_or("scale_decoder_outputs", common.tied)?;
        let distance = "relative_attention_max_distance";
        let this = Self {
            published,
            common,
            feed_forward,
            activation,
            n_buckets: config_keys::positive(&read, "relative_attention_num_buckets", Some(32))?,
            max_distance: config_keys::positive(&read, distance, Some(128))?,
            norm_eps: read.f64_or("layer_norm_epsilon", 1e-6)? as f32,
            dropout: config_keys::rate(&read, "dropout_rate", 0.1)?,
            classifier_dropout: config_keys::rate(&read, "classifier_dropout", 0.0)?,
            output_scale: if scaled {
                OutputScale::ByWidth
            } else {
                OutputScale::One
            },
        };
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

/// A name of the table of presets; they live as long as the program.
fn preset_name(prefix: &str, size: &str) -> &'static str {
    const NAMES: &[&str] = &[
        "t5-v1_1-small",
        "t5-v1_1-base",
        "t5-v1_1-large",
        "t5-v1_1-xl",
        "t5-v1_1-xxl",
        "mt5-small",
        "mt5-base",
        "mt5-large",
        "mt5-xl",
        "mt5-xxl",
    ];
    let is = |name: &&&str| name.strip_prefix(prefix) == Some(size);
    NAMES.iter().find(is).expect("every size has a name")
}

impl Config for T5Config {
    fn published(&self) -> &'static Published {
        self.published
    }

    common_field!();

    fn to_json(&self) -> Value {
        let name = config_keys::activation_name(self.activation);
        let form = match (self.feed_forward, self.activation) {
            (FeedForwardKind::Plain, _) => name.to_owned(),
            (FeedForwardKind::Gated, Activation::GeluTanh) => "gated-gelu".to_owned(),
            (FeedForwardKind::Gated, _) => format!("gated-{name}"),
        };
        let sizes = &self.common.sizes;
        let mut json = json!({
            "vocab_size": sizes.vocab_size,
            "d_model": sizes.d_model,
            "num_layers": self.common.side(Which::Encoder).n_layers,
            "num_decoder_layers": sizes.n_layers,
            "num_heads": sizes.n_heads,
            "d_kv": sizes.d_head,
            "d_ff": sizes.d_ff,
            "feed_forward_proj": form,
            "relative_attention_num_buckets": self.n_buckets,
            "relative_attention_max_distance": self.max_distance,
            "n_positions": sizes.max_len,
            "layer_norm_epsilon": config_keys::decimal(self.norm_eps),
            "dropout_rate": config_keys::decimal(self.dropout),
            "classifier_dropout": config_keys::decimal(self.classifier_dropout),
        });
        if self.published.model_type == super::T5.model_type {
            json["scale_decoder_outputs"] = (self.output_scale == OutputScale::ByWidth).into();
        }
        self.common.write(&mut json, &KEYS);
        json
    }

    fn prefix(&self, head: Head) -> &'static str {
        match head {
            Head::SequenceClassification | Head::TokenClassification => "transformer.",
            _ => self.published.prefix,
        }
    }

    // Relative positions have no table that could end.
    fn position_limit(&self) -> usize {
        usize::MAX
    }

    fn set_dropout(&mut self, rate: f32) {
        (self.dropout, self.classifier_dropout) = (rate, rate);
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.common.set_tokens(tokens, tokens.pad.or(tokens.bos));
    }

    // Each matrix keeps the variance of what goes through it, and queries take the scale of the scores (Mesh TensorFlow's rules).
    fn initial_deviation(&self, parameter: &ParameterInfo) -> f32 {
        let sizes = &self.common.sizes;
        let name = parameter.name.as_str();
        let ends = |end: &str| name.ends_with(end);
        let fan_in = if ends("attention.query.weight") {
            sizes.d_model * sizes.d_head
        } else if ends("attention.output.weight") {
            sizes.n_heads * sizes.d_head
        } else if ends("feed_forward.down.weight") {
            sizes.d_ff
        } else if name == "token.weight" || name == "vocabulary.weight" {
            1
        } else {
            sizes.d_model
        };
        self.common.initializer_range / (fan_in as f32).sqrt()
    }

    // Files whose configuration ties the projection may hold one of its own all the same: it counts when it is another.
    fn settle(&mut self, tensors: &Tensors) {
        let (own, shared) = ("lm_head.weight", "shared.weight");
        if self.common.tied
            && let (Ok(own), Ok(shared)) = (tensors.to_f32(own), tensors.to_f32(shared))
        {
            self.common.tied = own == shared;
        }
    }

    fn rules(&self, _head: Head) -> Vec<&'static [Rule]> {
        weights::rules(self.feed_forward)
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(T5::new(self, head))
    }
}
