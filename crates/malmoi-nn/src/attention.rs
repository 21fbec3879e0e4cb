//! Multi-head attention over packed sequences, with a key/value cache for generation.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_kernels::attention::{Dropout, KvSlices, Mask};

use crate::batch::PackedBatch;
use crate::host;
use crate::layers::Linear;
use crate::ops::{self, AttentionLayout};
use crate::pass::Pass;

/// Shape and behaviour of an attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Width of the hidden states.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; a divisor of `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head; independent of `d_model / n_heads`.
    pub d_head: usize,
    /// Factor on the scores, usually `1 / √d_head`.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Whether the projections have biases.
    pub bias: bool,
    /// Dropout on the probabilities.
    pub dropout: f32,
}

/// Keys and values of one sequence at one layer, `[T, n_kv_heads · d_head]` each.
#[derive(Clone, Debug, Default)]
pub struct SequenceCache {
    /// Keys.
    pub k: Vec<f32>,
    /// Values.
    pub v: Vec<f32>,
}

/// Keys and values of all layers for a set of sequences.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    /// `layers[l][b]`: layer l, sequence b.
    pub layers: Vec<Vec<SequenceCache>>,
    lengths: Vec<usize>,
}

impl KvCache {
    /// An empty cache for `n_sequences` sequences in `n_layers` layers.
    pub fn new(n_layers: usize, n_sequences: usize) -> Self {
        Self {
            layers: vec![vec![SequenceCache::default(); n_sequences]; n_layers],
            lengths: vec![0; n_sequences],
        }
    }

    /// Tokens cached for each sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Counts the tokens of a batch that has passed all layers.
    pub fn advance(&mut self, cu_seqlens: &[u32]) {
        for (length, w) in self.lengths.iter_mut().zip(cu_seqlens.windows(2)) {
            *length += (w[1] - w[0]) as usize;
        }
    }

    /// Keeps the sequences `rows` in that order; a row may appear more than once (beam search) or not at all.
    pub fn select(&mut self, rows: &[usize]) {
        if rows.iter().copied().eq(0..self.lengths.len()) {
            return;
        }
        for layer in &mut self.layers {
            *layer = rows.iter().map(|&row| layer[row].clone()).collect();
        }
        self.lengths = rows.iter().map(|&row| self.lengths[row]).collect();
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let sequences = self.layers.iter().flatten();
        sequences
            .map(|s| (s.k.capacity() + s.v.capacity()) * size_of::<f32>())
            .sum()
    }
}

/// Multi-head attention: four projections around the attention kernel.
#[derive(Module, Debug)]
pub struct MultiHeadAttention {
    /// `[n_heads · d_head, d_model]`.
    pub query: Linear,
    /// `[n_kv_heads · d_head, d_model]`.
    pub key: Linear,
    /// `[n_kv_heads · d_head, d_model]`.
    pub value: Linear,
    /// `[d_model, n_heads · d_head]`.
    pub output: Linear,
    #[module(skip)]
    config: AttentionConfig,
}

impl MultiHeadAttention {
    /// A layer with weights yet to be filled.
    pub fn new(config: AttentionConfig) -> Self {
        let (q, kv) = (
            config.n_heads * config.d_head,
            config.n_kv_heads * config.d_head,
        );
        Self {
            query: Linear::new(config.d_model, q, config.bias),
            key: Linear::new(config.d_model, kv, config.bias),
            value: Linear::new(config.d_model, kv, config.bias),
            output: Linear::new(q, config.d_model, config.bias),
            config,
        }
    }

    /// Self-attention within each packed sequence: `x [N, d_model]` → `[N, d_model]`.
    pub fn forward(&self, x: Tensor<2>, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let layout = self.layout(batch, pass);
        let q = self.query.forward(x.clone());
        let x = key_rows(x, batch);
        let k = self.key.forward(x.clone());
        let v = self.value.forward(x);
        self.output.forward(ops::attention(q, k, v, layout))
    }

    /// Attention of new tokens `x [N, d_model]` over what `cache` holds and themselves; appends to the cache.
    pub fn forward_cached(
        &self,
        x: Tensor<2>,
        batch: &PackedBatch,
        cache: &mut [SequenceCache],
    ) -> Tensor<2> {
        let layout = self.layout(batch, &Pass::inference());
        let q = self.query.forward(x.clone());
        let k = self.key.forward(x.clone());
        let v = self.value.forward(x);
        let fresh = cache.iter().all(|sequence| sequence.k.is_empty());
        let width = self.config.n_kv_heads * self.config.d_head;
        let (new_k, new_v) = (host::values(k.clone()), host::values(v.clone()));
        for (sequence, w) in cache.iter_mut().zip(batch.cu_seqlens.windows(2)) {
            let rows = w[0] as usize * width..w[1] as usize * width;
            sequence.k.extend_from_slice(&new_k[rows.clone()]);
            sequence.v.extend_from_slice(&new_v[rows]);
        }
        // A first pass over whole prompts is ordinary attention, which is blocked for reuse; later passes have few
        // queries and are limited by reading the cache.
        let attended = if fresh {
            ops::attention(q, k, v, layout)
        } else {
            let slices: Vec<KvSlices<'_>> = cache
                .iter()
                .map(|s| KvSlices {
                    k: &s.k,
                    v: &s.v,
                    len: s.k.len() / width,
                })
                .collect();
            ops::attention_cached(q, &slices, &layout)
        };
        self.output.forward(attended)
    }

    /// Probabilities for `x [N, d_model]`: per sequence `[n_heads, T, T]`, one after another.
    pub fn probabilities(&self, x: Tensor<2>, batch: &PackedBatch) -> Vec<f32> {
        let layout = self.layout(batch, &Pass::inference());
        let q = self.query.forward(x.clone());
        ops::attention_probabilities(q, self.key.forward(key_rows(x, batch)), &layout)
    }

    fn layout(&self, batch: &PackedBatch, pass: &Pass) -> AttentionLayout {
        let config = &self.config;
        let keys = batch
            .keys
            .as_ref()
            .map_or(&batch.cu_seqlens, |keys| &keys.cu_seqlens);
        AttentionLayout {
            cu_q: Arc::clone(&batch.cu_seqlens),
            cu_k: Arc::clone(keys),
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            d_head: config.d_head,
            scale: config.scale,
            mask: config.mask,
            dropout: pass
                .dropout(config.dropout)
                .map(|(p, key)| Dropout { p, key }),
        }
    }
}

fn key_rows(x: Tensor<2>, batch: &PackedBatch) -> Tensor<2> {
    match &batch.keys {
        Some(keys) => ops::gather_rows(x, Arc::clone(&keys.rows)),
        None => x,
    }
}
