//! GPT-1, layer by layer.
//!
//! Token + position embeddings (+ a segment token's embedding where segments are given), post-norm blocks that see only the
//! left, no final norm, and the token embedding once more as the output projection. The second head scores a whole sequence
//! at one of its tokens, for multiple choice. Where we differ from the published code: batches are packed.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, Block, BlockConfig, Embedding, KvCache, Linear, Mask, NormPlace, PackedBatch,
    Pass,
};

use super::Gpt1Config;
use crate::head::Head;

/// The decoder with the heads that its task needs.
#[derive(Module, Debug)]
pub struct Gpt1 {
    token: Embedding,
    position: Embedding,
    layers: Vec<Block>,
    choice: Option<Linear>,
    #[module(skip)]
    config: Gpt1Config,
}

impl Gpt1 {
    /// A model with weights yet to be filled.
    pub fn new(config: &Gpt1Config, head: Head) -> Self {
        let d = config.d_model;
        let block = BlockConfig {
            attention: AttentionConfig {
                d_model: d,
                n_heads: config.n_heads,
                n_kv_heads: config.n_heads,
                d_head: d / config.n_heads,
                scale: 1.0 / ((d / config.n_heads) as f32).sqrt(),
                mask: Mask::Causal,
                bias: true,
                dropout: config.attention_dropout,
            },
            d_ff: 4 * d,
            activation: config.activation,
            norm_place: NormPlace::Post,
            norm_eps: config.norm_eps,
            dropout: config.residual_dropout,
        };
        Self {
            token: Embedding::new(config.vocab_size, d),
            position: Embedding::new(config.max_len, d),
            layers: (0..config.n_layers).map(|_| Block::new(&block)).collect(),
            choice: (head == Head::DoubleHeads).then(|| Linear::new(d, 1, true)),
            config: config.clone(),
        }
    }

    /// The embedding output, `[N, D]`.
    pub fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let mut tables = vec![
            self.token.at(&batch.ids),
            self.position.at(&batch.positions),
        ];
        if let Some(segments) = &batch.segments {
            tables.push(self.token.at(segments));
        }
        let sum = ops::sum_of_embeddings(tables, None);
        ops::dropout(sum, pass.dropout(self.config.embedding_dropout))
    }

    /// The blocks of the decoder.
    pub fn layers(&self) -> &[Block] {
        &self.layers
    }

    /// New tokens behind a cache: the last hidden states `[N, D]`.
    pub fn forward_cached(&self, batch: &PackedBatch, cache: &mut KvCache) -> Tensor<2> {
        let mut x = self.embed(batch, &Pass::inference());
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            x = layer.forward_cached(x, batch, cache);
        }
        cache.advance(&batch.cu_seqlens);
        x
    }

    /// Choice logits of hidden rows, `[B, D]` → `[B, 1]`, with dropout before them.
    pub fn score(&self, rows: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        let dropped = ops::dropout(rows, pass.dropout(self.config.classifier_dropout));
        Some(self.choice.as_ref()?.forward(dropped))
    }

    /// The tied projection to the vocabulary.
    pub fn projection(&self) -> Projection {
        Projection {
            weight: self.token.weight.val(),
            bias: None,
        }
    }
}
