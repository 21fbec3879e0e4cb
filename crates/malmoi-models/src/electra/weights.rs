//! Published weight names of ELECTRA.

use crate::encoder::names::{CLASSIFIER, DENSE_CLASSIFIER, EMBEDDINGS, LAYERS, classifier};
use crate::head::Head;
use crate::names::{Rule, whole};

const RULES: &[Rule] = &[
    whole("projection", "embeddings_project"),
    whole("vocabulary.dense", "generator_predictions.dense"),
    whole("vocabulary.norm", "generator_predictions.LayerNorm"),
    whole("vocabulary", "generator_lm_head"),
    whole("detector.dense", "discriminator_predictions.dense"),
    whole(
        "detector.output",
        "discriminator_predictions.dense_prediction",
    ),
];

const CHOICE: &[Rule] = &[whole("pooler", "sequence_summary.summary")];

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
