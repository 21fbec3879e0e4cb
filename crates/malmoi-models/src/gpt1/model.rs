//! GPT-1, layer by layer.
//!
//! Token + position embeddings (+ a segment token's embedding where segments are given), post-norm blocks that see only the
//! left, no final norm, and the token embedding once more as the output projection. The second head scores a whole sequence
//! at one of its tokens, for multiple choice; the classifier reads the last token. Where we differ from the published code: batches
//! are packed.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, Block, BlockConfig, Embedding, FeedForwardConfig, Linear, Mask, NormPlace,
    PackedBatch, Pass, Stack,
};

use super::Gpt1Config;
use crate::architecture::Network;
use crate::head::Head;
use crate::layers::{embed_with_positions, last_rows, projection};

/// The decoder with the heads that its task needs.
#[derive(Module, Debug)]
pub(super) struct Gpt1 {
    token: Embedding,
    position: Embedding,
    layers: Vec<Block>,
    choice: Option<Linear>,
    classifier: Option<Linear>,
    #[module(skip)]
    config: Gpt1Config,
}

impl Gpt1 {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &Gpt1Config, head: Head) -> Self {
        let d = config.d_model;
        let attention = AttentionConfig {
            dropout: config.attention_dropout,
            ..AttentionConfig::new(d, config.n_heads, Mask::Causal)
        };
        let feed_forward = FeedForwardConfig::new(4 * d, config.activation);
        let block = BlockConfig {
            dropout: config.residual_dropout,
            ..BlockConfig::new(attention, feed_forward, NormPlace::Post, config.norm_eps)
        };
        Self {
            token: Embedding::new(config.vocab_size, d),
            position: Embedding::new(config.max_len, d),
            layers: Stack::blocks_of(&block, config.sharing, config.n_layers),
            choice: (head == Head::DoubleHeads).then(|| Linear::new(d, 1, true)),
            classifier: (head == Head::SequenceClassification)
                .then(|| Linear::new(d, config.n_labels, false)),
            config: config.clone(),
        }
    }
}

impl Network for Gpt1 {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let dropout = self.config.embedding_dropout;
        embed_with_positions(&self.token, &self.position, batch, dropout, pass)
    }

    fn stack(&self) -> Stack<'_> {
        Stack::shared(&self.layers, self.config.sharing, self.config.n_layers)
    }

    fn sequence_outputs(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        _pass: &Pass,
    ) -> Option<Tensor<2>> {
        let rows = ops::gather_rows(hidden, last_rows(batch, None));
        Some(self.classifier.as_ref()?.forward(rows))
    }

    fn choice_scores(&self, rows: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        let dropped = ops::dropout(rows, pass.dropout(self.config.classifier_dropout));
        Some(self.choice.as_ref()?.forward(dropped))
    }

    fn projection(&self) -> Option<Projection> {
        Some(projection(&None, &self.token))
    }
}
