//! What tells one decoder family from another.

use super::{Decoder, DecoderConfig};
use crate::family;
use crate::{gpt_neo, gpt1, gpt2, llama};

/// A family of decoders.
pub type Family = family::Family<DecoderConfig, Decoder, ResidualStart>;

/// How small the layers start that write into the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResidualStart {
    /// As all others.
    AsOthers,
    /// By `√(2 n_layers)` smaller (Radford et al., 2019, section 2.3).
    ByDepth,
}

/// The families.
pub(crate) const ALL: &[&Family] = &[
    &gpt2::FAMILY,
    &gpt1::FAMILY,
    &gpt_neo::FAMILY,
    &llama::FAMILY,
];
