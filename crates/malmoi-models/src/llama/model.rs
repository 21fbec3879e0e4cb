//! LLaMA, layer by layer.
//!
//! Token embeddings; pre-norm blocks with root-mean-square norms, rotary positions, shared key and value heads and a gated
//! feed-forward layer (SwiGLU); a final norm; an output projection, tied to the embedding in some. No biases, except where a
//! configuration asks for them. Where we differ from the published code: batches are packed.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, Biases, Block, BlockConfig, Embedding, FeedForwardConfig, FeedForwardKind,
    Linear, Mask, Norm, NormConfig, NormKind, NormPlace, PackedBatch, Pairs, Pass, Positions,
    Stack,
};

use super::LlamaConfig;
use crate::architecture::Network;
use crate::head::Head;
use crate::layers::last_rows;

/// The decoder with the heads that its task needs.
#[derive(Module, Debug)]
pub(super) struct Llama {
    token: Embedding,
    layers: Vec<Block>,
    norm: Norm,
    vocabulary: Option<Linear>,
    classifier: Option<Linear>,
    #[module(skip)]
    config: LlamaConfig,
}

impl Llama {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &LlamaConfig, head: Head) -> Self {
        let d = config.d_model;
        let biases = |wanted| if wanted { Biases::All } else { Biases::None };
        let attention = AttentionConfig {
            n_kv_heads: config.n_kv_heads,
            d_head: config.d_head,
            scale: 1.0 / (config.d_head as f32).sqrt(),
            positions: Positions::Rotary(config.rope.rotary(config.d_head, Pairs::Halves)),
            biases: biases(config.attention_bias),
            dropout: config.attention_dropout,
            ..AttentionConfig::new(d, config.n_heads, Mask::Causal)
        };
        let feed_forward = FeedForwardConfig {
            kind: FeedForwardKind::Gated,
            biases: biases(config.feed_forward_bias),
            ..FeedForwardConfig::new(config.d_ff, config.activation)
        };
        let norm = NormConfig {
            kind: NormKind::Rms,
            eps: config.norm_eps,
        };
        let block = BlockConfig {
            norm,
            ..BlockConfig::new(attention, feed_forward, NormPlace::Pre, config.norm_eps)
        };
        Self {
            token: Embedding::new(config.vocab_size, d),
            layers: Stack::blocks_of(&block, config.sharing, config.n_layers),
            norm: Norm::new(d, norm),
            vocabulary: (head == Head::CausalLm && !config.tied)
                .then(|| Linear::new(d, config.vocab_size, false)),
            classifier: (head == Head::SequenceClassification)
                .then(|| Linear::new(d, config.n_labels, false)),
            config: config.clone(),
        }
    }
}

impl Network for Llama {
    fn embed(&self, batch: &PackedBatch, _pass: &Pass) -> Tensor<2> {
        ops::sum_of_embeddings(vec![self.token.at(&batch.ids)], None)
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
        Some(crate::layers::projection(&self.vocabulary, &self.token))
    }
}
