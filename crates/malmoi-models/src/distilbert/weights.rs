//! Published weight names of DistilBERT.

use crate::encoder::names::classifier;
use crate::head::Head;
use crate::names::{Rule, layer};

const RULES: &[Rule] = &[
    layer("embeddings.token", "embeddings.word_embeddings"),
    layer("embeddings.position", "embeddings.position_embeddings"),
    layer("embeddings.norm", "embeddings.LayerNorm"),
    layer(
        "layers.{}.attention.query",
        "transformer.layer.{}.attention.q_lin",
    ),
    layer(
        "layers.{}.attention.key",
        "transformer.layer.{}.attention.k_lin",
    ),
    layer(
        "layers.{}.attention.value",
        "transformer.layer.{}.attention.v_lin",
    ),
    layer(
        "layers.{}.attention.output",
        "transformer.layer.{}.attention.out_lin",
    ),
    layer(
        "layers.{}.attention_norm",
        "transformer.layer.{}.sa_layer_norm",
    ),
    layer("layers.{}.feed_forward.up", "transformer.layer.{}.ffn.lin1"),
    layer(
        "layers.{}.feed_forward.down",
        "transformer.layer.{}.ffn.lin2",
    ),
    layer(
        "layers.{}.feed_forward_norm",
        "transformer.layer.{}.output_layer_norm",
    ),
    layer("pooler", "pre_classifier"),
    layer("vocabulary.dense", "vocab_transform"),
    layer("vocabulary.norm", "vocab_layer_norm"),
    layer("vocabulary", "vocab_projector"),
];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    vec![RULES, classifier(head)]
}
