//! Published weight names of RoBERTa and XLM-RoBERTa.

use crate::encoder::names::{DENSE_CLASSIFIER, EMBEDDINGS, LAYERS, POOLER, classifier};
use crate::head::Head;
use crate::names::{Rule, layer};

const VOCABULARY: &[Rule] = &[
    layer("vocabulary.dense", "lm_head.dense"),
    layer("vocabulary.norm", "lm_head.layer_norm"),
    layer("vocabulary", "lm_head"),
];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    match head {
        Head::SequenceClassification => vec![EMBEDDINGS, LAYERS, DENSE_CLASSIFIER],
        _ => vec![EMBEDDINGS, LAYERS, POOLER, VOCABULARY, classifier(head)],
    }
}
