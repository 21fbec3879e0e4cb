//! GPT-2, layer by layer.
//!
//! Token + position embeddings (+ a segment token's embedding where segments are given), pre-norm blocks that see only the
//! left, a final norm, and the token embedding once more as the output projection. GPT-3 differs in size alone; its head
//! width is free of `d_model / n_heads`. Where we differ from the published code: batches are packed.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, Block, BlockConfig, Embedding, KvCache, LayerNorm, Linear, Mask, NormPlace,
    PackedBatch, Pass,
};

use super::Gpt2Config;
use crate::head::Head;

/// The decoder with the heads that its task needs.
#[derive(Module, Debug)]
pub struct Gpt2 {
    token: Embedding,
    position: Embedding,
    layers: Vec<Block>,
    norm: LayerNorm,
    classifier: Option<Linear>,
    #[module(skip)]
    config: Gpt2Config,
}

impl Gpt2 {
    /// A model with weights yet to be filled.
    pub fn new(config: &Gpt2Config, head: Head) -> Self {
        let d = config.d_model;
        let blocks = (0..config.n_layers).map(|layer| {
            Block::new(&BlockConfig {
                attention: AttentionConfig {
                    d_model: d,
                    n_heads: config.n_heads,
                    n_kv_heads: config.n_heads,
                    d_head: config.d_head,
                    scale: config.attention_scale(layer),
                    mask: Mask::Causal,
                    bias: true,
                    dropout: config.attention_dropout,
                },
                d_ff: config.d_ff,
                activation: config.activation,
                norm_place: NormPlace::Pre,
                norm_eps: config.norm_eps,
                dropout: config.residual_dropout,
            })
        });
        Self {
            token: Embedding::new(config.vocab_size, d),
            position: Embedding::new(config.max_len, d),
            layers: blocks.collect(),
            norm: LayerNorm::new(d, config.norm_eps),
            classifier: (head == Head::SequenceClassification)
                .then(|| Linear::new(d, config.n_labels, false)),
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

    /// The norm after the last block, `[N, D]` → `[N, D]`.
    pub fn finish(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.norm.forward(hidden)
    }

    /// New tokens behind a cache: the last hidden states `[N, D]`.
    pub fn forward_cached(&self, batch: &PackedBatch, cache: &mut KvCache) -> Tensor<2> {
        let mut x = self.embed(batch, &Pass::inference());
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            x = layer.forward_cached(x, batch, cache);
        }
        cache.advance(&batch.cu_seqlens);
        self.finish(x)
    }

    /// Classifier logits of hidden rows, `[B, D]` → `[B, n_labels]`.
    pub fn classify(&self, rows: Tensor<2>) -> Option<Tensor<2>> {
        Some(self.classifier.as_ref()?.forward(rows))
    }

    /// The tied projection to the vocabulary.
    pub fn projection(&self) -> Projection {
        Projection {
            weight: self.token.weight.val(),
            bias: None,
        }
    }
}
