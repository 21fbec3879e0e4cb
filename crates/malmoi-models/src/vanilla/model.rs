//! The original Transformer, layer by layer.
//!
//! One token embedding for both sides, times `√d_model`, plus sinusoids; blocks of attention and a feed-forward layer with a norm
//! after each residual sum (or before each part); a decoder whose blocks also attend to the encoder's output; the embedding once more
//! as the output projection. Where we differ from the paper's code: batches are packed, and a norm may follow the last block.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::positions::Sinusoid;
use malmoi_nn::{
    AttentionConfig, BlockConfig, Embedding, FeedForwardConfig, Linear, NormConfig, NormKind,
    PackedBatch, Pass, Sinusoids, Stack,
};

use super::VanillaConfig;
use super::config::FinalNorm;
use crate::architecture::Network;
use crate::head::Head;
use crate::layers::{own_projection, projection};
use crate::side::{Side, Which};

/// Encoder and decoder.
#[derive(Module, Debug)]
pub(super) struct Vanilla {
    token: Embedding,
    encoder: Side,
    decoder: Side,
    vocabulary: Option<Linear>,
    #[module(skip)]
    positions: Sinusoids,
    #[module(skip)]
    config: VanillaConfig,
}

/// One side: blocks, and a norm behind them where the configuration has one.
fn side(config: &VanillaConfig, which: Which) -> Side {
    let d = config.common.sizes.d_model;
    let side = Side::new(
        &config.common,
        which,
        |side, mask| AttentionConfig {
            dropout: config.dropout,
            ..AttentionConfig::new(d, side.n_heads, mask)
        },
        |side, attention| {
            let feed_forward = FeedForwardConfig {
                dropout: config.dropout,
                ..FeedForwardConfig::new(side.d_ff, config.activation)
            };
            BlockConfig {
                dropout: config.dropout,
                ..BlockConfig::new(attention, feed_forward, config.norm_place, config.norm_eps)
            }
        },
    );
    let norm = NormConfig {
        kind: NormKind::Layer,
        eps: config.norm_eps,
    };
    match config.final_norm {
        FinalNorm::Normed => side.with_norm(d, norm),
        FinalNorm::Bare => side,
    }
}

impl Vanilla {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &VanillaConfig, head: Head) -> Self {
        let sizes = &config.common.sizes;
        Self {
            token: Embedding::new(sizes.vocab_size, sizes.d_model),
            encoder: side(config, Which::Encoder),
            decoder: side(config, Which::Decoder),
            vocabulary: own_projection(&config.common, head, false),
            positions: Sinusoids::new(sizes.d_model, Sinusoid::Interleaved),
            config: config.clone(),
        }
    }
}

impl Network for Vanilla {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let tokens = ops::sum_of_embeddings(vec![self.token.at(&batch.ids)], None);
        let scaled = tokens.mul_scalar((self.config.common.sizes.d_model as f32).sqrt());
        let sum = ops::add(scaled, self.positions.rows(&batch.positions));
        ops::dropout(sum, pass.dropout(self.config.dropout))
    }

    fn stack(&self) -> Stack<'_> {
        self.decoder.stack()
    }

    fn finish(&self, hidden: Tensor<2>, _pass: &Pass) -> Tensor<2> {
        self.decoder.finish(hidden)
    }

    fn embed_source(&self, source: &PackedBatch, pass: &Pass) -> Option<Tensor<2>> {
        Some(self.embed(source, pass))
    }

    fn source_stack(&self) -> Option<Stack<'_>> {
        Some(self.encoder.stack())
    }

    fn finish_source(&self, hidden: Tensor<2>, _pass: &Pass) -> Tensor<2> {
        self.encoder.finish(hidden)
    }

    fn projection(&self) -> Option<Projection> {
        Some(projection(&self.vocabulary, &self.token))
    }
}
