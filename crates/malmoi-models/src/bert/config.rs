//! Published configuration of BERT.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use serde_json::{Value, json};

use crate::encoder::{BERT_DEFAULTS, EncoderConfig, read_bert_keys};

/// Reads the keys of BERT.
pub fn read(read: &ConfigReader<'_>) -> Result<EncoderConfig, ConfigError> {
    // Leftovers of the first release, which no published code reads.
    read.inert(&[
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    ]);
    read_bert_keys(read, &BERT_DEFAULTS)
}

/// Devlin et al. (2018), section 3.
pub fn presets() -> Vec<(&'static str, Value)> {
    let size = |layers: usize, d: usize, heads: usize| {
        json!({
            "vocab_size": 30522, "hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads,
            "intermediate_size": 4 * d, "max_position_embeddings": 512,
        })
    };
    vec![
        ("bert-base", size(12, 768, 12)),
        ("bert-large", size(24, 1024, 16)),
    ]
}
