//! Published configuration of GPT-2, with two keys of our own for GPT-3: `head_dim`, and `attention_band`, the tokens that every
//! other block sees.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use serde_json::{Value, json};

use super::keys;
use crate::common::HeadSizes;
use crate::config_keys::{self, activation_name};
use crate::decoder::DecoderConfig;
use crate::reaches::Reaches;

/// GPT-2 sizes (Radford et al., 2019, table 2): name, layers, d_model, heads.
const GPT2: &[(&str, usize, usize, usize)] = &[
    ("gpt2", 12, 768, 12),
    ("gpt2-medium", 24, 1024, 16),
    ("gpt2-large", 36, 1280, 20),
    ("gpt2-xl", 48, 1600, 25),
];

/// GPT-3 sizes (Brown et al., 2020, table 2.1): name, layers, d_model, heads, d_head.
const GPT3: &[(&str, usize, usize, usize, usize)] = &[
    ("gpt3-125m", 12, 768, 12, 64),
    ("gpt3-350m", 24, 1024, 16, 64),
    ("gpt3-760m", 24, 1536, 16, 96),
    ("gpt3-1.3b", 24, 2048, 24, 128),
    ("gpt3-2.7b", 32, 2560, 32, 80),
    ("gpt3-6.7b", 32, 4096, 32, 128),
    ("gpt3-13b", 40, 5140, 40, 128),
    ("gpt3-175b", 96, 12288, 96, 128),
];

/// GPT-3 alternates dense and locally banded attention (section 2.1) without saying how wide the band is; this is the width that
/// its reproduction GPT-Neo published.
const GPT3_BAND: usize = 256;

/// Reads the keys of GPT-2.
pub fn read(read: &ConfigReader<'_>) -> Result<DecoderConfig, ConfigError> {
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
    let differences = keys::Differences {
        activation: ("activation_function", "gelu_new"),
        max_len: None,
        d_head: Some("head_dim"),
    };
    let mut this = keys::read(read, &differences)?;
    let sizes = &mut this.common.sizes;
    sizes.d_ff = config_keys::positive(read, "n_inner", Some(sizes.d_ff))?;
    this.common.heads = HeadSizes::FreeWidth;
    this.scale_by_head = read.bool_or("scale_attn_weights", true)?;
    this.scale_by_layer = read.bool_or("scale_attn_by_inverse_layer_idx", false)?;
    if read.has("attention_band") {
        this.window = config_keys::positive(read, "attention_band", None)?;
        this.reaches = Reaches::every(2, this.common.sizes.n_layers);
    }
    Ok(this)
}

/// Writes what [`read`] reads. A head width of its own and a band are keys that Python does not know.
pub fn write(config: &DecoderConfig) -> Value {
    let mut json = keys::write(config);
    let sizes = &config.common.sizes;
    json["n_inner"] = sizes.d_ff.into();
    json["activation_function"] = activation_name(config.activation).into();
    json["scale_attn_weights"] = config.scale_by_head.into();
    json["scale_attn_by_inverse_layer_idx"] = config.scale_by_layer.into();
    if sizes.d_head * sizes.n_heads != sizes.d_model {
        json["head_dim"] = sizes.d_head.into();
    }
    if config.window != usize::MAX {
        json["attention_band"] = config.window.into();
    }
    json
}

/// GPT-2 and GPT-3.
pub fn presets() -> Vec<(&'static str, Value)> {
    let config = |layers: &usize, d: &usize, heads: &usize, max_len: usize| {
        json!({
            "vocab_size": 50257, "n_embd": d, "n_layer": layers, "n_head": heads, "n_positions": max_len,
            "bos_token_id": 50256, "eos_token_id": 50256,
        })
    };
    let gpt2 = GPT2
        .iter()
        .map(|(name, layers, d, heads)| (*name, config(layers, d, heads, 1024)));
    let gpt3 = GPT3.iter().map(|(name, layers, d, heads, d_head)| {
        let mut config = config(layers, d, heads, 2048);
        config["head_dim"] = (*d_head).into();
        config["attention_band"] = GPT3_BAND.into();
        (*name, config)
    });
    gpt2.chain(gpt3).collect()
}
