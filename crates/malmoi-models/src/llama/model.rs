//! LLaMA, layer by layer.
//!
//! Token embeddings; pre-norm blocks with root-mean-square norms, rotary positions, shared key and value heads and a gated
//! feed-forward layer (SwiGLU); a final norm; an output projection, tied to the embedding in some. No biases, except where a
//! configuration asks for them. Where we differ from the published code: batches are packed.

use malmoi_nn::{
    AttentionConfig, Biases, BlockConfig, FeedForwardConfig, FeedForwardKind, NormConfig, NormKind,
    NormPlace, Pairs, Positions,
};

use crate::decoder::{Decoder, DecoderConfig};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &DecoderConfig, head: Head) -> Decoder {
    // One table of angles for all blocks.
    let positions = config.rope.as_ref().map_or(Positions::Outside, |rope| {
        Positions::Rotary(rope.rotary(config.common.sizes.d_head, Pairs::Halves))
    });
    let norm = NormConfig {
        kind: NormKind::Rms,
        eps: config.norm_eps,
    };
    let biases = |wanted| if wanted { Biases::All } else { Biases::None };
    let block = |layer| {
        let attention = AttentionConfig {
            positions: positions.clone(),
            biases: biases(config.attention_bias),
            ..config.attention(layer)
        };
        let block = config.block(attention, NormPlace::Pre);
        BlockConfig {
            feed_forward: FeedForwardConfig {
                kind: FeedForwardKind::Gated,
                biases: biases(config.feed_forward_bias),
                ..block.feed_forward
            },
            norm,
            ..block
        }
    };
    Decoder::new(config, head, block).with_norm(config, norm)
}
