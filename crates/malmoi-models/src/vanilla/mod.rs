//! The original Transformer: Vaswani et al. (2017), "Attention Is All You Need".

mod config;
mod model;
mod weights;

pub use config::{FinalNorm, VanillaConfig};

use crate::published::{Published, heads};

/// The original Transformer.
pub static PUBLISHED: Published = Published {
    model_type: "vanilla-transformer",
    heads: heads!("VanillaTransformer": None, Seq2SeqLm),
    prefix: "",
    unprefixed: &[],
    tied: &[("token.weight", "generator.weight")],
    redundant: &[],
};
