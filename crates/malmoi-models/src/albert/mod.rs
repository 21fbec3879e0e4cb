//! ALBERT: Lan et al. (2019), "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations".

mod config;
mod model;
mod weights;

use crate::encoder::{BUFFERS, EncoderTraits, Family, USUAL};
use crate::published::{Published, heads};

/// ALBERT.
pub static FAMILY: Family = Family {
    published: Published {
        model_type: "albert",
        heads: heads!("Albert": None, Pretraining, MaskedLm, SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice),
        prefix: "albert.",
        unprefixed: &[
            "predictions.",
            "sop_classifier.",
            "classifier.",
            "qa_outputs.",
        ],
        tied: &[
            ("embeddings.token.weight", "predictions.decoder.weight"),
            ("vocabulary.bias", "predictions.decoder.bias"),
        ],
        redundant: BUFFERS,
    },
    sizes: config::presets,
    read: config::read,
    write: config::write,
    build: model::build,
    rules: weights::rules,
    own: EncoderTraits {
        pair_loss: "sop",
        ..USUAL
    },
};
