//! BERT: Devlin et al. (2018), "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".

mod config;
mod model;
mod weights;

use crate::encoder::{BUFFERS, Family, USUAL};
use crate::published::{Published, heads};

/// BERT.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "bert",
        heads: heads!(
            "Bert": None, Pretraining, MaskedLm, NextSentence, SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice
        ),
        prefix: "bert.",
        unprefixed: &["cls.", "classifier.", "qa_outputs."],
        tied: &[
            ("embeddings.token.weight", "cls.predictions.decoder.weight"),
            ("vocabulary.bias", "cls.predictions.decoder.bias"),
        ],
        redundant: BUFFERS,
    },
    sizes: config::presets,
    read: config::read,
    write: crate::encoder::bert_json,
    build: model::build,
    rules: weights::rules,
    own: USUAL,
};
