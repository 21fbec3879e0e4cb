//! ELECTRA: Clark et al. (2020), "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators".

mod config;
pub(crate) mod files;
mod model;
pub(crate) mod pair;
mod weights;

use crate::encoder::{BUFFERS, Family, USUAL};
use crate::published::{Published, heads};

/// ELECTRA.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "electra",
        heads: heads!("Electra": None, ReplacedTokens, MaskedLm, SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice),
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
        redundant: BUFFERS,
    },
    sizes: config::presets,
    read: config::read,
    write: config::write,
    build: model::build,
    rules: weights::rules,
    own: USUAL,
};
