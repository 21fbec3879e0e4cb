//! What tells one encoder family from another.

use super::{Encoder, EncoderConfig};
use crate::family;
use crate::head::Head;
use crate::{albert, bert, distilbert, electra, roberta, xlm};

/// A family of encoders.
pub type Family = family::Family<EncoderConfig, Encoder, EncoderTraits>;

/// What else tells encoders apart.
#[derive(Clone, Copy, Debug)]
pub struct EncoderTraits {
    /// Heads of models that see only the left; empty where a family has none.
    pub causal_heads: &'static [(Head, &'static str)],
    /// What the loss over pairs of segments is called.
    pub pair_loss: &'static str,
}

/// Of most families.
pub(crate) const USUAL: EncoderTraits = EncoderTraits {
    causal_heads: &[],
    pair_loss: "nsp",
};

/// The families.
pub(crate) const ALL: &[&Family] = &[
    &bert::FAMILY,
    &roberta::FAMILY,
    &roberta::XLM_ROBERTA,
    &distilbert::FAMILY,
    &albert::FAMILY,
    &electra::FAMILY,
    &xlm::FAMILY,
];
