//! Published configuration of DistilBERT.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::DropoutPlace;
use serde_json::{Value, json};

use crate::common::{COMMON_KEYS, Common};
use crate::config::Sizes;
use crate::config_keys::{self, decimal};
use crate::encoder::{Dropouts, EncoderConfig, Positions};

/// The published code has this constant and no key for it.
const NORM_EPS: f32 = 1e-12;

/// Reads the keys of DistilBERT.
pub fn read(read: &ConfigReader<'_>) -> Result<EncoderConfig, ConfigError> {
    // Of the training script, not of the model.
    read.inert(&["tie_weights_"]);
    let heads = config_keys::heads(read, ("dim", Some(768)), ("n_heads", Some(12)), None)?;
    let sizes = Sizes {
        vocab_size: config_keys::positive(read, "vocab_size", None)?,
        max_len: config_keys::positive(read, "max_position_embeddings", Some(512))?,
        n_layers: read.usize_or("n_layers", 6)?,
        d_ff: config_keys::positive(read, "hidden_dim", Some(4 * 768))?,
        ..heads
    };
    let mut common = Common::read(read, sizes, &COMMON_KEYS)?;
    common.pad_with(read, 0);
    let dropouts = Dropouts {
        everywhere: config_keys::rate(read, "dropout", 0.1)?,
        attention: config_keys::rate(read, "attention_dropout", 0.1)?,
        classifier: config_keys::rate(read, "seq_classif_dropout", 0.2)?,
    };
    let activation = config_keys::activation(read, "activation", "gelu")?;
    Ok(EncoderConfig {
        positions: if read.bool_or("sinusoidal_pos_embds", false)? {
            Positions::Sinusoidal
        } else {
            Positions::Learned
        },
        dropout_place: DropoutPlace::FeedForward,
        question_dropout: config_keys::rate(read, "qa_dropout", 0.1)?,
        ..EncoderConfig::plain(common, activation, NORM_EPS, &dropouts)
    })
}

/// Writes what [`read`] reads.
pub fn write(config: &EncoderConfig) -> Value {
    let sizes = &config.common.sizes;
    let mut json = json!({
        "vocab_size": sizes.vocab_size,
        "dim": sizes.d_model,
        "n_layers": sizes.n_layers,
        "n_heads": sizes.n_heads,
        "hidden_dim": sizes.d_ff,
        "max_position_embeddings": sizes.max_len,
        "sinusoidal_pos_embds": config.positions == Positions::Sinusoidal,
        "activation": config_keys::activation_name(config.activation),
        "dropout": decimal(config.dropout),
        "attention_dropout": decimal(config.attention_dropout),
        "seq_classif_dropout": decimal(config.classifier_dropout),
        "qa_dropout": decimal(config.question_dropout),
    });
    config.common.write(&mut json, &COMMON_KEYS);
    json
}

/// Sanh et al. (2019), section 3.
pub fn presets() -> Vec<(&'static str, Value)> {
    vec![(
        "distilbert-base",
        json!({"vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}),
    )]
}
