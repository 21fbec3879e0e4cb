//! RoBERTa: Liu et al. (2019), "RoBERTa: A Robustly Optimized BERT Pretraining Approach"; XLM-RoBERTa: Conneau et al. (2019),
//! "Unsupervised Cross-lingual Representation Learning at Scale". The two differ in vocabulary and class names alone.

mod config;
mod model;
mod weights;

use crate::encoder::{BUFFERS, Family, USUAL};
use crate::published::{Published, heads};

/// RoBERTa.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "roberta",
        heads: heads!("Roberta": None, MaskedLm, SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice),
        prefix: "roberta.",
        unprefixed: &["lm_head.", "classifier.", "qa_outputs."],
        tied: &[
            ("embeddings.token.weight", "lm_head.decoder.weight"),
            ("vocabulary.bias", "lm_head.decoder.bias"),
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

/// XLM-RoBERTa.
pub static XLM_ROBERTA: Family = Family {
    published: Published {
        model_type: "xlm-roberta",
        heads: heads!("XLMRoberta": None, MaskedLm, SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice),
        ..FAMILY.published
    },
    sizes: config::xlm_presets,
    ..FAMILY
};
