//! Published configuration of GPT-1.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{Activation, Sharing};
use serde_json::{Value, json};

use super::{model::Gpt1, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys::{self, LabelSet};
use crate::head::{Head, ProblemType};
use crate::names::NameTable;

/// Sizes and rates of a GPT-1 model.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt1Config {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Layers that share their parameters.
    pub sharing: Sharing,
    /// Attention heads.
    pub n_heads: usize,
    /// Longest sequence.
    pub max_len: usize,
    /// Activation of the feed-forward layer, whose width is `4 · d_model`.
    pub activation: Activation,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
    /// Dropout after the embeddings.
    pub embedding_dropout: f32,
    /// Dropout on attention probabilities.
    pub attention_dropout: f32,
    /// Dropout after attention and feed-forward.
    pub residual_dropout: f32,
    /// Dropout before the choice head.
    pub classifier_dropout: f32,
    /// Standard deviation of initial weights.
    pub initializer_range: f32,
    /// Outputs of a classifier.
    pub n_labels: usize,
    /// Their names, if any were published.
    pub labels: Vec<String>,
    /// How the classifier's labels are read; by the number of labels when absent.
    pub problem_type: Option<ProblemType>,
}

impl Architecture for Gpt1Config {
    const MODEL_TYPES: &'static [&'static str] = &["openai-gpt"];

    fn presets() -> Vec<(&'static str, Value)> {
        let config = json!({
            "model_type": "openai-gpt", "vocab_size": 40478, "n_embd": 768, "n_layer": 12, "n_head": 12,
            "n_positions": 512,
        });
        vec![("gpt1", config)]
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "openai-gpt")?;
        read.refuse_unless("tie_word_embeddings", true)?;
        read.refuse_unless("summary_type", "cls_index")?;
        read.refuse_unless("summary_use_proj", true)?;
        read.refuse_unless("summary_proj_to_labels", true)?;
        if let Some(activation) = read.value("summary_activation") {
            return Err(read.unsupported("summary_activation", activation, "null"));
        }
        let max_len = config_keys::positive(&read, "n_positions", Some(512))?;
        read.refuse_unless("n_ctx", max_len)?;
        // In this family "gelu" has always meant the tanh approximation.
        let activation = match config_keys::activation(&read, "afn", "gelu")? {
            Activation::Gelu => Activation::GeluTanh,
            other => other,
        };
        let LabelSet {
            n_labels,
            labels,
            problem_type,
        } = config_keys::labels(&read)?;
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model: config_keys::positive(&read, "n_embd", None)?,
            n_layers: read.usize("n_layer")?,
            sharing: config_keys::sharing(&read, read.usize("n_layer")?)?,
            n_heads: config_keys::positive(&read, "n_head", None)?,
            max_len,
            activation,
            norm_eps: read.f64_or("layer_norm_epsilon", 1e-5)? as f32,
            embedding_dropout: config_keys::rate(&read, "embd_pdrop", 0.1)?,
            attention_dropout: config_keys::rate(&read, "attn_pdrop", 0.1)?,
            residual_dropout: config_keys::rate(&read, "resid_pdrop", 0.1)?,
            classifier_dropout: config_keys::rate(&read, "summary_first_dropout", 0.1)?,
            initializer_range: read.f64_or("initializer_range", 0.02)? as f32,
            n_labels,
            labels,
            problem_type,
        };
        config_keys::divisible(&read, "n_embd", this.d_model, "n_head", this.n_heads)?;
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

impl Config for Gpt1Config {
    fn to_json(&self) -> Value {
        let afn = match self.activation {
            Activation::GeluTanh => "gelu",
            other => config_keys::activation_name(other),
        };
        let mut config = json!({
            "model_type": "openai-gpt",
            "vocab_size": self.vocab_size,
            "n_positions": self.max_len,
            "n_embd": self.d_model,
            "n_layer": self.n_layers,
            "n_head": self.n_heads,
            "afn": afn,
            "layer_norm_epsilon": config_keys::decimal(self.norm_eps),
            "embd_pdrop": config_keys::decimal(self.embedding_dropout),
            "attn_pdrop": config_keys::decimal(self.attention_dropout),
            "resid_pdrop": config_keys::decimal(self.residual_dropout),
            "summary_first_dropout": config_keys::decimal(self.classifier_dropout),
            "summary_type": "cls_index",
            "summary_use_proj": true,
            "summary_proj_to_labels": true,
            "initializer_range": config_keys::decimal(self.initializer_range),
            "tie_word_embeddings": true,
        });
        config_keys::write_sharing(&mut config, self.sharing);
        config_keys::write_labels(&mut config, &self.labels, self.problem_type);
        config
    }

    fn model_type(&self) -> &'static str {
        "openai-gpt"
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        &[
            (Head::None, "OpenAIGPTModel"),
            (Head::CausalLm, "OpenAIGPTLMHeadModel"),
            (Head::DoubleHeads, "OpenAIGPTDoubleHeadsModel"),
            (
                Head::SequenceClassification,
                "OpenAIGPTForSequenceClassification",
            ),
        ]
    }

    fn is_tied(&self) -> bool {
        true
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
            n_kv_heads: self.n_heads,
            d_head: self.d_model / self.n_heads,
            d_ff: 4 * self.d_model,
            n_segments: self.vocab_size,
        }
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        (self.d_model, self.n_layers, self.n_heads) =
            (sizes.d_model, sizes.n_layers, sizes.n_heads);
        self.sharing = self.sharing.for_layers(sizes.n_layers);
    }

    fn set_dropout(&mut self, rate: f32) {
        self.embedding_dropout = rate;
        self.attention_dropout = rate;
        self.residual_dropout = rate;
    }

    fn set_special_tokens(&mut self, _tokens: SpecialTokens) {}

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
            .sharing(self.sharing, self.n_layers)
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        (parameter == "token.weight").then_some("lm_head.weight")
    }

    fn is_redundant(&self, name: &str) -> bool {
        weights::is_redundant(name)
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(Gpt1::new(self, head))
    }
}
