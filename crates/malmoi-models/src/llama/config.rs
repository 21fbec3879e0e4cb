//! Published configuration of LLaMA.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{Activation, Sharing};
use serde_json::{Value, json};

use super::{model::Llama, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys::{self, LabelSet};
use crate::head::{Head, ProblemType};
use crate::names::NameTable;
use crate::rope_keys::RopeConfig;

/// Published sizes: name, layers, d_model, heads, key and value heads, d_ff.
const SIZES: &[(&str, usize, usize, usize, usize, usize)] = &[
    ("llama-7b", 32, 4096, 32, 32, 11008),
    ("llama-13b", 40, 5120, 40, 40, 13824),
    ("llama-30b", 60, 6656, 52, 52, 17920),
    ("llama-65b", 80, 8192, 64, 64, 22016),
    ("llama2-70b", 80, 8192, 64, 8, 28672),
    ("llama3-8b", 32, 4096, 32, 8, 14336),
    ("llama3-70b", 80, 8192, 64, 8, 28672),
];

/// Sizes and rates of a LLaMA model.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Layers that share their parameters.
    pub sharing: Sharing,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads, each shared by `n_heads / n_kv_heads` query heads (Ainslie et al., 2023).
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Longest sequence.
    pub max_len: usize,
    /// Activation of the gate.
    pub activation: Activation,
    /// Added to the mean square in the norms.
    pub norm_eps: f32,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// Whether the projections of attention have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward layer has biases.
    pub feed_forward_bias: bool,
    /// Whether the output projection is the token embedding once more.
    pub tied: bool,
    /// Dropout on attention probabilities.
    pub attention_dropout: f32,
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

impl Architecture for LlamaConfig {
    const MODEL_TYPES: &'static [&'static str] = &["llama"];

    fn presets() -> Vec<(&'static str, Value)> {
        let presets = SIZES.iter().map(|(name, layers, d, heads, kv_heads, d_ff)| {
            let (vocab_size, max_len, theta) = match name {
                name if name.starts_with("llama3") => (128_256, 8192, 500_000.0),
                name if name.starts_with("llama2") => (32_000, 4096, 10_000.0),
                _ => (32_000, 2048, 10_000.0),
            };
            let config = json!({
                "model_type": "llama", "vocab_size": vocab_size, "hidden_size": d, "num_hidden_layers": layers,
                "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": d_ff,
                "max_position_embeddings": max_len, "rope_theta": theta, "rms_norm_eps": 1e-5,
            });
            (*name, config)
        });
        presets.collect()
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "llama")?;
        // Another order of the same products.
        read.inert(&["pretraining_tp"]);
        let d_model = config_keys::positive(&read, "hidden_size", None)?;
        let n_heads = config_keys::positive(&read, "num_attention_heads", None)?;
        let n_kv_heads = config_keys::positive(&read, "num_key_value_heads", Some(n_heads))?;
        config_keys::divisible(
            &read,
            "num_attention_heads",
            n_heads,
            "num_key_value_heads",
            n_kv_heads,
        )?;
        let d_head = match read.optional_usize("head_dim")? {
            Some(_) => config_keys::positive(&read, "head_dim", None)?,
            None => {
                config_keys::divisible(
                    &read,
                    "hidden_size",
                    d_model,
                    "num_attention_heads",
                    n_heads,
                )?;
                d_model / n_heads
            }
        };
        config_keys::divisible(&read, "head_dim", d_head, "elements of a pair", 2)?;
        let LabelSet {
            n_labels,
            labels,
            problem_type,
        } = config_keys::labels(&read)?;
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model,
            n_layers: read.usize("num_hidden_layers")?,
            sharing: config_keys::sharing(&read, read.usize("num_hidden_layers")?)?,
            n_heads,
            n_kv_heads,
            d_head,
            d_ff: config_keys::positive(&read, "intermediate_size", None)?,
            max_len: config_keys::positive(&read, "max_position_embeddings", Some(2048))?,
            activation: config_keys::activation(&read, "hidden_act", "silu")?,
            norm_eps: read.f64_or("rms_norm_eps", 1e-6)? as f32,
            rope: RopeConfig::read(&read, 10_000.0)?,
            attention_bias: read.bool_or("attention_bias", false)?,
            feed_forward_bias: read.bool_or("mlp_bias", false)?,
            tied: read.bool_or("tie_word_embeddings", false)?,
            attention_dropout: config_keys::rate(&read, "attention_dropout", 0.0)?,
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

impl Config for LlamaConfig {
    fn to_json(&self) -> Value {
        let mut config = json!({
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.d_head,
            "intermediate_size": self.d_ff,
            "max_position_embeddings": self.max_len,
            "hidden_act": config_keys::activation_name(self.activation),
            "rms_norm_eps": config_keys::decimal(self.norm_eps),
            "rope_parameters": self.rope.to_value(),
            "attention_bias": self.attention_bias,
            "mlp_bias": self.feed_forward_bias,
            "attention_dropout": config_keys::decimal(self.attention_dropout),
            "initializer_range": config_keys::decimal(self.initializer_range),
            "tie_word_embeddings": self.tied,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        });
        config_keys::write_sharing(&mut config, self.sharing);
        config_keys::write_labels(&mut config, &self.labels, self.problem_type);
        config
    }

    fn model_type(&self) -> &'static str {
        "llama"
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        &[
            (Head::None, "LlamaModel"),
            (Head::CausalLm, "LlamaForCausalLM"),
            (
                Head::SequenceClassification,
                "LlamaForSequenceClassification",
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
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            d_head: self.d_head,
            d_ff: self.d_ff,
            n_segments: 1,
        }
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        (self.d_model, self.n_layers) = (sizes.d_model, sizes.n_layers);
        self.sharing = self.sharing.for_layers(sizes.n_layers);
        (self.n_heads, self.n_kv_heads) = (sizes.n_heads, sizes.n_kv_heads);
        (self.d_head, self.d_ff) = (sizes.d_head, sizes.d_ff);
    }

    fn set_dropout(&mut self, rate: f32) {
        self.attention_dropout = rate;
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
        "model."
    }

    fn names(&self, _head: Head, prefixed: bool) -> NameTable {
        weights::table(if prefixed { self.prefix() } else { "" })
            .sharing(self.sharing, self.n_layers)
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        (self.tied && parameter == "token.weight").then_some("lm_head.weight")
    }

    fn is_redundant(&self, name: &str) -> bool {
        weights::is_redundant(name)
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(Llama::new(self, head))
    }
}
