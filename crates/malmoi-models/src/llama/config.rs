//! Published configuration of LLaMA.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use serde_json::{Value, json};

use crate::common::{COMMON_KEYS, Common, CommonKeys, HeadSizes};
use crate::config::Sizes;
use crate::config_keys::{self, activation_name, decimal};
use crate::decoder::DecoderConfig;
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

const KEYS: CommonKeys = CommonKeys {
    tied: false,
    ..COMMON_KEYS
};

/// Reads the keys of LLaMA.
pub fn read(read: &ConfigReader<'_>) -> Result<DecoderConfig, ConfigError> {
    // Another order of the same products.
    read.inert(&["pretraining_tp"]);
    let (d, heads) = ("hidden_size", "num_attention_heads");
    let by_heads = config_keys::heads(read, (d, None), (heads, None), Some("head_dim"))?;
    let n_heads = by_heads.n_heads;
    let n_kv_heads = config_keys::positive(read, "num_key_value_heads", Some(n_heads))?;
    config_keys::divisible(read, heads, n_heads, "num_key_value_heads", n_kv_heads)?;
    config_keys::divisible(read, "head_dim", by_heads.d_head, "elements of a pair", 2)?;
    let sizes = Sizes {
        vocab_size: config_keys::positive(read, "vocab_size", None)?,
        max_len: config_keys::positive(read, "max_position_embeddings", Some(2048))?,
        n_layers: read.usize("num_hidden_layers")?,
        n_kv_heads,
        d_ff: config_keys::positive(read, "intermediate_size", None)?,
        ..by_heads
    };
    let common = Common {
        heads: HeadSizes::Free,
        ..Common::read(read, sizes, &KEYS)?
    };
    let activation = config_keys::activation(read, "hidden_act", "silu")?;
    let norm_eps = read.f64_or("rms_norm_eps", 1e-6)? as f32;
    Ok(DecoderConfig {
        rope: Some(RopeConfig::read(read, 10_000.0)?),
        attention_bias: read.bool_or("attention_bias", false)?,
        feed_forward_bias: read.bool_or("mlp_bias", false)?,
        attention_dropout: config_keys::rate(read, "attention_dropout", 0.0)?,
        ..DecoderConfig::plain(common, activation, norm_eps)
    })
}

/// Writes what [`read`] reads.
pub fn write(config: &DecoderConfig) -> Value {
    let sizes = &config.common.sizes;
    let mut json = json!({
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.d_model,
        "num_hidden_layers": sizes.n_layers,
        "num_attention_heads": sizes.n_heads,
        "num_key_value_heads": sizes.n_kv_heads,
        "head_dim": sizes.d_head,
        "intermediate_size": sizes.d_ff,
        "max_position_embeddings": sizes.max_len,
        "hidden_act": activation_name(config.activation),
        "rms_norm_eps": decimal(config.norm_eps),
        "rope_parameters": config.rope.as_ref().map(RopeConfig::to_value),
        "attention_bias": config.attention_bias,
        "mlp_bias": config.feed_forward_bias,
        "attention_dropout": decimal(config.attention_dropout),
    });
    config.common.write(&mut json, &KEYS);
    json
}

/// The sizes of three generations.
pub fn presets() -> Vec<(&'static str, Value)> {
    let presets = SIZES.iter().map(|(name, layers, d, heads, kv_heads, d_ff)| {
        let (vocab_size, max_len, theta) = match name {
            name if name.starts_with("llama3") => (128_256, 8192, 500_000.0),
            name if name.starts_with("llama2") => (32_000, 4096, 10_000.0),
            _ => (32_000, 2048, 10_000.0),
        };
        let config = json!({
            "vocab_size": vocab_size, "hidden_size": d, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": d_ff,
            "max_position_embeddings": max_len, "rope_theta": theta, "rms_norm_eps": 1e-5,
        });
        (*name, config)
    });
    presets.collect()
}
