//! BART, layer by layer.
//!
//! One token embedding for both sides; each side adds positions of its own and norms the sum; post-norm blocks, those of the decoder
//! with attention to the encoder's output; the embedding once more as the output projection. A classifier reads the same text on both
//! sides. Where we differ from the published
//! code: batches are packed, and `final_logits_bias`, which is zero in every published file, is not there.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, BlockConfig, Embedding, FeedForwardConfig, NormConfig, NormKind, NormPlace,
    PackedBatch, Pass, Stack,
};

use super::BartConfig;
use crate::architecture::Network;
use crate::both_sides::SequenceHead;
use crate::head::Head;
use crate::side::{Side, Which};

/// The published constant of the norms.
const NORM_EPS: f32 = 1e-5;

/// Rows of the position table before the first position, left over from a table that began with the padding token.
const POSITION_OFFSET: u32 = 2;

/// Encoder and decoder.
#[derive(Module, Debug)]
pub(super) struct Bart {
    token: Embedding,
    encoder: Side,
    decoder: Side,
    sequence: Option<SequenceHead>,
    #[module(skip)]
    config: BartConfig,
}

/// One side: positions of its own, a norm over the embeddings and post-norm blocks.
fn side(config: &BartConfig, which: Which) -> Side {
    let (d, max_len) = (config.common.sizes.d_model, config.common.sizes.max_len);
    let side = Side::new(
        &config.common,
        which,
        |side, mask| AttentionConfig {
            dropout: config.attention_dropout,
            ..AttentionConfig::new(d, side.n_heads, mask)
        },
        |side, attention| {
            let feed_forward = FeedForwardConfig {
                dropout: config.activation_dropout,
                ..FeedForwardConfig::new(side.d_ff, config.activation)
            };
            BlockConfig {
                dropout: config.dropout,
                ..BlockConfig::new(attention, feed_forward, NormPlace::Post, NORM_EPS)
            }
        },
    );
    let norm = NormConfig {
        kind: NormKind::Layer,
        eps: NORM_EPS,
    };
    side.with_embeddings(max_len + POSITION_OFFSET as usize, d, norm)
}

impl Bart {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &BartConfig, head: Head) -> Self {
        let sizes = &config.common.sizes;
        Self {
            token: Embedding::new(sizes.vocab_size, sizes.d_model),
            encoder: side(config, Which::Encoder),
            decoder: side(config, Which::Decoder),
            sequence: SequenceHead::of(&config.common, head, config.classifier_dropout),
            config: config.clone(),
        }
    }

    /// `dropout(norm(scale · token + position))`, `[N, D]`. The padding token's vector gets no gradient, as published.
    fn embed_side(&self, side: &Side, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let rows: Arc<[u32]> = batch
            .positions
            .iter()
            .map(|p| p + POSITION_OFFSET)
            .collect();
        let frozen = [self.config.common.tokens.pad];
        let tokens = vec![self.token.at(&batch.ids)];
        let positions = side.position.iter().map(|table| table.at(&rows));
        let scale = self.config.embedding_scale;
        let sum = if scale == 1.0 {
            let tables = tokens.into_iter().chain(positions).collect();
            ops::sum_of_embeddings(tables, frozen)
        } else {
            let tokens = ops::sum_of_embeddings(tokens, frozen).mul_scalar(scale);
            let positions = ops::sum_of_embeddings(positions.collect(), None);
            ops::add(tokens, positions)
        };
        let normed = side.norm_embeddings(sum);
        ops::dropout(normed, pass.dropout(self.config.dropout))
    }
}

impl Network for Bart {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        self.embed_side(&self.decoder, batch, pass)
    }

    fn stack(&self) -> Stack<'_> {
        self.decoder.stack()
    }

    fn embed_source(&self, source: &PackedBatch, pass: &Pass) -> Option<Tensor<2>> {
        Some(self.embed_side(&self.encoder, source, pass))
    }

    fn source_stack(&self) -> Option<Stack<'_>> {
        Some(self.encoder.stack())
    }

    fn both_sides(&self) -> Option<&SequenceHead> {
        self.sequence.as_ref()
    }

    fn projection(&self) -> Option<Projection> {
        Some(crate::layers::projection(&None, &self.token))
    }
}
