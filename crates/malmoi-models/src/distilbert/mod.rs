//! DistilBERT: Sanh et al. (2019), "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter".

mod config;
mod model;
mod weights;

use crate::encoder::{BUFFERS, Family, USUAL};
use crate::published::{Published, heads};

/// DistilBERT.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "distilbert",
        heads: heads!("DistilBert": None, MaskedLm, SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice),
        prefix: "distilbert.",
        unprefixed: &["vocab_", "pre_classifier.", "classifier.", "qa_outputs."],
        tied: &[("embeddings.token.weight", "vocab_projector.weight")],
        redundant: BUFFERS,
    },
    sizes: config::presets,
    read: config::read,
    write: config::write,
    build: model::build,
    rules: weights::rules,
    own: USUAL,
};
