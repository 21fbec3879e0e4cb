//! Published configuration of RoBERTa and XLM-RoBERTa.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use serde_json::{Value, json};

use crate::encoder::{BERT_DEFAULTS, BertDefaults, EncoderConfig, Positions, read_bert_keys};

/// Reads the keys of RoBERTa. `max_position_embeddings` counts the rows of the table, of which the first
/// `pad_token_id + 1` are no positions.
pub fn read(read: &ConfigReader<'_>) -> Result<EncoderConfig, ConfigError> {
    let defaults = BertDefaults {
        positions: Positions::LearnedAfterPadding,
        pad_token_id: 1,
        ..BERT_DEFAULTS
    };
    read_bert_keys(read, &defaults)
}

/// Liu et al. (2019), section 5.
pub fn presets() -> Vec<(&'static str, Value)> {
    sizes(50265, ["roberta-base", "roberta-large"])
}

/// Conneau et al. (2019), table 12.
pub fn xlm_presets() -> Vec<(&'static str, Value)> {
    sizes(250_002, ["xlm-roberta-base", "xlm-roberta-large"])
}

fn sizes(vocab_size: usize, [base, large]: [&'static str; 2]) -> Vec<(&'static str, Value)> {
    let size = |layers: usize, d: usize, heads: usize| {
        json!({
            "vocab_size": vocab_size, "hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads,
            "intermediate_size": 4 * d, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
            "bos_token_id": 0, "eos_token_id": 2,
        })
    };
    vec![(base, size(12, 768, 12)), (large, size(24, 1024, 16))]
}
