//! XLM: Conneau and Lample (2019), "Cross-lingual Language Model Pretraining".

mod config;
mod model;
mod weights;

use crate::encoder::Family;
use crate::head::Head;

/// XLM.
pub static FAMILY: Family = Family {
    model_type: "xlm",
    heads: &[
        (Head::None, "XLMModel"),
        (Head::MaskedLm, "XLMWithLMHeadModel"),
        (Head::SequenceClassification, "XLMForSequenceClassification"),
        (Head::TokenClassification, "XLMForTokenClassification"),
        (Head::QuestionAnswering, "XLMForQuestionAnsweringSimple"),
    ],
    causal_heads: &[
        (Head::None, "XLMModel"),
        (Head::CausalLm, "XLMWithLMHeadModel"),
        (Head::SequenceClassification, "XLMForSequenceClassification"),
        (Head::TokenClassification, "XLMForTokenClassification"),
        (Head::QuestionAnswering, "XLMForQuestionAnsweringSimple"),
    ],
    sizes: config::presets,
    read: config::read,
    write: config::write,
    d_ff: Some(|d_model| 4 * d_model),
    pair_loss: "nsp",
    build: model::build,
    rules: weights::rules,
    prefix: "transformer.",
    unprefixed: &[
        "pred_layer.",
        "sequence_summary.",
        "classifier.",
        "qa_outputs.",
    ],
    tied: &[("embeddings.token.weight", "pred_layer.proj.weight")],
};
