//! GPT-Neo, layer by layer.
//!
//! GPT-2 with three differences: blocks that see all of the left alternate with blocks that see a window of it, scores are not
//! divided by anything, and the projections to queries, keys and values have no biases. Where we differ from the published code:
//! batches are packed.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, Biases, Block, BlockConfig, Embedding, FeedForwardConfig, Linear, Norm,
    NormPlace, PackedBatch, Pass, Stack,
};

use super::GptNeoConfig;
use crate::architecture::Network;
use crate::head::Head;
use crate::layers::{embed_with_positions, last_rows, projection};

/// The decoder with the heads that its task needs.
#[derive(Module, Debug)]
pub(super) struct GptNeo {
    token: Embedding,
    position: Embedding,
    layers: Vec<Block>,
    norm: Norm,
    vocabulary: Option<Linear>,
    classifier: Option<Linear>,
    #[module(skip)]
    config: GptNeoConfig,
}

impl GptNeo {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &GptNeoConfig, head: Head) -> Self {
        let d = config.d_model;
        let blocks = config.reaches.iter().map(|reach| {
            let attention = AttentionConfig {
                scale: 1.0,
                biases: Biases::Output,
                dropout: config.attention_dropout,
                ..AttentionConfig::new(d, config.n_heads, config.mask(*reach))
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

impl Network for GptNeo {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let dropout = self.config.embedding_dropout;
        embed_with_positions(&self.token, &self.position, batch, dropout, pass)
    }

    fn stack(&self) -> Stack<'_> {
        Stack::new(&self.layers)
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
