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
    AttentionConfig, Block, BlockConfig, Embedding, FeedForwardConfig, Linear, Mask, Norm,
    PackedBatch, Pass, Sides, Sinusoids, Stack,
};

use super::VanillaConfig;
use super::config::FinalNorm;
use crate::architecture::Network;
use crate::head::Head;
use crate::layers::projection;

/// The blocks of one side and the norm behind them.
#[derive(Module, Debug)]
pub struct Side {
    layers: Vec<Block>,
    norm: Option<Norm>,
}

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

impl Side {
    fn new(config: &VanillaConfig, sides: Sides) -> Self {
        let d = config.d_model;
        let attention = |mask| AttentionConfig {
            dropout: config.dropout,
            ..AttentionConfig::new(d, config.n_heads, mask)
        };
        let (n_layers, mask, cross) = match sides {
            Sides::Both => (config.n_encoder_layers, Mask::Full, None),
            Sides::Left => {
                let cross = Some(attention(Mask::Full));
                (config.n_decoder_layers, Mask::Causal, cross)
            }
        };
        let feed_forward = FeedForwardConfig {
            dropout: config.dropout,
            ..FeedForwardConfig::new(config.d_ff, config.activation)
        };
        let block = BlockConfig {
            cross,
            dropout: config.dropout,
            ..BlockConfig::new(
                attention(mask),
                feed_forward,
                config.norm_place,
                config.norm_eps,
            )
        };
        let normed = config.final_norm == FinalNorm::Normed;
        Self {
            layers: (0..n_layers).map(|_| Block::new(&block)).collect(),
            norm: normed.then(|| Norm::layer(d, config.norm_eps)),
        }
    }

    fn finish(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.norm {
            Some(norm) => norm.forward(hidden),
            None => hidden,
        }
    }
}

impl Vanilla {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &VanillaConfig, head: Head) -> Self {
        Self {
            token: Embedding::new(config.vocab_size, config.d_model),
            encoder: Side::new(config, Sides::Both),
            decoder: Side::new(config, Sides::Left),
            vocabulary: (head == Head::Seq2SeqLm && !config.tied)
                .then(|| Linear::new(config.d_model, config.vocab_size, false)),
            positions: Sinusoids::new(config.d_model, Sinusoid::Interleaved),
            config: config.clone(),
        }
    }
}

impl Network for Vanilla {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let tokens = ops::sum_of_embeddings(vec![self.token.at(&batch.ids)], None);
        let scaled = tokens.mul_scalar((self.config.d_model as f32).sqrt());
        let sum = ops::add(scaled, self.positions.rows(&batch.positions));
        ops::dropout(sum, pass.dropout(self.config.dropout))
    }

    fn stack(&self) -> Stack<'_> {
        Stack::new(&self.decoder.layers)
    }

    fn finish(&self, hidden: Tensor<2>, _pass: &Pass) -> Tensor<2> {
        self.decoder.finish(hidden)
    }

    fn embed_source(&self, source: &PackedBatch, pass: &Pass) -> Option<Tensor<2>> {
        Some(self.embed(source, pass))
    }

    fn source_stack(&self) -> Option<Stack<'_>> {
        Some(Stack::new(&self.encoder.layers))
    }

    fn finish_source(&self, hidden: Tensor<2>, _pass: &Pass) -> Tensor<2> {
        self.encoder.finish(hidden)
    }

    fn projection(&self) -> Option<Projection> {
        Some(projection(&self.vocabulary, &self.token))
    }
}
