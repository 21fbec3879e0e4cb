//! Multi-head attention over packed sequences: over a sequence's own tokens or another's, with a cache for generation.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_kernels::attention::{Dropout, KvSlices, Mask};

use crate::batch::PackedBatch;
use crate::bridge;
use crate::cache::{SequenceCache, Stored};
use crate::layers::Linear;
use crate::ops::{self, AttentionLayout};
use crate::pass::Pass;
use crate::positions::Positions;

/// Which dense layers of a part have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Biases {
    /// All of them.
    All,
    /// The last alone (GPT-Neo's attention).
    Output,
    /// None of them.
    None,
}

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
    /// How the layer itself knows positions.
    pub positions: Positions,
    /// Which projections have biases.
    pub biases: Biases,
    /// Dropout on the probabilities.
    pub dropout: f32,
}

impl AttentionConfig {
    /// The attention of the original Transformer: heads that share `d_model`, scores divided by `√d_head`, biases, no dropout.
    /// Change the fields for anything else.
    pub fn new(d_model: usize, n_heads: usize, mask: Mask) -> Self {
        let d_head = d_model / n_heads;
        Self {
            d_model,
            n_heads,
            n_kv_heads: n_heads,
            d_head,
            scale: 1.0 / (d_head as f32).sqrt(),
            mask,
            positions: Positions::Outside,
            biases: Biases::All,
            dropout: 0.0,
        }
    }
}

/// What another stack hands to cross-attention.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The encoder's output, `[M, d_model]`.
    pub states: Tensor<2>,
    /// Where the source of each sequence starts, and the end of the last: `[B + 1]`.
    pub cu_seqlens: Arc<[u32]>,
}

impl Memory {
    /// The same for the next layer; see [`bridge::handed_on`].
    pub(crate) fn handed_on(self) -> Self {
        Self {
            states: bridge::handed_on(self.states),
            ..self
        }
    }
}

/// What an attention layer needs beside its input.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// How the rows are packed.
    pub batch: &'a PackedBatch,
    /// Dropout or none.
    pub pass: &'a Pass,
    /// Added to the scores of self-attention, by distance: `[n_heads, 2·reach - 1]`.
    pub bias: Option<Tensor<2>>,
    /// What cross-attention attends to.
    pub memory: Option<Memory>,
}

impl<'a> Surroundings<'a> {
    /// A batch on its own.
    pub fn new(batch: &'a PackedBatch, pass: &'a Pass) -> Self {
        Self {
            batch,
            pass,
            bias: None,
            memory: None,
        }
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
        let inner = config.biases == Biases::All;
        let outer = config.biases != Biases::None;
        Self {
            query: Linear::new(config.d_model, q, inner),
            key: Linear::new(config.d_model, kv, inner),
            value: Linear::new(config.d_model, kv, inner),
            output: Linear::new(q, config.d_model, outer),
            config,
        }
    }

    /// Its shape and behaviour.
    pub fn config(&self) -> &AttentionConfig {
        &self.config
    }

    /// Self-attention within each packed sequence: `x [N, d_model]` → `[N, d_model]`.
    pub fn forward(&self, x: Tensor<2>, around: &Surroundings<'_>) -> Tensor<2> {
        let batch = around.batch;
        let layout = self.layout(batch, own_keys(batch), around.pass);
        let q = self.queries(x.clone(), &batch.positions);
        let (k, v) = self.own_keys_and_values(x, batch);
        let attended = ops::attention(q, k, v, around.bias.clone(), layout);
        self.output.forward(attended)
    }

    /// Attention of `x [N, d_model]` over what another stack left: `[N, d_model]`.
    pub fn forward_cross(
        &self,
        x: Tensor<2>,
        memory: &Memory,
        around: &Surroundings<'_>,
    ) -> Tensor<2> {
        let layout = self.layout(around.batch, &memory.cu_seqlens, around.pass);
        let k = self.key.forward(memory.states.clone());
        let v = self.value.forward(memory.states.clone());
        let attended = ops::attention(self.query.forward(x), k, v, None, layout);
        self.output.forward(attended)
    }

    /// Attention of new tokens `x [N, d_model]` over what `cache` holds and themselves; appends to the cache.
    pub fn forward_cached(
        &self,
        x: Tensor<2>,
        around: &Surroundings<'_>,
        cache: &mut [SequenceCache],
    ) -> Tensor<2> {
        let batch = around.batch;
        let layout = self.layout(batch, &batch.cu_seqlens, around.pass);
        let q = self.queries(x.clone(), &batch.positions);
        let (k, v) = self.own_keys_and_values(x, batch);
        let (bias, cu) = (around.bias.clone(), &batch.cu_seqlens);
        // A first pass over whole prompts is ordinary attention, which is blocked for reuse; later passes have few
        // queries and are limited by reading the cache.
        let fresh = cache.iter().all(|sequence| sequence.k.is_empty());
        let attended = if fresh {
            let attended = ops::attention(q, k.clone(), v.clone(), bias, layout);
            // Afterwards nothing else holds keys and values, so that they are not copied on their way.
            self.append(k, v, cu, cache);
            attended
        } else {
            self.append(k, v, cu, cache);
            ops::attention_cached(q, &self.slices(cache.iter()), bias, &layout)
        };
        self.output.forward(attended)
    }

    /// Keys and values of another stack's output, one cache a sequence, for [`Self::forward_cross_cached`].
    pub fn cross_cache(&self, memory: &Memory) -> Vec<Arc<SequenceCache>> {
        let mut caches = vec![SequenceCache::default(); memory.cu_seqlens.len() - 1];
        let k = self.key.forward(memory.states.clone());
        let v = self.value.forward(memory.states.clone());
        self.append(k, v, &memory.cu_seqlens, &mut caches);
        caches.into_iter().map(Arc::new).collect()
    }

    /// Attention of new tokens `x [N, d_model]` over cached keys and values of another stack.
    pub fn forward_cross_cached(
        &self,
        x: Tensor<2>,
        around: &Surroundings<'_>,
        cache: &[Arc<SequenceCache>],
    ) -> Tensor<2> {
        let layout = self.layout(around.batch, &around.batch.cu_seqlens, around.pass);
        let slices = self.slices(cache.iter().map(Arc::as_ref));
        let attended = ops::attention_cached(self.query.forward(x), &slices, None, &layout);
        self.output.forward(attended)
    }

    /// Probabilities for `x [N, d_model]`: per sequence `[n_heads, T, T]`, one after another.
    pub fn probabilities(&self, x: Tensor<2>, around: &Surroundings<'_>) -> Vec<f32> {
        let batch = around.batch;
        let layout = self.layout(batch, own_keys(batch), around.pass);
        let q = self.queries(x.clone(), &batch.positions);
        let (k, _) = self.own_keys_and_values(x, batch);
        ops::attention_probabilities(q, k, around.bias.clone(), &layout)
    }

    /// Probabilities over another stack's output: per sequence `[n_heads, T, S]`, one after another.
    pub fn cross_probabilities(
        &self,
        x: Tensor<2>,
        memory: &Memory,
        around: &Surroundings<'_>,
    ) -> Vec<f32> {
        let layout = self.layout(around.batch, &memory.cu_seqlens, around.pass);
        let k = self.key.forward(memory.states.clone());
        ops::attention_probabilities(self.query.forward(x), k, None, &layout)
    }

    /// Operations of a token that sees `context` tokens' worth of sequence, multiply-adds counted as two: products, and the
    /// attention itself for the keys that are visible on average.
    pub fn flops(&self, context: usize) -> u64 {
        let config = &self.config;
        let products: u64 = [&self.query, &self.key, &self.value, &self.output]
            .iter()
            .map(|linear| linear.products())
            .sum();
        let visible = match config.mask {
            Mask::Full => context,
            Mask::Causal => context / 2,
            Mask::Strided { stride } => context / (2 * stride.max(1)),
            Mask::Window { left, right } => (left + right + 1).min(context),
        };
        2 * products + 4 * (config.n_heads * config.d_head * visible) as u64
    }

    fn queries(&self, x: Tensor<2>, positions: &Arc<[u32]>) -> Tensor<2> {
        self.turn(self.query.forward(x), positions)
    }

    fn own_keys_and_values(&self, x: Tensor<2>, batch: &PackedBatch) -> (Tensor<2>, Tensor<2>) {
        let (x, positions) = match &batch.keys {
            Some(keys) => {
                let positions = keys.rows.iter().map(|row| batch.positions[*row as usize]);
                let positions = positions.collect();
                (ops::gather_rows(x, Arc::clone(&keys.rows)), positions)
            }
            None => (x, Arc::clone(&batch.positions)),
        };
        let k = self.turn(self.key.forward(x.clone()), &positions);
        (k, self.value.forward(x))
    }

    fn turn(&self, x: Tensor<2>, positions: &Arc<[u32]>) -> Tensor<2> {
        match &self.config.positions {
            Positions::Outside => x,
            Positions::Rotary(rotary) => {
                ops::rotary(x, rotary.layout(positions, self.config.d_head))
            }
        }
    }

    fn append(&self, k: Tensor<2>, v: Tensor<2>, cu: &[u32], caches: &mut [SequenceCache]) {
        let width = self.config.n_kv_heads * self.config.d_head;
        let (k, v) = (Stored::from(k), Stored::from(v));
        // Rotated keys come in f32 from a model that computes in bf16; they are rounded like all that it keeps.
        let narrow = k.is_narrow() || v.is_narrow();
        for (cache, w) in caches.iter_mut().zip(cu.windows(2)) {
            let rows = w[0] as usize * width..w[1] as usize * width;
            cache.k.begin(narrow);
            cache.v.begin(narrow);
            cache.k.extend_from(&k, rows.clone());
            cache.v.extend_from(&v, rows);
        }
    }

    fn slices<'c>(&self, caches: impl Iterator<Item = &'c SequenceCache>) -> Vec<KvSlices<'c>> {
        let width = self.config.n_kv_heads * self.config.d_head;
        let slices = caches.map(|cache| KvSlices {
            k: cache.k.values(),
            v: cache.v.values(),
            len: cache.k.len() / width,
        });
        slices.collect()
    }

    fn layout(&self, batch: &PackedBatch, cu_k: &Arc<[u32]>, pass: &Pass) -> AttentionLayout {
        let config = &self.config;
        AttentionLayout {
            cu_q: Arc::clone(&batch.cu_seqlens),
            cu_k: Arc::clone(cu_k),
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

/// Boundaries of a batch's own keys.
fn own_keys(batch: &PackedBatch) -> &Arc<[u32]> {
    (batch.keys.as_ref()).map_or(&batch.cu_seqlens, |keys| &keys.cu_seqlens)
}
