//! DistilBERT: Sanh et al. (2019), "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter".

mod config;
mod model;
mod weights;

use crate::encoder::Family;
use crate::head::Head;

/// DistilBERT.
pub static FAMILY: Family = Family {
    model_type: "distilbert",
    heads: &[
        (Head::None, "DistilBertModel"),
        (Head::MaskedLm, "DistilBertForMaskedLM"),
        (
            Head::SequenceClassification,
            "DistilBertForSequenceClassification",
        ),
        (
            Head::TokenClassification,
            "DistilBertForTokenClassification",
        ),
        (Head::QuestionAnswering, "DistilBertForQuestionAnswering"),
        (Head::MultipleChoice, "DistilBertForMultipleChoice"),
    ],
    causal_heads: &[],
    sizes: config::presets,
    read: config::read,
    write: config::write,
    d_ff: None,
    pair_loss: "nsp",
    build: model::build,
    rules: weights::rules,
    prefix: "distilbert.",
    unprefixed: &["vocab_", "pre_classifier.", "classifier.", "qa_outputs."],
    tied: &[("embeddings.token.weight", "vocab_projector.weight")],
};
