//! GPT-Neo: Black et al. (2021), "GPT-Neo: Large Scale Autoregressive Language Modeling with Mesh-Tensorflow".

mod config;
mod model;
mod weights;

use crate::decoder::{Family, ResidualStart};
use crate::gpt2;
use crate::published::{Published, heads};

/// GPT-Neo.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "gpt_neo",
        heads: heads!("GPTNeo": None, CausalLm, SequenceClassification),
        // Mask buffers of old files.
        redundant: &[".attn.attention.bias", ".attn.attention.masked_bias"],
        ..gpt2::FAMILY.published
    },
    sizes: config::presets,
    read: config::read,
    write: config::write,
    build: model::build,
    rules: |_| weights::RULES.to_vec(),
    own: ResidualStart::AsOthers,
};
