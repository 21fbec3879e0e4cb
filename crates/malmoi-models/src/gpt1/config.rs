//! Published configuration of GPT-1.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::Activation;
use serde_json::{Value, json};

use crate::common::FeedForwardSize;
use crate::config_keys::{activation_name, decimal, rate};
use crate::decoder::DecoderConfig;
use crate::gpt2::keys;

/// Reads the keys of GPT-1. The width of the feed-forward layer is `4 · d_model`.
pub fn read(read: &ConfigReader<'_>) -> Result<DecoderConfig, ConfigError> {
    read.refuse_unless("tie_word_embeddings", true)?;
    read.refuse_unless("summary_type", "cls_index")?;
    read.refuse_unless("summary_use_proj", true)?;
    read.refuse_unless("summary_proj_to_labels", true)?;
    if let Some(activation) = read.value("summary_activation") {
        return Err(read.unsupported("summary_activation", activation, "null"));
    }
    let differences = keys::Differences {
        activation: ("afn", "gelu"),
        max_len: Some(512),
        d_head: None,
    };
    let mut this = keys::read(read, &differences)?;
    this.common.feed_forward = FeedForwardSize::FourTimes;
    // In this family "gelu" has always meant the tanh approximation.
    if this.activation == Activation::Gelu {
        this.activation = Activation::GeluTanh;
    }
    this.classifier_dropout = rate(read, "summary_first_dropout", 0.1)?;
    Ok(this)
}

/// Writes what [`read`] reads.
pub fn write(config: &DecoderConfig) -> Value {
    let mut json = keys::write(config);
    json["afn"] = match config.activation {
        Activation::GeluTanh => "gelu",
        other => activation_name(other),
    }
    .into();
    json["summary_type"] = "cls_index".into();
    json["summary_use_proj"] = true.into();
    json["summary_proj_to_labels"] = true.into();
    json["summary_first_dropout"] = decimal(config.classifier_dropout).into();
    json
}

/// Radford et al. (2018), section 4.1.
pub fn presets() -> Vec<(&'static str, Value)> {
    let config = json!({
        "vocab_size": 40478, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 512,
    });
    vec![("gpt1", config)]
}
