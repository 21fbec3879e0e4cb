//! ALBERT: Lan et al. (2019), "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations".

mod config;
mod model;
mod weights;

use crate::encoder::Family;
use crate::head::Head;

/// ALBERT.
pub static FAMILY: Family = Family {
    model_type: "albert",
    heads: &[
        (Head::None, "AlbertModel"),
        (Head::Pretraining, "AlbertForPreTraining"),
        (Head::MaskedLm, "AlbertForMaskedLM"),
        (
            Head::SequenceClassification,
            "AlbertForSequenceClassification",
        ),
        (Head::TokenClassification, "AlbertForTokenClassification"),
        (Head::QuestionAnswering, "AlbertForQuestionAnswering"),
        (Head::MultipleChoice, "AlbertForMultipleChoice"),
    ],
    causal_heads: &[],
    sizes: config::presets,
    read: config::read,
    write: config::write,
    d_ff: None,
    pair_loss: "sop",
    build: model::build,
    rules: weights::rules,
    prefix: "albert.",
    unprefixed: &[
        "predictions.",
        "sop_classifier.",
        "classifier.",
        "qa_outputs.",
    ],
    tied: &[
        ("embeddings.token.weight", "predictions.decoder.weight"),
        ("vocabulary.bias", "predictions.decoder.bias"),
    ],
};
