//! GPT-1: Radford et al. (2018), "Improving Language Understanding by Generative Pre-Training".

mod config;
mod model;
mod weights;

use crate::decoder::{Family, ResidualStart};
use crate::published::{Published, heads};

/// GPT-1.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "openai-gpt",
        heads: heads!("OpenAIGPT": None, CausalLm("LMHeadModel"), DoubleHeads, SequenceClassification),
        prefix: "transformer.",
        unprefixed: &["multiple_choice_head.", "lm_head.", "score."],
        tied: &[("token.weight", "lm_head.weight")],
        redundant: &[".attn.bias", "position_ids"],
    },
    sizes: config::presets,
    read: config::read,
    write: config::write,
    build: model::build,
    rules: |_| weights::RULES.to_vec(),
    own: ResidualStart::AsOthers,
};
