//! Published weight names of ModernBERT. Query, key and value are rows of one matrix, and so are gate and input of a feed-forward layer.

use crate::names::{Part, Rule, layer, layer_in, rule};

const Q: Part = Part::Rows { index: 0, of: 3 };
const K: Part = Part::Rows { index: 1, of: 3 };
const V: Part = Part::Rows { index: 2, of: 3 };
const GATE: Part = Part::Rows { index: 0, of: 2 };
const UP: Part = Part::Rows { index: 1, of: 2 };

/// The table; a bare encoder carries no prefix.
pub(super) const RULES: &[Rule] = &[
    layer("embeddings.token", "embeddings.tok_embeddings"),
    layer("embeddings.norm", "embeddings.norm"),
    layer("layers.{}.attention_norm", "layers.{}.attn_norm"),
    layer_in("layers.{}.attention.query", "layers.{}.attn.Wqkv", Q),
    layer_in("layers.{}.attention.key", "layers.{}.attn.Wqkv", K),
    layer_in("layers.{}.attention.value", "layers.{}.attn.Wqkv", V),
    layer("layers.{}.attention.output", "layers.{}.attn.Wo"),
    layer("layers.{}.feed_forward_norm", "layers.{}.mlp_norm"),
    layer_in("layers.{}.feed_forward.gate", "layers.{}.mlp.Wi", GATE),
    layer_in("layers.{}.feed_forward.up", "layers.{}.mlp.Wi", UP),
    layer("layers.{}.feed_forward.down", "layers.{}.mlp.Wo"),
    layer("norm", "final_norm"),
    layer("prediction.dense", "head.dense"),
    layer("prediction.norm", "head.norm"),
    layer("vocabulary", "decoder"),
    rule("vocabulary_bias", "decoder.bias", Part::Whole),
    layer("classifier", "classifier"),
];
