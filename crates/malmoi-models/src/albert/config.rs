//! Published configuration of ALBERT.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::Sharing;
use serde_json::{Value, json};

use crate::config_keys::{self, decimal};
use crate::encoder::{BERT_DEFAULTS, BertDefaults, EncoderConfig, bert_json, read_bert_keys};

/// Reads the keys of ALBERT: those of BERT, the width of the embeddings and the groups of shared layers.
pub fn read(read: &ConfigReader<'_>) -> Result<EncoderConfig, ConfigError> {
    // Leftovers of the first release, which no published code reads.
    read.inert(&[
        "down_scale_factor",
        "gap_size",
        "net_structure_type",
        "num_memory_blocks",
    ]);
    let defaults = BertDefaults {
        activation: "gelu_new",
        dropout: 0.0,
        ..BERT_DEFAULTS
    };
    let mut this = read_bert_keys(read, &defaults)?;
    let n_inner = config_keys::positive(read, "inner_group_num", Some(1))?;
    let n_groups = match this.common.sharing {
        Sharing::None => 1,
        Sharing::Groups { n_groups, .. } => n_groups,
    };
    this.common.sharing = Sharing::Groups { n_groups, n_inner };
    this.d_embedding = config_keys::positive(read, "embedding_size", Some(128))?;
    this.classifier_dropout = config_keys::rate(read, "classifier_dropout_prob", 0.1)?;
    this.choice_dropout = this.classifier_dropout;
    Ok(this)
}

/// Writes what [`read`] reads.
pub fn write(config: &EncoderConfig) -> Value {
    let mut json = bert_json(config);
    let keys = json.as_object_mut().expect("an object");
    keys.remove("classifier_dropout");
    let n_inner = match config.common.sharing {
        Sharing::None => 1,
        Sharing::Groups { n_inner, .. } => n_inner,
    };
    json["embedding_size"] = config.d_embedding.into();
    json["inner_group_num"] = n_inner.into();
    json["classifier_dropout_prob"] = decimal(config.classifier_dropout).into();
    json
}

/// Lan et al. (2019), table 1, with the vocabulary and rates of the second release.
pub fn presets() -> Vec<(&'static str, Value)> {
    let size = |layers: usize, d: usize, heads: usize| {
        json!({
            "vocab_size": 30000, "embedding_size": 128, "hidden_size": d, "num_hidden_layers": layers,
            "num_attention_heads": heads, "intermediate_size": 4 * d, "bos_token_id": 2, "eos_token_id": 3,
        })
    };
    vec![
        ("albert-base", size(12, 768, 12)),
        ("albert-large", size(24, 1024, 16)),
        ("albert-xlarge", size(24, 2048, 16)),
        ("albert-xxlarge", size(12, 4096, 64)),
    ]
}
