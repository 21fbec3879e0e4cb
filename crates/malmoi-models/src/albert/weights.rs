//! Published weight names of ALBERT. Blocks are stored once a group.

use crate::encoder::names::{EMBEDDINGS, classifier};
use crate::head::Head;
use crate::names::{Rule, layer};

/// Where the blocks stand; the two numbers are the group and the block within it.
macro_rules! block {
    ($rest:literal) => {
        concat!(
            "encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
            $rest
        )
    };
}

const RULES: &[Rule] = &[
    layer("projection", "encoder.embedding_hidden_mapping_in"),
    layer("layers.{}.attention.query", block!("attention.query")),
    layer("layers.{}.attention.key", block!("attention.key")),
    layer("layers.{}.attention.value", block!("attention.value")),
    layer("layers.{}.attention.output", block!("attention.dense")),
    layer("layers.{}.attention_norm", block!("attention.LayerNorm")),
    layer("layers.{}.feed_forward.up", block!("ffn")),
    layer("layers.{}.feed_forward.down", block!("ffn_output")),
    layer(
        "layers.{}.feed_forward_norm",
        block!("full_layer_layer_norm"),
    ),
    layer("pooler", "pooler"),
    layer("vocabulary.dense", "predictions.dense"),
    layer("vocabulary.norm", "predictions.LayerNorm"),
    layer("vocabulary", "predictions"),
    layer("next_sentence", "sop_classifier.classifier"),
];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    vec![EMBEDDINGS, RULES, classifier(head)]
}
