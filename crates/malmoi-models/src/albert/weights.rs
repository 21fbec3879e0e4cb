//! Published weight names of ALBERT. Blocks are stored once a group.

use crate::encoder::names::{EMBEDDINGS, classifier};
use crate::head::Head;
use crate::names::{Rule, whole};

/// Where the blocks stand; the two numbers are the group and the block within it.
macro_rules! layer {
    ($rest:literal) => {
        concat!(
            "encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
            $rest
        )
    };
}

const RULES: &[Rule] = &[
    whole("projection", "encoder.embedding_hidden_mapping_in"),
    whole("layers.{}.attention.query", layer!("attention.query")),
    whole("layers.{}.attention.key", layer!("attention.key")),
    whole("layers.{}.attention.value", layer!("attention.value")),
    whole("layers.{}.attention.output", layer!("attention.dense")),
    whole("layers.{}.attention_norm", layer!("attention.LayerNorm")),
    whole("layers.{}.feed_forward.up", layer!("ffn")),
    whole("layers.{}.feed_forward.down", layer!("ffn_output")),
    whole(
        "layers.{}.feed_forward_norm",
        layer!("full_layer_layer_norm"),
    ),
    whole("pooler", "pooler"),
    whole("vocabulary.dense", "predictions.dense"),
    whole("vocabulary.norm", "predictions.LayerNorm"),
    whole("vocabulary", "predictions"),
    whole("next_sentence", "sop_classifier.classifier"),
];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    vec![EMBEDDINGS, RULES, classifier(head)]
}
