//! Published configuration of DistilBERT.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{DropoutPlace, Mask, Sharing};
use serde_json::{Value, json};

use crate::config_keys::{self, decimal};
use crate::encoder::{EncoderConfig, Positions, Segments};

/// The published code has this constant and no key for it.
const NORM_EPS: f32 = 1e-12;

/// Reads the keys of DistilBERT.
pub fn read(read: &ConfigReader<'_>) -> Result<EncoderConfig, ConfigError> {
    // Of the training script, not of the model.
    read.inert(&["tie_weights_"]);
    let d_model = config_keys::positive(read, "dim", Some(768))?;
    let n_heads = config_keys::positive(read, "n_heads", Some(12))?;
    config_keys::divisible(read, "dim", d_model, "n_heads", n_heads)?;
    let initializer_range = read.f64_or("initializer_range", 0.02)? as f32;
    let classifier_dropout = config_keys::rate(read, "seq_classif_dropout", 0.2)?;
    Ok(EncoderConfig {
        family: &super::FAMILY,
        generator: None,
        n_labels: 2,
        labels: Vec::new(),
        problem_type: None,
        vocab_size: config_keys::positive(read, "vocab_size", None)?,
        d_embedding: d_model,
        d_model,
        n_layers: read.usize_or("n_layers", 6)?,
        n_heads,
        d_ff: config_keys::positive(read, "hidden_dim", Some(4 * 768))?,
        max_len: config_keys::positive(read, "max_position_embeddings", Some(512))?,
        positions: if read.bool_or("sinusoidal_pos_embds", false)? {
            Positions::Sinusoidal
        } else {
            Positions::Learned
        },
        segments: Segments::None,
        n_languages: 0,
        mask: Mask::Full,
        sharing: Sharing::None,
        activation: config_keys::activation(read, "activation", "gelu")?,
        norm_eps: NORM_EPS,
        dropout: config_keys::rate(read, "dropout", 0.1)?,
        dropout_place: DropoutPlace::FeedForward,
        attention_dropout: config_keys::rate(read, "attention_dropout", 0.1)?,
        classifier_dropout,
        choice_dropout: classifier_dropout,
        question_dropout: config_keys::rate(read, "qa_dropout", 0.1)?,
        initializer_range,
        embedding_range: initializer_range,
        pad_token_id: read.usize_or("pad_token_id", 0)? as u32,
        bos_token_id: read.optional_usize("bos_token_id")?.map(|id| id as u32),
        eos_token_id: read.optional_usize("eos_token_id")?.map(|id| id as u32),
    })
}

/// Writes what [`read`] reads.
pub fn write(config: &EncoderConfig) -> Value {
    json!({
        "vocab_size": config.vocab_size,
        "dim": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "hidden_dim": config.d_ff,
        "max_position_embeddings": config.max_len,
        "sinusoidal_pos_embds": config.positions == Positions::Sinusoidal,
        "activation": config_keys::activation_name(config.activation),
        "dropout": decimal(config.dropout),
        "attention_dropout": decimal(config.attention_dropout),
        "seq_classif_dropout": decimal(config.classifier_dropout),
        "qa_dropout": decimal(config.question_dropout),
        "initializer_range": decimal(config.initializer_range),
    })
}

/// Sanh et al. (2019), section 3.
pub fn presets() -> Vec<(&'static str, Value)> {
    vec![(
        "distilbert-base",
        json!({"vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}),
    )]
}
