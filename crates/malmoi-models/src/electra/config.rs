//! Published configuration of ELECTRA.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use serde_json::{Value, json};

use crate::config_keys;
use crate::encoder::{BERT_DEFAULTS, EncoderConfig, bert_json, read_bert_keys};

/// Reads the keys of ELECTRA: those of BERT, and the width of the embeddings.
pub fn read(read: &ConfigReader<'_>) -> Result<EncoderConfig, ConfigError> {
    // How the multiple-choice head summarises a sequence.
    read.refuse_unless("summary_type", "first")?;
    read.refuse_unless("summary_use_proj", true)?;
    read.refuse_unless("summary_activation", "gelu")?;
    if read.is_null("summary_activation") {
        return Err(read.unsupported("summary_activation", &Value::Null, "gelu"));
    }
    let this = read_bert_keys(read, &BERT_DEFAULTS)?;
    Ok(EncoderConfig {
        d_embedding: config_keys::positive(read, "embedding_size", Some(128))?,
        choice_dropout: config_keys::rate(read, "summary_last_dropout", 0.1)?,
        ..this
    })
}

/// Writes what [`read`] reads.
pub fn write(config: &EncoderConfig) -> Value {
    let mut json = bert_json(config);
    json["embedding_size"] = config.d_embedding.into();
    json["summary_type"] = "first".into();
    json["summary_use_proj"] = true.into();
    json["summary_activation"] = "gelu".into();
    json["summary_last_dropout"] = config_keys::decimal(config.choice_dropout).into();
    json
}

/// Clark et al. (2020), table 6: discriminators, and generators of a quarter (small, large) or a third (base) of the width.
pub fn presets() -> Vec<(&'static str, Value)> {
    let size = |layers: usize, d_embedding: usize, d: usize, heads: usize| {
        json!({
            "vocab_size": 30522, "embedding_size": d_embedding, "hidden_size": d, "num_hidden_layers": layers,
            "num_attention_heads": heads, "intermediate_size": 4 * d,
        })
    };
    vec![
        ("electra-small", size(12, 128, 256, 4)),
        ("electra-base", size(12, 768, 768, 12)),
        ("electra-large", size(24, 1024, 1024, 16)),
        ("electra-small-generator", size(12, 128, 64, 1)),
        ("electra-base-generator", size(12, 768, 256, 4)),
        ("electra-large-generator", size(24, 1024, 256, 4)),
    ]
}
