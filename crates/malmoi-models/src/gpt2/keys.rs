//! The published keys that GPT-1 introduced and GPT-2 took over.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use serde_json::{Value, json};

use crate::common::{COMMON_KEYS, Common};
use crate::config::Sizes;
use crate::config_keys::{self, decimal};
use crate::decoder::DecoderConfig;

/// On what the two differ.
pub struct Differences {
    /// Key of the activation, and what its absence means.
    pub activation: (&'static str, &'static str),
    /// What an absent `n_positions` means, if anything.
    pub max_len: Option<usize>,
    /// Key under which heads may have a width of their own.
    pub d_head: Option<&'static str>,
}

/// Reads the keys.
pub fn read(
    read: &ConfigReader<'_>,
    differences: &Differences,
) -> Result<DecoderConfig, ConfigError> {
    let heads = config_keys::heads(read, ("n_embd", None), ("n_head", None), differences.d_head)?;
    let max_len = config_keys::positive(read, "n_positions", differences.max_len)?;
    read.refuse_unless("n_ctx", max_len)?;
    let sizes = Sizes {
        vocab_size: config_keys::positive(read, "vocab_size", None)?,
        max_len,
        n_layers: read.usize("n_layer")?,
        d_ff: 4 * heads.d_model,
        ..heads
    };
    let common = Common::read(read, sizes, &COMMON_KEYS)?;
    let (key, default) = differences.activation;
    let activation = config_keys::activation(read, key, default)?;
    let norm_eps = read.f64_or("layer_norm_epsilon", 1e-5)? as f32;
    Ok(DecoderConfig {
        embedding_dropout: config_keys::rate(read, "embd_pdrop", 0.1)?,
        attention_dropout: config_keys::rate(read, "attn_pdrop", 0.1)?,
        residual_dropout: config_keys::rate(read, "resid_pdrop", 0.1)?,
        ..DecoderConfig::plain(common, activation, norm_eps)
    })
}

/// Writes what [`read`] reads, but for the activation.
pub fn write(config: &DecoderConfig) -> Value {
    let sizes = &config.common.sizes;
    let mut json = json!({
        "vocab_size": sizes.vocab_size,
        "n_positions": sizes.max_len,
        "n_embd": sizes.d_model,
        "n_layer": sizes.n_layers,
        "n_head": sizes.n_heads,
        "layer_norm_epsilon": decimal(config.norm_eps),
        "embd_pdrop": decimal(config.embedding_dropout),
        "attn_pdrop": decimal(config.attention_dropout),
        "resid_pdrop": decimal(config.residual_dropout),
    });
    config.common.write(&mut json, &COMMON_KEYS);
    json
}
