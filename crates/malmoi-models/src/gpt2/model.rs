//! GPT-2, layer by layer.
//!
//! Token + position embeddings (+ a segment token's embedding where segments are given), pre-norm blocks that see only the
//! left, a final norm, and the token embedding once more as the output projection (or one of its own). In GPT-3 every other block
//! sees a band of the left alone, and the head width is free of `d_model / n_heads`. Where we differ from the published code:
//! batches are packed.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, Block, BlockConfig, Embedding, FeedForwardConfig, Linear, Norm, NormPlace,
    PackedBatch, Pass, Stack,
};

use super::Gpt2Config;
use crate::architecture::Network;
use crate::head::Head;
use crate::layers::{embed_with_positions, last_rows, projection};

/// The decoder with the heads that its task needs.
#[derive(Module, Debug)]
pub(super) struct Gpt2 {
    token: Embedding,
    position: Embedding,
    layers: Vec<Block>,
    norm: Norm,
    vocabulary: Option<Linear>,
    classifier: Option<Linear>,
    #[module(skip)]
    config: Gpt2Config,
}

impl Gpt2 {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &Gpt2Config, head: Head) -> Self {
        let d = config.d_model;
        let blocks = (0..config.sharing.n_blocks(config.n_layers)).map(|layer| {
            let attention = AttentionConfig {
                d_head: config.d_head,
                scale: config.attention_scale(layer),
                dropout: config.attention_dropout,
                ..AttentionConfig::new(d, config.n_heads, config.mask(layer))
            };
            let feed_forward = FeedForwardConfig::new(config.d_ff, config.activation);
            Block::new(&BlockConfig {
                dropout: config.residual_dropout,
                ..BlockConfig::new(attention, feed_forward, NormPlace::Pre, config.norm_eps)
            })
        });
        Self {
            token: Embedding::new(config.vocab_size, d),
            position: Embedding::new(config.max_len, d),
            layers: blocks.collect(),
            norm: Norm::layer(d, config.norm_eps),
            vocabulary: (head == Head::CausalLm && !config.tied)
                .then(|| Linear::new(d, config.vocab_size, false)),
            classifier: (head == Head::SequenceClassification)
                .then(|| Linear::new(d, config.n_labels, false)),
            config: config.clone(),
        }
    }
}

impl Network for Gpt2 {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let dropout = self.config.embedding_dropout;
        embed_with_positions(&self.token, &self.position, batch, dropout, pass)
    }

    fn stack(&self) -> Stack<'_> {
        Stack::shared(&self.layers, self.config.sharing, self.config.n_layers)
    }

    fn finish(&self, hidden: Tensor<2>, _pass: &Pass) -> Tensor<2> {
        self.norm.forward(hidden)
    }

    fn sequence_outputs(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        _pass: &Pass,
    ) -> Option<Tensor<2>> {
        let rows = ops::gather_rows(hidden, last_rows(batch, self.config.pad_token_id));
        Some(self.classifier.as_ref()?.forward(rows))
    }

    fn projection(&self) -> Option<Projection> {
        Some(projection(&self.vocabulary, &self.token))
    }
}
