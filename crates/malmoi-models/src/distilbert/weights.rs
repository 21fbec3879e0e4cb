//! Published weight names of DistilBERT.

use crate::encoder::names::classifier;
use crate::head::Head;
use crate::names::{Rule, whole};

const RULES: &[Rule] = &[
    whole("embeddings.token", "embeddings.word_embeddings"),
    whole("embeddings.position", "embeddings.position_embeddings"),
    whole("embeddings.norm", "embeddings.LayerNorm"),
    whole(
        "layers.{}.attention.query",
        "transformer.layer.{}.attention.q_lin",
    ),
    whole(
        "layers.{}.attention.key",
        "transformer.layer.{}.attention.k_lin",
    ),
    whole(
        "layers.{}.attention.value",
        "transformer.layer.{}.attention.v_lin",
    ),
    whole(
        "layers.{}.attention.output",
        "transformer.layer.{}.attention.out_lin",
    ),
    whole(
        "layers.{}.attention_norm",
        "transformer.layer.{}.sa_layer_norm",
    ),
    whole("layers.{}.feed_forward.up", "transformer.layer.{}.ffn.lin1"),
    whole(
        "layers.{}.feed_forward.down",
        "transformer.layer.{}.ffn.lin2",
    ),
    whole(
        "layers.{}.feed_forward_norm",
        "transformer.layer.{}.output_layer_norm",
    ),
    whole("pooler", "pre_classifier"),
    whole("vocabulary.dense", "vocab_transform"),
    whole("vocabulary.norm", "vocab_layer_norm"),
    whole("vocabulary", "vocab_projector"),
];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    vec![RULES, classifier(head)]
}
