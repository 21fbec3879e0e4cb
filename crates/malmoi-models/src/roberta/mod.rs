//! RoBERTa: Liu et al. (2019), "RoBERTa: A Robustly Optimized BERT Pretraining Approach"; XLM-RoBERTa: Conneau et al. (2019),
//! "Unsupervised Cross-lingual Representation Learning at Scale". The two differ in vocabulary and class names alone.

mod config;
mod model;
mod weights;

use crate::encoder::Family;
use crate::head::Head;

/// RoBERTa.
pub static FAMILY: Family = Family {
    model_type: "roberta",
    heads: &[
        (Head::None, "RobertaModel"),
        (Head::MaskedLm, "RobertaForMaskedLM"),
        (
            Head::SequenceClassification,
            "RobertaForSequenceClassification",
        ),
        (Head::TokenClassification, "RobertaForTokenClassification"),
        (Head::QuestionAnswering, "RobertaForQuestionAnswering"),
        (Head::MultipleChoice, "RobertaForMultipleChoice"),
    ],
    causal_heads: &[],
    sizes: config::presets,
    read: config::read,
    write: crate::encoder::bert_json,
    d_ff: None,
    pair_loss: "nsp",
    build: model::build,
    rules: weights::rules,
    prefix: "roberta.",
    unprefixed: &["lm_head.", "classifier.", "qa_outputs."],
    tied: &[
        ("embeddings.token.weight", "lm_head.decoder.weight"),
        ("vocabulary.bias", "lm_head.decoder.bias"),
    ],
};

/// XLM-RoBERTa.
pub static XLM_ROBERTA: Family = Family {
    model_type: "xlm-roberta",
    heads: &[
        (Head::None, "XLMRobertaModel"),
        (Head::MaskedLm, "XLMRobertaForMaskedLM"),
        (
            Head::SequenceClassification,
            "XLMRobertaForSequenceClassification",
        ),
        (
            Head::TokenClassification,
            "XLMRobertaForTokenClassification",
        ),
        (Head::QuestionAnswering, "XLMRobertaForQuestionAnswering"),
        (Head::MultipleChoice, "XLMRobertaForMultipleChoice"),
    ],
    sizes: config::xlm_presets,
    ..FAMILY
};
