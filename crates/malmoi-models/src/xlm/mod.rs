//! XLM: Conneau and Lample (2019), "Cross-lingual Language Model Pretraining".

mod config;
mod model;
mod weights;

use crate::encoder::{BUFFERS, EncoderTraits, Family, USUAL};
use crate::published::{Published, heads};

/// XLM.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "xlm",
        heads: heads!("XLM": None, MaskedLm("WithLMHeadModel"), SequenceClassification, TokenClassification, QuestionAnswering("ForQuestionAnsweringSimple")),
        prefix: "transformer.",
        unprefixed: &[
            "pred_layer.",
            "sequence_summary.",
            "classifier.",
            "qa_outputs.",
        ],
        tied: &[("embeddings.token.weight", "pred_layer.proj.weight")],
        redundant: BUFFERS,
    },
    sizes: config::presets,
    read: config::read,
    write: config::write,
    build: model::build,
    rules: weights::rules,
    own: EncoderTraits {
        causal_heads: heads!("XLM": None, CausalLm("WithLMHeadModel"), SequenceClassification, TokenClassification, QuestionAnswering("ForQuestionAnsweringSimple")),
        ..USUAL
    },
};
