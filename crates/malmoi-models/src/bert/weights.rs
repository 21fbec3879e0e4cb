//! Published weight names of BERT.

use crate::encoder::names::{EMBEDDINGS, LAYERS, POOLER, classifier};
use crate::head::Head;
use crate::names::{Rule, whole};

const HEADS: &[Rule] = &[
    whole("vocabulary.dense", "cls.predictions.transform.dense"),
    whole("vocabulary.norm", "cls.predictions.transform.LayerNorm"),
    whole("vocabulary", "cls.predictions"),
    whole("next_sentence", "cls.seq_relationship"),
];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    vec![EMBEDDINGS, LAYERS, POOLER, HEADS, classifier(head)]
}
