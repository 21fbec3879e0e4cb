//! GPT-2 and dense GPT-3: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners"; Brown et al.
//! (2020), "Language Models are Few-Shot Learners".

mod config;
pub(crate) mod keys;
mod model;
pub(crate) mod weights;

use crate::decoder::{Family, ResidualStart};
use crate::published::{Published, heads};

/// GPT-2.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "gpt2",
        heads: heads!("GPT2": None, CausalLm("LMHeadModel"), SequenceClassification),
        prefix: "transformer.",
        unprefixed: &["score.", "lm_head."],
        tied: &[("token.weight", "lm_head.weight")],
        // Mask buffers of old files.
        redundant: &[".attn.bias", ".attn.masked_bias"],
    },
    sizes: config::presets,
    read: config::read,
    write: config::write,
    build: model::build,
    rules: |_| weights::RULES.to_vec(),
    own: ResidualStart::ByDepth,
};
