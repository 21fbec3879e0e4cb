//! LLaMA: Touvron et al. (2023), "LLaMA: Open and Efficient Foundation Language Models", and its successors of the same form.

mod config;
mod model;
mod weights;

use crate::decoder::{Family, ResidualStart};
use crate::published::{Published, heads};

/// LLaMA.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "llama",
        heads: heads!("Llama": None, CausalLm, SequenceClassification),
        prefix: "model.",
        unprefixed: &["lm_head.", "score."],
        tied: &[("token.weight", "lm_head.weight")],
        // Frequencies that old files hold and that follow from the configuration.
        redundant: &[".rotary_emb.inv_freq"],
    },
    sizes: config::presets,
    read: config::read,
    write: config::write,
    build: model::build,
    rules: |_| weights::RULES.to_vec(),
    own: ResidualStart::AsOthers,
};
