//! Published configuration of GPT-Neo.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use serde_json::{Value, json};

use crate::common::{COMMON_KEYS, Common};
use crate::config::Sizes;
use crate::config_keys::{self, activation_name, decimal};
use crate::decoder::DecoderConfig;
use crate::reaches::{Reach, Reaches};

/// Published sizes: name, layers, d_model, heads.
const SIZES: &[(&str, usize, usize, usize)] = &[
    ("gpt-neo-125m", 12, 768, 12),
    ("gpt-neo-1.3b", 24, 2048, 16),
    ("gpt-neo-2.7b", 32, 2560, 20),
];

/// Expands `[[["global", "local"], 12]]` into one entry a block.
fn reaches(read: &ConfigReader<'_>, n_layers: usize) -> Result<Reaches, ConfigError> {
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
            Some("global") => Ok(Reach::Everything),
            Some("local") => Ok(Reach::Window),
            _ => Err(read.unsupported(key, name, "global or local")),
        };
        let group = names.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..times.min(n_layers as u64 + 1) {
            all.extend(&group);
        }
    }
    if all.len() == n_layers {
        return Ok(Reaches::new(all));
    }
    let expected = format!("as many blocks as `num_layers` = {n_layers}");
    Err(read.wrong_type(key, given, &expected))
}

/// Reads the keys of GPT-Neo.
pub fn read(read: &ConfigReader<'_>) -> Result<DecoderConfig, ConfigError> {
    // The list follows from `attention_types`; the dropout belongs to a head that is not here and refused by its name.
    read.inert(&["attention_layers", "classifier_dropout"]);
    let heads = config_keys::heads(read, ("hidden_size", None), ("num_heads", None), None)?;
    let sizes = Sizes {
        vocab_size: config_keys::positive(read, "vocab_size", None)?,
        max_len: config_keys::positive(read, "max_position_embeddings", Some(2048))?,
        n_layers: read.usize("num_layers")?,
        d_ff: config_keys::positive(read, "intermediate_size", Some(4 * heads.d_model))?,
        ..heads
    };
    let common = Common::read(read, sizes, &COMMON_KEYS)?;
    let activation = config_keys::activation(read, "activation_function", "gelu_new")?;
    let norm_eps = read.f64_or("layer_norm_epsilon", 1e-5)? as f32;
    Ok(DecoderConfig {
        reaches: reaches(read, sizes.n_layers)?,
        window: config_keys::positive(read, "window_size", Some(256))?,
        scale_by_head: false,
        embedding_dropout: config_keys::rate(read, "embed_dropout", 0.0)?,
        attention_dropout: config_keys::rate(read, "attention_dropout", 0.0)?,
        residual_dropout: config_keys::rate(read, "resid_dropout", 0.0)?,
        ..DecoderConfig::plain(common, activation, norm_eps)
    })
}

/// Writes what [`read`] reads.
pub fn write(config: &DecoderConfig) -> Value {
    let reaches = config.reaches.layers().iter().map(|reach| match reach {
        Reach::Everything => "global",
        Reach::Window => "local",
    });
    let reaches: Vec<&str> = reaches.collect();
    let sizes = &config.common.sizes;
    let mut json = json!({
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.d_model,
        "num_layers": sizes.n_layers,
        "num_heads": sizes.n_heads,
        "intermediate_size": sizes.d_ff,
        "max_position_embeddings": sizes.max_len,
        "attention_types": [[reaches, 1]],
        "window_size": config.window,
        "activation_function": activation_name(config.activation),
        "layer_norm_epsilon": decimal(config.norm_eps),
        "embed_dropout": decimal(config.embedding_dropout),
        "attention_dropout": decimal(config.attention_dropout),
        "resid_dropout": decimal(config.residual_dropout),
    });
    config.common.write(&mut json, &COMMON_KEYS);
    json
}

/// The three published models.
pub fn presets() -> Vec<(&'static str, Value)> {
    let preset = |(name, layers, d, heads): &(&'static str, usize, usize, usize)| {
        let config = json!({
            "vocab_size": 50257, "hidden_size": d, "num_layers": layers, "num_heads": heads,
            "max_position_embeddings": 2048, "window_size": 256,
            "attention_types": [[["global", "local"], layers / 2]],
            "bos_token_id": 50256, "eos_token_id": 50256,
        });
        (*name, config)
    };
    SIZES.iter().map(preset).collect()
}
