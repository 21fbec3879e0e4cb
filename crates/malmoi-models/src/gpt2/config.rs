//! Published configuration of GPT-2, with one key of our own for GPT-3: `head_dim`.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::Activation;
use serde_json::{Value, json};

use crate::config_keys::{self, LabelSet};
use crate::head::ProblemType;

/// Sizes and rates of a GPT-2 or dense GPT-3 model.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of a head; `d_model / n_heads` unless the config says otherwise (`head_dim`).
    pub d_head: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Longest sequence.
    pub max_len: usize,
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
    /// Whether scores are divided by `√d_head`.
    pub scale_by_head: bool,
    /// Whether scores of layer l are further divided by `l + 1`.
    pub scale_by_layer: bool,
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

impl Gpt2Config {
    /// Reads `config.json`; keys that change the computation are implemented or refused by name.
    ///
    /// # Errors
    /// A missing, wrong, unsupported or unknown key.
    pub fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "gpt2")?;
        read.refuse_unless("tie_word_embeddings", true)?;
        // Only the double-heads variant of GPT-2 reads these, and it is refused by its name.
        read.inert(&[
            "summary_type",
            "summary_use_proj",
            "summary_activation",
            "summary_proj_to_labels",
            "summary_first_dropout",
            // The order of two exact operations in half precision.
            "reorder_and_upcast_attn",
        ]);
        let d_model = config_keys::positive(&read, "n_embd", None)?;
        let n_heads = config_keys::positive(&read, "n_head", None)?;
        let d_head = match read.optional_usize("head_dim")? {
            Some(d_head) => d_head,
            None => {
                config_keys::divisible(&read, "n_embd", d_model, "n_head", n_heads)?;
                d_model / n_heads
            }
        };
        let max_len = config_keys::positive(&read, "n_positions", None)?;
        read.refuse_unless("n_ctx", max_len)?;
        let LabelSet {
            n_labels,
            labels,
            problem_type,
        } = config_keys::labels(&read)?;
        let token = |key: &str| Ok::<_, ConfigError>(read.optional_usize(key)?.map(|id| id as u32));
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model,
            n_layers: read.usize("n_layer")?,
            n_heads,
            d_head,
            d_ff: config_keys::positive(&read, "n_inner", Some(4 * d_model))?,
            max_len,
            activation: config_keys::activation(&read, "activation_function", "gelu_new")?,
            norm_eps: read.f64_or("layer_norm_epsilon", 1e-5)? as f32,
            embedding_dropout: config_keys::rate(&read, "embd_pdrop", 0.1)?,
            attention_dropout: config_keys::rate(&read, "attn_pdrop", 0.1)?,
            residual_dropout: config_keys::rate(&read, "resid_pdrop", 0.1)?,
            scale_by_head: read.bool_or("scale_attn_weights", true)?,
            scale_by_layer: read.bool_or("scale_attn_by_inverse_layer_idx", false)?,
            initializer_range: read.f64_or("initializer_range", 0.02)? as f32,
            pad_token_id: token("pad_token_id")?,
            bos_token_id: token("bos_token_id")?,
            eos_token_id: token("eos_token_id")?,
            n_labels,
            labels,
            problem_type,
        };
        read.finish(accept_unknown)?;
        Ok(this)
    }

    /// `config.json` as Python reads it, without `architectures`. A head width of its own is a key that Python does not know.
    pub fn to_json(&self) -> Value {
        let mut config = json!({
            "model_type": "gpt2",
            "vocab_size": self.vocab_size,
            "n_positions": self.max_len,
            "n_embd": self.d_model,
            "n_layer": self.n_layers,
            "n_head": self.n_heads,
            "n_inner": self.d_ff,
            "activation_function": config_keys::activation_name(self.activation),
            "layer_norm_epsilon": config_keys::decimal(self.norm_eps),
            "embd_pdrop": config_keys::decimal(self.embedding_dropout),
            "attn_pdrop": config_keys::decimal(self.attention_dropout),
            "resid_pdrop": config_keys::decimal(self.residual_dropout),
            "scale_attn_weights": self.scale_by_head,
            "scale_attn_by_inverse_layer_idx": self.scale_by_layer,
            "initializer_range": config_keys::decimal(self.initializer_range),
            "tie_word_embeddings": true,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        });
        if self.d_head * self.n_heads != self.d_model {
            config["head_dim"] = self.d_head.into();
        }
        config_keys::write_labels(&mut config, &self.labels, self.problem_type);
        config
    }

    /// Factor on the attention scores of a layer, counted from 0.
    pub fn attention_scale(&self, layer: usize) -> f32 {
        let by_head = if self.scale_by_head {
            (self.d_head as f32).sqrt()
        } else {
            1.0
        };
        let by_layer = if self.scale_by_layer {
            (layer + 1) as f32
        } else {
            1.0
        };
        1.0 / (by_head * by_layer)
    }
}
