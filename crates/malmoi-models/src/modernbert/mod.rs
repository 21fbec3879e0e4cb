//! ModernBERT: Warner et al. (2024), "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder".

mod config;
mod model;
mod weights;

pub use config::{ModernBertConfig, Pooling};

use crate::published::{Published, heads};

/// ModernBERT.
pub static PUBLISHED: Published = Published {
    model_type: "modernbert",
    heads: heads!(
        "ModernBert": None, MaskedLm, SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice
    ),
    prefix: "model.",
    unprefixed: &["head.", "decoder.", "classifier."],
    tied: &[("embeddings.token.weight", "decoder.weight")],
    redundant: &[],
};
