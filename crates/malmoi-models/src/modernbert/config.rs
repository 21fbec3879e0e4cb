//! Published configuration of ModernBERT.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{Activation, Mask, NormKind};
use serde_json::{Value, json};

use super::{model::ModernBert, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::common::{COMMON_KEYS, Common, common_field};
use crate::config::Sizes;
use crate::config_keys;
use crate::head::Head;
use crate::names::Rule;
use crate::published::Published;
use crate::reaches::{Reach, Reaches};
use crate::rope_keys::RopeConfig;

/// Published sizes (table 4 of the paper): name, layers, d_model, heads, d_ff.
const SIZES: &[(&str, usize, usize, usize, usize)] = &[
    ("modernbert-base", 22, 768, 12, 1152),
    ("modernbert-large", 28, 1024, 16, 2624),
];

/// Which state stands for a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// That of the first token.
    First,
    /// The mean of all.
    Mean,
}

/// Sizes and rates of a ModernBERT model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModernBertConfig {
    /// What all architectures have.
    pub common: Common,
    /// What each block sees.
    pub reaches: Reaches,
    /// Width of the window of sliding blocks: a token sees half of it on each side.
    pub window: usize,
    /// Rotary positions of blocks that see everything.
    pub full_rope: RopeConfig,
    /// Rotary positions of sliding blocks.
    pub sliding_rope: RopeConfig,
    /// Activation of the gate.
    pub activation: Activation,
    /// Layer norms, with or without a shift.
    pub norm: NormKind,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
    /// Whether the projections of attention have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward layer has biases.
    pub feed_forward_bias: bool,
    /// Whether the projection to the vocabulary has a bias.
    pub vocabulary_bias: bool,
    /// Dropout after the embeddings.
    pub embedding_dropout: f32,
    /// Dropout on attention probabilities and on attention's output.
    pub attention_dropout: f32,
    /// Dropout inside the feed-forward layer.
    pub feed_forward_dropout: f32,
    /// Which state a classifier of sequences reads.
    pub pooling: Pooling,
    /// Activation of the layer before vocabulary and classifier.
    pub head_activation: Activation,
    /// Whether that layer has a bias.
    pub head_bias: bool,
    /// Dropout before a classifier.
    pub classifier_dropout: f32,
}

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// What each block sees: a list, or in old files every how many blocks one sees everything.
fn reaches(read: &ConfigReader<'_>, n_layers: usize) -> Result<Reaches, ConfigError> {
    let every = config_keys::positive(read, "global_attn_every_n_layers", Some(3))?;
    let Some(names) = read.optional_strings("layer_types")? else {
        return Ok(Reaches::every(every, n_layers));
    };
    let named = |name: &String| match name.as_str() {
        FULL => Ok(Reach::Everything),
        SLIDING => Ok(Reach::Window),
        other => {
            let expected = format!("{FULL} or {SLIDING}");
            Err(read.unsupported("layer_types", &other.into(), &expected))
        }
    };
    if names.len() != n_layers {
        let expected = format!("as many entries as `num_hidden_layers` = {n_layers}");
        return Err(read.wrong_type("layer_types", &json!(names), &expected));
    }
    let layers: Result<Vec<_>, _> = names.iter().map(named).collect();
    layers.map(Reaches::new)
}

/// Rotary positions of full and sliding blocks: an object each, or in old files a number each.
fn ropes(read: &ConfigReader<'_>) -> Result<[RopeConfig; 2], ConfigError> {
    let full = read.f64_or("global_rope_theta", 160_000.0)? as f32;
    let sliding = read.f64_or("local_rope_theta", 10_000.0)? as f32;
    let given = read.value("rope_parameters");
    let one = |name: &str, theta: f32| match given.and_then(|all| all.get(name)) {
        None | Some(Value::Null) => Ok(RopeConfig::new(theta)),
        Some(value) => {
            RopeConfig::from_value(read, &format!("rope_parameters.{name}"), value, theta)
        }
    };
    if let Some(given) = given {
        let known = |object: &serde_json::Map<String, Value>| {
            object.keys().all(|key| key == FULL || key == SLIDING)
        };
        if !given.as_object().is_some_and(known) {
            let expected = format!("an object for {FULL} and one for {SLIDING}");
            return Err(read.wrong_type("rope_parameters", given, &expected));
        }
    }
    Ok([one(FULL, full)?, one(SLIDING, sliding)?])
}

impl Architecture for ModernBertConfig {
    const MODEL_TYPES: &'static [&'static str] = &["modernbert"];

    fn presets() -> Vec<(&'static str, Value)> {
        let presets = SIZES.iter().map(|(name, layers, d, heads, d_ff)| {
            let config = json!({
                "model_type": "modernbert", "vocab_size": 50368, "hidden_size": d, "num_hidden_layers": layers,
                "num_attention_heads": heads, "intermediate_size": d_ff, "max_position_embeddings": 8192,
                "pad_token_id": 50283, "bos_token_id": 50281, "eos_token_id": 50282,
            });
            (*name, config)
        });
        presets.collect()
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "modernbert")?;
        read.refuse_unless("position_embedding_type", "absolute")?;
        read.inert(&[
            // How published code computes the same: compiled, in another kernel, for masked positions alone.
            "reference_compile",
            "deterministic_flash_attn",
            "repad_logits_with_grad",
            "sparse_prediction",
            "sparse_pred_ignore_index",
            // The tails that initial values are cut at.
            "initializer_cutoff_factor",
            // A leftover beside `norm_eps`.
            "layer_norm_eps",
        ]);
        let keys = ("hidden_size", "num_attention_heads");
        let heads = config_keys::heads(&read, (keys.0, None), (keys.1, None), None)?;
        // An even width a head, whose halves turn together.
        let by = "2 · num_attention_heads";
        config_keys::divisible(&read, keys.0, heads.d_model, by, 2 * heads.n_heads)?;
        let sizes = Sizes {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            max_len: config_keys::positive(&read, "max_position_embeddings", Some(8192))?,
            n_layers: read.usize("num_hidden_layers")?,
            d_ff: config_keys::positive(&read, "intermediate_size", None)?,
            ..heads
        };
        let pooling = match read.str_or("classifier_pooling", "cls")? {
            "cls" => Pooling::First,
            "mean" => Pooling::Mean,
            other => {
                let other = Value::from(other);
                return Err(read.unsupported("classifier_pooling", &other, "cls or mean"));
            }
        };
        let [full_rope, sliding_rope] = ropes(&read)?;
        let this = Self {
            common: Common::read(&read, sizes, &COMMON_KEYS)?,
            reaches: reaches(&read, sizes.n_layers)?,
            window: config_keys::positive(&read, "local_attention", Some(128))?,
            full_rope,
            sliding_rope,
            activation: config_keys::activation(&read, "hidden_activation", "gelu")?,
            norm: if read.bool_or("norm_bias", false)? {
                NormKind::Layer
            } else {
                NormKind::LayerWithoutShift
            },
            norm_eps: read.f64_or("norm_eps", 1e-5)? as f32,
            attention_bias: read.bool_or("attention_bias", false)?,
            feed_forward_bias: read.bool_or("mlp_bias", false)?,
            vocabulary_bias: read.bool_or("decoder_bias", true)?,
            embedding_dropout: config_keys::rate(&read, "embedding_dropout", 0.0)?,
            attention_dropout: config_keys::rate(&read, "attention_dropout", 0.0)?,
            feed_forward_dropout: config_keys::rate(&read, "mlp_dropout", 0.0)?,
            pooling,
            head_activation: config_keys::activation(&read, "classifier_activation", "gelu")?,
            head_bias: read.bool_or("classifier_bias", false)?,
            classifier_dropout: config_keys::rate(&read, "classifier_dropout", 0.0)?,
        };
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

impl ModernBertConfig {
    /// Which keys a token of a block sees.
    pub fn mask(&self, reach: Reach) -> Mask {
        let half = self.window / 2;
        match reach {
            Reach::Everything => Mask::Full,
            Reach::Window => Mask::Window {
                left: half,
                right: half,
            },
        }
    }

    /// Rotary positions of a block.
    pub fn rope(&self, reach: Reach) -> &RopeConfig {
        match reach {
            Reach::Everything => &self.full_rope,
            Reach::Window => &self.sliding_rope,
        }
    }
}

impl Config for ModernBertConfig {
    fn published(&self) -> &'static Published {
        &super::PUBLISHED
    }

    common_field!();

    fn to_json(&self) -> Value {
        let names = self.reaches.layers().iter().map(|reach| match reach {
            Reach::Everything => FULL,
            Reach::Window => SLIDING,
        });
        let decimal = config_keys::decimal;
        let sizes = &self.common.sizes;
        let mut config = json!({
            "vocab_size": sizes.vocab_size,
            "hidden_size": sizes.d_model,
            "num_hidden_layers": sizes.n_layers,
            "num_attention_heads": sizes.n_heads,
            "intermediate_size": sizes.d_ff,
            "max_position_embeddings": sizes.max_len,
            "layer_types": names.collect::<Vec<_>>(),
            "local_attention": self.window,
            "rope_parameters": {FULL: self.full_rope.to_value(), SLIDING: self.sliding_rope.to_value()},
            "hidden_activation": config_keys::activation_name(self.activation),
            "norm_bias": self.norm == NormKind::Layer,
            "norm_eps": decimal(self.norm_eps),
            "attention_bias": self.attention_bias,
            "mlp_bias": self.feed_forward_bias,
            "decoder_bias": self.vocabulary_bias,
            "embedding_dropout": decimal(self.embedding_dropout),
            "attention_dropout": decimal(self.attention_dropout),
            "mlp_dropout": decimal(self.feed_forward_dropout),
            "classifier_pooling": match self.pooling {
                Pooling::First => "cls",
                Pooling::Mean => "mean",
            },
            "classifier_activation": config_keys::activation_name(self.head_activation),
            "classifier_bias": self.head_bias,
            "classifier_dropout": decimal(self.classifier_dropout),
        });
        self.common.write(&mut config, &COMMON_KEYS);
        config
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        self.common.resize(sizes);
        self.reaches = self.reaches.for_layers(sizes.n_layers);
    }

    fn set_dropout(&mut self, rate: f32) {
        self.embedding_dropout = rate;
        self.attention_dropout = rate;
        self.feed_forward_dropout = rate;
        self.classifier_dropout = rate;
    }

    fn rules(&self, _head: Head) -> Vec<&'static [Rule]> {
        vec![weights::RULES]
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(ModernBert::new(self, head))
    }
}
