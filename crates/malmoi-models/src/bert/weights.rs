//! Published weight names of BERT.

use crate::encoder::names::{EMBEDDINGS, LAYERS, POOLER, classifier};
use crate::head::Head;
use crate::names::{Rule, layer};

const HEADS: &[Rule] = &[
    layer("vocabulary.dense", "cls.predictions.transform.dense"),
    layer("vocabulary.norm", "cls.predictions.transform.LayerNorm"),
    layer("vocabulary", "cls.predictions"),
    layer("next_sentence", "cls.seq_relationship"),
];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    vec![EMBEDDINGS, LAYERS, POOLER, HEADS, classifier(head)]
}
