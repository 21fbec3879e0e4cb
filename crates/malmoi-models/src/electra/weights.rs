//! Published weight names of ELECTRA.

use crate::encoder::names::{CLASSIFIER, DENSE_CLASSIFIER, EMBEDDINGS, LAYERS, classifier};
use crate::head::Head;
use crate::names::{Rule, layer};

const RULES: &[Rule] = &[
    layer("projection", "embeddings_project"),
    layer("vocabulary.dense", "generator_predictions.dense"),
    layer("vocabulary.norm", "generator_predictions.LayerNorm"),
    layer("vocabulary", "generator_lm_head"),
    layer("detector.dense", "discriminator_predictions.dense"),
    layer(
        "detector.output",
        "discriminator_predictions.dense_prediction",
    ),
];

const CHOICE: &[Rule] = &[layer("pooler", "sequence_summary.summary")];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    let mut rules = vec![EMBEDDINGS, LAYERS, RULES];
    rules.extend(match head {
        Head::SequenceClassification => vec![DENSE_CLASSIFIER],
        Head::MultipleChoice => vec![CHOICE, CLASSIFIER],
        _ => vec![classifier(head)],
    });
    rules
}
