//! BART, layer by layer.
//!
//! One token embedding for both sides; each side adds positions of its own and norms the sum; post-norm blocks, those of the decoder
//! with attention to the encoder's output; the embedding once more as the output projection. Where we differ from the published
//! code: batches are packed, and `final_logits_bias`, which is zero in every published file, is not there.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, Block, BlockConfig, Embedding, FeedForwardConfig, Mask, Norm, NormPlace,
    PackedBatch, Pass, Sharing, Stack,
};

use super::{BartConfig, SideConfig};
use crate::architecture::Network;
use crate::head::Head;

/// The published constant of the norms.
const NORM_EPS: f32 = 1e-5;

/// Rows of the position table before the first position, left over from a table that began with the padding token.
const POSITION_OFFSET: u32 = 2;

/// Positions and blocks of one side.
#[derive(Module, Debug)]
pub struct Side {
    position: Embedding,
    embedding_norm: Norm,
    layers: Vec<Block>,
    #[module(skip)]
    sharing: Sharing,
    #[module(skip)]
    n_layers: usize,
}

/// Encoder and decoder.
#[derive(Module, Debug)]
pub(super) struct Bart {
    token: Embedding,
    encoder: Side,
    decoder: Side,
    #[module(skip)]
    config: BartConfig,
}

impl Side {
    fn new(config: &BartConfig, side: &SideConfig, mask: Mask) -> Self {
        let d = config.d_model;
        let attention = |mask| AttentionConfig {
            dropout: config.attention_dropout,
            ..AttentionConfig::new(d, side.n_heads, mask)
        };
        let feed_forward = FeedForwardConfig {
            dropout: config.activation_dropout,
            ..FeedForwardConfig::new(side.d_ff, config.activation)
        };
        let block = BlockConfig {
            cross: (mask == Mask::Causal).then(|| attention(Mask::Full)),
            dropout: config.dropout,
            ..BlockConfig::new(attention(mask), feed_forward, NormPlace::Post, NORM_EPS)
        };
        Self {
            position: Embedding::new(config.max_len + POSITION_OFFSET as usize, d),
            embedding_norm: Norm::layer(d, NORM_EPS),
            layers: Stack::blocks_of(&block, config.sharing, side.n_layers),
            sharing: config.sharing,
            n_layers: side.n_layers,
        }
    }

    fn stack(&self) -> Stack<'_> {
        Stack::shared(&self.layers, self.sharing, self.n_layers)
    }
}

impl Bart {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &BartConfig, _head: Head) -> Self {
        Self {
            token: Embedding::new(config.vocab_size, config.d_model),
            encoder: Side::new(config, &config.encoder, Mask::Full),
            decoder: Side::new(config, &config.decoder, Mask::Causal),
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
        let frozen = [Some(self.config.pad_token_id)];
        let sum = if self.config.embedding_scale == 1.0 {
            let tables = vec![self.token.at(&batch.ids), side.position.at(&rows)];
            ops::sum_of_embeddings(tables, frozen)
        } else {
            let tokens = ops::sum_of_embeddings(vec![self.token.at(&batch.ids)], frozen);
            let positions = ops::sum_of_embeddings(vec![side.position.at(&rows)], None);
            ops::add(tokens.mul_scalar(self.config.embedding_scale), positions)
        };
        let normed = side.embedding_norm.forward(sum);
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

    fn projection(&self) -> Option<Projection> {
        Some(crate::layers::projection(&None, &self.token))
    }
}
