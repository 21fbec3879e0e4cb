//! Published configuration of T5 (1.0 and 1.1) and mT5.

use malmoi_checkpoint::{ConfigError, ConfigReader, Tensors};
use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::{Activation, FeedForwardKind, Sharing};
use serde_json::{Value, json};

use super::{model::T5, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys;
use crate::head::Head;
use crate::names::NameTable;

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

/// The two families that have this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// T5.
    T5,
    /// Multilingual T5.
    Mt5,
}

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
    pub family: Family,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks of the encoder.
    pub n_encoder_layers: usize,
    /// Blocks of the decoder.
    pub n_decoder_layers: usize,
    /// Layers that share their parameters, in each of the two.
    pub sharing: Sharing,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of a head, independent of `d_model / n_heads`.
    pub d_head: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Whether the feed-forward layer is gated.
    pub feed_forward: FeedForwardKind,
    /// Its activation.
    pub activation: Activation,
    /// Buckets of relative positions.
    pub n_buckets: usize,
    /// Distance from which on all keys share a bucket.
    pub max_distance: usize,
    /// Length that the model is meant for; the computation has no limit.
    pub max_len: usize,
    /// Added to the mean square in the norms.
    pub norm_eps: f32,
    /// Dropout everywhere.
    pub dropout: f32,
    /// What the decoder's output is multiplied by.
    pub output_scale: OutputScale,
    /// Whether the output projection is the token embedding once more.
    pub tied: bool,
    /// Factor on the deviations of initial weights.
    pub initializer_factor: f32,
    /// The padding token.
    pub pad_token_id: Option<u32>,
    /// End-of-text token, written into `config.json`.
    pub eos_token_id: Option<u32>,
    /// The token that the decoder starts with.
    pub decoder_start_token_id: u32,
}

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
        let family = match malmoi_checkpoint::directory::model_type(config) {
            "mt5" => Family::Mt5,
            _ => Family::T5,
        };
        let read = ConfigReader::new(config, family.model_type())?;
        read.refuse_unless("is_encoder_decoder", true)?;
        read.refuse_unless("is_decoder", false)?;
        // The dropout of a classifier that is not here and refused by its name.
        read.inert(&["classifier_dropout"]);
        let form = read.str_or("feed_forward_proj", family.feed_forward())?;
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
        let tied = read.bool_or("tie_word_embeddings", true)?;
        let scaled = match family {
            Family::Mt5 => false,
            Family::T5 => read.bool_or("scale_decoder_outputs", tied)?,
        };
        let n_encoder_layers = read.usize("num_layers")?;
        let n_decoder_layers = read.usize_or("num_decoder_layers", n_encoder_layers)?;
        let pad_token_id = config_keys::token(&read, "pad_token_id")?.or(Some(0));
        let start = config_keys::token(&read, "decoder_start_token_id")?;
        let this = Self {
            family,
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model: config_keys::positive(&read, "d_model", None)?,
            n_encoder_layers,
            n_decoder_layers,
            sharing: config_keys::sharing(&read, n_encoder_layers.min(n_decoder_layers))?,
            n_heads: config_keys::positive(&read, "num_heads", None)?,
            d_head: config_keys::positive(&read, "d_kv", None)?,
            d_ff: config_keys::positive(&read, "d_ff", None)?,
            feed_forward,
            activation,
            n_buckets: config_keys::positive(&read, "relative_attention_num_buckets", Some(32))?,
            max_distance: config_keys::positive(
                &read,
                "relative_attention_max_distance",
                Some(128),
            )?,
            max_len: config_keys::positive(&read, "n_positions", Some(512))?,
            norm_eps: read.f64_or("layer_norm_epsilon", 1e-6)? as f32,
            dropout: config_keys::rate(&read, "dropout_rate", 0.1)?,
            output_scale: if scaled {
                OutputScale::ByWidth
            } else {
                OutputScale::One
            },
            tied,
            initializer_factor: read.f64_or("initializer_factor", 1.0)? as f32,
            pad_token_id,
            eos_token_id: config_keys::token(&read, "eos_token_id")?.or(Some(1)),
            decoder_start_token_id: start.or(pad_token_id).unwrap_or(0),
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

impl Family {
    fn model_type(self) -> &'static str {
        match self {
            Self::T5 => "t5",
            Self::Mt5 => "mt5",
        }
    }

    /// The published default of `feed_forward_proj`.
    fn feed_forward(self) -> &'static str {
        match self {
            Self::T5 => "relu",
            Self::Mt5 => "gated-gelu",
        }
    }
}

impl Config for T5Config {
    fn to_json(&self) -> Value {
        let name = config_keys::activation_name(self.activation);
        let form = match (self.feed_forward, self.activation) {
            (FeedForwardKind::Plain, _) => name.to_owned(),
            (FeedForwardKind::Gated, Activation::GeluTanh) => "gated-gelu".to_owned(),
            (FeedForwardKind::Gated, _) => format!("gated-{name}"),
        };
        let mut config = json!({
            "model_type": self.family.model_type(),
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "num_layers": self.n_encoder_layers,
            "num_decoder_layers": self.n_decoder_layers,
            "num_heads": self.n_heads,
            "d_kv": self.d_head,
            "d_ff": self.d_ff,
            "feed_forward_proj": form,
            "relative_attention_num_buckets": self.n_buckets,
            "relative_attention_max_distance": self.max_distance,
            "n_positions": self.max_len,
            "layer_norm_epsilon": config_keys::decimal(self.norm_eps),
            "dropout_rate": config_keys::decimal(self.dropout),
            "initializer_factor": config_keys::decimal(self.initializer_factor),
            "is_encoder_decoder": true,
            "tie_word_embeddings": self.tied,
            "pad_token_id": self.pad_token_id,
            "eos_token_id": self.eos_token_id,
            "decoder_start_token_id": self.decoder_start_token_id,
        });
        config_keys::write_sharing(&mut config, self.sharing);
        if self.family == Family::T5 {
            config["scale_decoder_outputs"] = (self.output_scale == OutputScale::ByWidth).into();
        }
        config
    }

    fn model_type(&self) -> &'static str {
        self.family.model_type()
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        match self.family {
            Family::T5 => &[
                (Head::None, "T5Model"),
                (Head::Seq2SeqLm, "T5ForConditionalGeneration"),
            ],
            Family::Mt5 => &[
                (Head::None, "MT5Model"),
                (Head::Seq2SeqLm, "MT5ForConditionalGeneration"),
            ],
        }
    }

    fn direction(&self) -> Direction {
        Direction::EncoderDecoder
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            max_len: self.max_len,
            d_model: self.d_model,
            n_layers: self.n_decoder_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            d_head: self.d_head,
            d_ff: self.d_ff,
            n_segments: 1,
        }
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        // The sides keep their proportion when they have one; published ones are equal.
        if sizes.n_layers != self.n_decoder_layers {
            (self.n_encoder_layers, self.n_decoder_layers) = (sizes.n_layers, sizes.n_layers);
            self.sharing = self.sharing.for_layers(sizes.n_layers);
        }
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        (self.d_model, self.n_heads) = (sizes.d_model, sizes.n_heads);
        (self.d_head, self.d_ff) = (sizes.d_head, sizes.d_ff);
    }

    // Relative positions have no table that could end.
    fn position_limit(&self) -> usize {
        usize::MAX
    }

    fn set_dropout(&mut self, rate: f32) {
        self.dropout = rate;
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.pad_token_id = tokens.pad;
        self.eos_token_id = tokens.eos;
        self.decoder_start_token_id = tokens.pad.or(tokens.bos).unwrap_or(0);
    }

    fn decoder_start(&self) -> Option<u32> {
        Some(self.decoder_start_token_id)
    }

    fn pad_token(&self) -> Option<u32> {
        self.pad_token_id
    }

    fn initializer_range(&self) -> f32 {
        self.initializer_factor
    }

    fn set_initializer_range(&mut self, deviation: f32) {
        self.initializer_factor = deviation;
    }

    // Each matrix keeps the variance of what goes through it, and queries take the scale of the scores (Mesh TensorFlow's rules).
    fn initial_deviation(&self, parameter: &ParameterInfo) -> f32 {
        let name = parameter.name.as_str();
        let ends = |end: &str| name.ends_with(end);
        let fan_in = if ends("attention.query.weight") {
            self.d_model * self.d_head
        } else if ends("attention.output.weight") {
            self.n_heads * self.d_head
        } else if ends("feed_forward.down.weight") {
            self.d_ff
        } else if name == "token.weight" || name == "vocabulary.weight" {
            1
        } else {
            self.d_model
        };
        self.initializer_factor / (fan_in as f32).sqrt()
    }

    // Files whose configuration ties the projection may hold one of its own all the same: it counts when it is another.
    fn settle(&mut self, tensors: &Tensors) {
        let (own, shared) = ("lm_head.weight", "shared.weight");
        if self.tied
            && let (Ok(own), Ok(shared)) = (tensors.to_f32(own), tensors.to_f32(shared))
        {
            self.tied = own == shared;
        }
    }

    fn prefix(&self) -> &'static str {
        ""
    }

    fn names(&self, _head: Head, _prefixed: bool) -> NameTable {
        weights::table(self.feed_forward)
            .sharing_in("encoder.layers.", self.sharing, self.n_encoder_layers)
            .sharing_in("decoder.layers.", self.sharing, self.n_decoder_layers)
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        (self.tied && parameter == "token.weight").then_some("lm_head.weight")
    }

    fn is_redundant(&self, name: &str) -> bool {
        weights::is_redundant(name)
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(T5::new(self, head))
    }
}
