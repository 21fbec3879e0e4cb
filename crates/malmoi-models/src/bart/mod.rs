//! BART: Lewis et al. (2019), "BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and
//! Comprehension".

mod config;
mod model;
mod weights;

pub use config::BartConfig;

use crate::published::{Published, heads};

/// BART.
pub static PUBLISHED: Published = Published {
    model_type: "bart",
    heads: heads!("Bart": None, Seq2SeqLm, SequenceClassification),
    prefix: "model.",
    unprefixed: &["classification_head."],
    tied: &[("token.weight", "lm_head.weight")],
    redundant: &["embed_tokens.weight"],
};
