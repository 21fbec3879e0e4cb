//! Published configuration of GPT-1.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::Activation;
use serde_json::{Value, json};

use crate::config_keys;

/// Sizes and rates of a GPT-1 model.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt1Config {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
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
    /// Names of labels, kept from the file.
    pub labels: Vec<String>,
}

impl Gpt1Config {
    /// Reads `config.json`; keys that change the computation are implemented or refused by name.
    ///
    /// # Errors
    /// A missing, wrong, unsupported or unknown key.
    pub fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
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
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model: config_keys::positive(&read, "n_embd", None)?,
            n_layers: read.usize("n_layer")?,
            n_heads: config_keys::positive(&read, "n_head", None)?,
            max_len,
            activation,
            norm_eps: read.f64_or("layer_norm_epsilon", 1e-5)? as f32,
            embedding_dropout: config_keys::rate(&read, "embd_pdrop", 0.1)?,
            attention_dropout: config_keys::rate(&read, "attn_pdrop", 0.1)?,
            residual_dropout: config_keys::rate(&read, "resid_pdrop", 0.1)?,
            classifier_dropout: config_keys::rate(&read, "summary_first_dropout", 0.1)?,
            initializer_range: read.f64_or("initializer_range", 0.02)? as f32,
            labels: config_keys::labels(&read)?.labels,
        };
        config_keys::divisible(&read, "n_embd", this.d_model, "n_head", this.n_heads)?;
        read.finish(accept_unknown)?;
        Ok(this)
    }

    /// `config.json` as Python reads it, without `architectures`.
    pub fn to_json(&self) -> Value {
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
        config_keys::write_labels(&mut config, &self.labels, None);
        config
    }
}
