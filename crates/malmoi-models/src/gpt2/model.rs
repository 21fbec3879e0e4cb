//! GPT-2, layer by layer.
//!
//! Token + position embeddings (+ a segment token's embedding where segments are given), pre-norm blocks that see only the
//! left, a final norm, and the token embedding once more as the output projection (or one of its own). In GPT-3 every other block
//! sees a band of the left alone, and the head width is free of `d_model / n_heads`. Where we differ from the published code:
//! batches are packed.

use malmoi_nn::NormPlace;

use crate::decoder::{Decoder, DecoderConfig};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &DecoderConfig, head: Head) -> Decoder {
    let block = |layer| config.block(config.attention(layer), NormPlace::Pre);
    Decoder::new(config, head, block)
        .with_positions(config)
        .with_norm(config, config.layer_norm())
}
