//! Keys and values kept between the steps of generation.

use std::sync::Arc;

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
    /// The same of the source for cross-attention; empty for a decoder on its own. Beams of one source share it.
    pub cross: Vec<Vec<Arc<SequenceCache>>>,
    lengths: Vec<usize>,
}

impl KvCache {
    /// An empty cache for `n_sequences` sequences in `n_layers` layers.
    pub fn new(n_layers: usize, n_sequences: usize) -> Self {
        Self {
            layers: vec![vec![SequenceCache::default(); n_sequences]; n_layers],
            cross: Vec::new(),
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
        for layer in &mut self.cross {
            *layer = rows.iter().map(|&row| Arc::clone(&layer[row])).collect();
        }
        self.lengths = rows.iter().map(|&row| self.lengths[row]).collect();
    }

    /// Bytes held; keys and values that several sequences share count once for each.
    pub fn bytes(&self) -> usize {
        let cross = self.cross.iter().flatten().map(Arc::as_ref);
        let sequences = self.layers.iter().flatten().chain(cross);
        sequences
            .map(|s| (s.k.capacity() + s.v.capacity()) * size_of::<f32>())
            .sum()
    }
}
