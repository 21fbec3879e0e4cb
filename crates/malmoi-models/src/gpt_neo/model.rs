//! GPT-Neo, layer by layer: GPT-2 with three differences. Blocks that see all of the left alternate with blocks that see a window of
//! it, scores are not divided by anything, and the projections to queries, keys and values have no biases. Where we differ from the
//! published code: batches are packed.

use malmoi_nn::{AttentionConfig, Biases, NormPlace};

use crate::decoder::{Decoder, DecoderConfig};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &DecoderConfig, head: Head) -> Decoder {
    let block = |layer| {
        let attention = AttentionConfig {
            biases: Biases::Output,
            ..config.attention(layer)
        };
        config.block(attention, NormPlace::Pre)
    };
    Decoder::new(config, head, block)
        .with_positions(config)
        .with_norm(config, config.layer_norm())
}
