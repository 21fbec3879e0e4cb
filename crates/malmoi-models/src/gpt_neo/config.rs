//! Published configuration of GPT-Neo.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{Activation, Mask};
use serde_json::{Value, json};

use super::{model::GptNeo, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys::{self, LabelSet};
use crate::head::{Head, ProblemType};
use crate::names::NameTable;

/// Published sizes: name, layers, d_model, heads.
const SIZES: &[(&str, usize, usize, usize)] = &[
    ("gpt-neo-125m", 12, 768, 12),
    ("gpt-neo-1.3b", 24, 2048, 16),
    ("gpt-neo-2.7b", 32, 2560, 20),
];

/// What a token of a block sees on its left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of it.
    Global,
    /// The last `window` tokens, its own included.
    Local,
}

impl Reach {
    fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Local => "local",
        }
    }
}

/// Sizes and rates of a GPT-Neo model.
#[derive(Clone, Debug, PartialEq)]
pub struct GptNeoConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Longest sequence.
    pub max_len: usize,
    /// What each block sees.
    pub reaches: Vec<Reach>,
    /// Tokens that a token of a local block sees, its own included.
    pub window: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
    /// Dropout after the embeddings.
    pub embedding_dropout: f32,
    /// Dropout on attention probabilities.
    pub attention_dropout: f32,
    /// Dropout after attention and feed-forward.
    pub residual_dropout: f32,
    /// Whether the output projection is the token embedding once more.
    pub tied: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f32,
    /// The padding token, which a classifier needs to find the last real one.
    pub pad_token_id: Option<u32>,
    /// Start-of-text token, written into `config.json`.
    pub bos_token_id: Option<u32>,
    /// End-of-text token, written into `config.json`.
    pub eos_token_id: Option<u32>,
    /// Outputs of a classifier.
    pub n_labels: usize,
    /// Their names, if any were published.
    pub labels: Vec<String>,
    /// How the classifier's labels are read; by the number of labels when absent.
    pub problem_type: Option<ProblemType>,
}

/// Expands `[[["global", "local"], 12]]` into one entry a block.
fn reaches(read: &ConfigReader<'_>, n_layers: usize) -> Result<Vec<Reach>, ConfigError> {
    let key = "attention_types";
    let default = json!([[["global", "local"], 12]]);
    let given = read.value(key).unwrap_or(&default);
    let wrong = || read.wrong_type(key, given, "a list like [[[\"global\", \"local\"], 12]]");
    let mut all = Vec::new();
    for group in given.as_array().ok_or_else(wrong)? {
        let parts = group.as_array().filter(|parts| parts.len() == 2);
        let parts = parts.ok_or_else(wrong)?;
        let times = parts[1].as_u64().ok_or_else(wrong)?;
        let names = parts[0].as_array().ok_or_else(wrong)?;
        let named = |name: &Value| match name.as_str() {
            Some("global") => Ok(Reach::Global),
            Some("local") => Ok(Reach::Local),
            _ => Err(read.unsupported(key, name, "global or local")),
        };
        let group = names.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..times.min(n_layers as u64 + 1) {
            all.extend(&group);
        }
    }
    if all.len() == n_layers {
        return Ok(all);
    }
    let expected = format!("as many blocks as `num_layers` = {n_layers}");
    Err(read.wrong_type(key, given, &expected))
}

impl Architecture for GptNeoConfig {
    const MODEL_TYPES: &'static [&'static str] = &["gpt_neo"];

    fn presets() -> Vec<(&'static str, Value)> {
        let preset = |(name, layers, d, heads): &(&'static str, usize, usize, usize)| {
            let config = json!({
                "model_type": "gpt_neo", "vocab_size": 50257, "hidden_size": d, "num_layers": layers, "num_heads": heads,
                "max_position_embeddings": 2048, "window_size": 256,
                "attention_types": [[["global", "local"], layers / 2]],
                "bos_token_id": 50256, "eos_token_id": 50256,
            });
            (*name, config)
        };
        SIZES.iter().map(preset).collect()
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "gpt_neo")?;
        // The list follows from `attention_types`; the dropout belongs to a head that is not here and refused by its name.
        read.inert(&["attention_layers", "classifier_dropout"]);
        let d_model = config_keys::positive(&read, "hidden_size", None)?;
        let n_heads = config_keys::positive(&read, "num_heads", None)?;
        config_keys::divisible(&read, "hidden_size", d_model, "num_heads", n_heads)?;
        let LabelSet {
            n_labels,
            labels,
            problem_type,
        } = config_keys::labels(&read)?;
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model,
            n_heads,
            d_ff: config_keys::positive(&read, "intermediate_size", Some(4 * d_model))?,
            max_len: config_keys::positive(&read, "max_position_embeddings", Some(2048))?,
            reaches: reaches(&read, read.usize("num_layers")?)?,
            window: config_keys::positive(&read, "window_size", Some(256))?,
            activation: config_keys::activation(&read, "activation_function", "gelu_new")?,
            norm_eps: read.f64_or("layer_norm_epsilon", 1e-5)? as f32,
            embedding_dropout: config_keys::rate(&read, "embed_dropout", 0.0)?,
            attention_dropout: config_keys::rate(&read, "attention_dropout", 0.0)?,
            residual_dropout: config_keys::rate(&read, "resid_dropout", 0.0)?,
            tied: read.bool_or("tie_word_embeddings", true)?,
            initializer_range: read.f64_or("initializer_range", 0.02)? as f32,
            pad_token_id: config_keys::token(&read, "pad_token_id")?,
            bos_token_id: config_keys::token(&read, "bos_token_id")?,
            eos_token_id: config_keys::token(&read, "eos_token_id")?,
            n_labels,
            labels,
            problem_type,
        };
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

impl GptNeoConfig {
    /// Which keys a token of a block sees.
    pub fn mask(&self, reach: Reach) -> Mask {
        match reach {
            Reach::Global => Mask::Causal,
            Reach::Local => Mask::Window {
                left: self.window - 1,
                right: 0,
            },
        }
    }
}

impl Config for GptNeoConfig {
    fn to_json(&self) -> Value {
        let reaches: Vec<&str> = self.reaches.iter().map(|reach| reach.name()).collect();
        let mut config = json!({
            "model_type": "gpt_neo",
            "vocab_size": self.vocab_size,
            "hidden_size": self.d_model,
            "num_layers": self.reaches.len(),
            "num_heads": self.n_heads,
            "intermediate_size": self.d_ff,
            "max_position_embeddings": self.max_len,
            "attention_types": [[reaches, 1]],
            "window_size": self.window,
            "activation_function": config_keys::activation_name(self.activation),
            "layer_norm_epsilon": config_keys::decimal(self.norm_eps),
            "embed_dropout": config_keys::decimal(self.embedding_dropout),
            "attention_dropout": config_keys::decimal(self.attention_dropout),
            "resid_dropout": config_keys::decimal(self.residual_dropout),
            "initializer_range": config_keys::decimal(self.initializer_range),
            "tie_word_embeddings": self.tied,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        });
        config_keys::write_labels(&mut config, &self.labels, self.problem_type);
        config
    }

    fn model_type(&self) -> &'static str {
        "gpt_neo"
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        &[
            (Head::None, "GPTNeoModel"),
            (Head::CausalLm, "GPTNeoForCausalLM"),
            (
                Head::SequenceClassification,
                "GPTNeoForSequenceClassification",
            ),
        ]
    }

    fn direction(&self) -> Direction {
        Direction::Decoder
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            max_len: self.max_len,
            d_model: self.d_model,
            n_layers: self.reaches.len(),
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            d_head: self.d_model / self.n_heads,
            d_ff: self.d_ff,
            n_segments: self.vocab_size,
        }
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        (self.d_model, self.n_heads, self.d_ff) = (sizes.d_model, sizes.n_heads, sizes.d_ff);
        // The pattern goes on.
        let pattern = std::mem::take(&mut self.reaches);
        self.reaches = (pattern.into_iter().cycle().take(sizes.n_layers)).collect();
    }

    fn set_dropout(&mut self, rate: f32) {
        self.embedding_dropout = rate;
        self.attention_dropout = rate;
        self.residual_dropout = rate;
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.bos_token_id = tokens.bos;
        self.eos_token_id = tokens.eos;
        self.pad_token_id = tokens.pad;
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

    fn prefix(&self) -> &'static str {
        "transformer."
    }

    fn names(&self, _head: Head, prefixed: bool) -> NameTable {
        weights::table(if prefixed { self.prefix() } else { "" })
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        (self.tied && parameter == "token.weight").then_some("lm_head.weight")
    }

    fn is_redundant(&self, name: &str) -> bool {
        weights::is_redundant(name)
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(GptNeo::new(self, head))
    }
}
