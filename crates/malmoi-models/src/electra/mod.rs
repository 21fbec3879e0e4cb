//! ELECTRA: Clark et al. (2020), "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators".

mod config;
pub(crate) mod files;
mod model;
pub(crate) mod pair;
mod weights;

use crate::encoder::Family;
use crate::head::Head;

/// ELECTRA.
pub static FAMILY: Family = Family {
    model_type: "electra",
    heads: &[
        (Head::None, "ElectraModel"),
        (Head::ReplacedTokens, "ElectraForPreTraining"),
        (Head::MaskedLm, "ElectraForMaskedLM"),
        (
            Head::SequenceClassification,
            "ElectraForSequenceClassification",
        ),
        (Head::TokenClassification, "ElectraForTokenClassification"),
        (Head::QuestionAnswering, "ElectraForQuestionAnswering"),
        (Head::MultipleChoice, "ElectraForMultipleChoice"),
    ],
    causal_heads: &[],
    sizes: config::presets,
    read: config::read,
    write: config::write,
    d_ff: None,
    pair_loss: "nsp",
    build: model::build,
    rules: weights::rules,
    prefix: "electra.",
    unprefixed: &[
        "generator_predictions.",
        "generator_lm_head.",
        "discriminator_predictions.",
        "sequence_summary.",
        "classifier.",
        "qa_outputs.",
    ],
    tied: &[("embeddings.token.weight", "generator_lm_head.weight")],
};
