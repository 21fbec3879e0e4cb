//! GPT-1, layer by layer.
//!
//! Token + position embeddings (+ a segment token's embedding where segments are given), post-norm blocks that see only the
//! left, no final norm, and the token embedding once more as the output projection. The second head scores a whole sequence
//! at one of its tokens, for multiple choice; the classifier reads the last token. Where we differ from the published code: batches
//! are packed.

use malmoi_nn::NormPlace;

use crate::decoder::{Decoder, DecoderConfig};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &DecoderConfig, head: Head) -> Decoder {
    let block = |layer| config.block(config.attention(layer), NormPlace::Post);
    Decoder::new(config, head, block).with_positions(config)
}
