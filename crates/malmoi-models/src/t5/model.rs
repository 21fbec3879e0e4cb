//! T5, layer by layer.
//!
//! One token embedding for both sides; pre-norm blocks with root-mean-square norms and no biases; a learned bias by bucket of
//! relative position, shared by the blocks of a side, instead of positions in the embedding; scores that are not divided by
//! anything; a decoder whose blocks also attend to the encoder's output, without a position bias; a final norm and dropout on each
//! side. Version 1.0 multiplies the decoder's output by `1 / √d_model` and projects it with the embedding; version 1.1 gates the
//! feed-forward layers and has a projection of its own. Where we differ from the published code: batches are packed.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, Biases, Block, BlockConfig, Embedding, FeedForwardConfig, Linear, Mask, Norm,
    NormConfig, NormKind, NormPlace, PackedBatch, Pass, PositionBias, RelativeBias, Sharing, Sides,
    Stack,
};

use super::{OutputScale, T5Config};
use crate::architecture::Network;
use crate::head::Head;
use crate::layers::projection;

/// The blocks of one side, their position bias and what follows them.
#[derive(Module, Debug)]
pub struct Side {
    layers: Vec<Block>,
    relative: RelativeBias,
    norm: Norm,
    #[module(skip)]
    sharing: Sharing,
    #[module(skip)]
    n_layers: usize,
}

/// Encoder and decoder.
#[derive(Module, Debug)]
pub(super) struct T5 {
    token: Embedding,
    encoder: Side,
    decoder: Side,
    vocabulary: Option<Linear>,
    #[module(skip)]
    config: T5Config,
}

impl Side {
    fn new(config: &T5Config, sides: Sides) -> Self {
        let attention = |mask| AttentionConfig {
            d_head: config.d_head,
            scale: 1.0,
            biases: Biases::None,
            dropout: config.dropout,
            ..AttentionConfig::new(config.d_model, config.n_heads, mask)
        };
        let feed_forward = FeedForwardConfig {
            kind: config.feed_forward,
            biases: Biases::None,
            dropout: config.dropout,
            ..FeedForwardConfig::new(config.d_ff, config.activation)
        };
        let norm = NormConfig {
            kind: NormKind::Rms,
            eps: config.norm_eps,
        };
        let (n_layers, mask, cross) = match sides {
            Sides::Both => (config.n_encoder_layers, Mask::Full, None),
            Sides::Left => {
                let cross = Some(attention(Mask::Full));
                (config.n_decoder_layers, Mask::Causal, cross)
            }
        };
        let block = BlockConfig {
            cross,
            norm,
            dropout: config.dropout,
            ..BlockConfig::new(
                attention(mask),
                feed_forward,
                NormPlace::Pre,
                config.norm_eps,
            )
        };
        Self {
            layers: Stack::blocks_of(&block, config.sharing, n_layers),
            sharing: config.sharing,
            n_layers,
            relative: RelativeBias::new(
                config.n_buckets,
                config.n_heads,
                config.max_distance,
                sides,
            ),
            norm: Norm::new(config.d_model, norm),
        }
    }

    fn stack(&self) -> Stack<'_> {
        Stack {
            bias: PositionBias::Relative(&self.relative),
            ..Stack::shared(&self.layers, self.sharing, self.n_layers)
        }
    }
}

impl T5 {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &T5Config, head: Head) -> Self {
        Self {
            token: Embedding::new(config.vocab_size, config.d_model),
            encoder: Side::new(config, Sides::Both),
            decoder: Side::new(config, Sides::Left),
            vocabulary: (head == Head::Seq2SeqLm && !config.tied)
                .then(|| Linear::new(config.d_model, config.vocab_size, false)),
            config: config.clone(),
        }
    }

    fn dropout(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        ops::dropout(x, pass.dropout(self.config.dropout))
    }
}

impl Network for T5 {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let tokens = ops::sum_of_embeddings(vec![self.token.at(&batch.ids)], None);
        self.dropout(tokens, pass)
    }

    fn stack(&self) -> Stack<'_> {
        self.decoder.stack()
    }

    fn finish(&self, hidden: Tensor<2>, pass: &Pass) -> Tensor<2> {
        self.dropout(self.decoder.norm.forward(hidden), pass)
    }

    fn embed_source(&self, source: &PackedBatch, pass: &Pass) -> Option<Tensor<2>> {
        Some(self.embed(source, pass))
    }

    fn source_stack(&self) -> Option<Stack<'_>> {
        Some(self.encoder.stack())
    }

    fn finish_source(&self, hidden: Tensor<2>, pass: &Pass) -> Tensor<2> {
        self.dropout(self.encoder.norm.forward(hidden), pass)
    }

    fn vocabulary_input(&self, rows: Tensor<2>) -> Tensor<2> {
        match self.config.output_scale {
            OutputScale::One => rows,
            OutputScale::ByWidth => rows.mul_scalar((self.config.d_model as f32).sqrt().recip()),
        }
    }

    fn projection(&self) -> Option<Projection> {
        Some(projection(&self.vocabulary, &self.token))
    }
}
