//! Keys and values kept between the steps of generation.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use malmoi_kernels::mixed::{Values, bf16, to_bf16};

use crate::host;

/// Keys or values in the format that the model computes them in.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// The upper half of 32-bit floats.
    Bf16(Vec<bf16>),
}

impl Default for Stored {
    fn default() -> Self {
        Self::F32(Vec::new())
    }
}

/// Not copied when nothing else holds the tensor.
impl From<Tensor<2>> for Stored {
    fn from(tensor: Tensor<2>) -> Self {
        if tensor.dtype() == DType::BF16 {
            let data = tensor.inner().into_data();
            return Self::Bf16(data.try_into_vec().expect("a bf16 tensor"));
        }
        Self::F32(host::values(tensor))
    }
}

impl Stored {
    /// Nothing yet, with room for `len` values; `narrow` for a model that computes in bf16.
    pub fn with_room(len: usize, narrow: bool) -> Self {
        if narrow {
            Self::Bf16(Vec::with_capacity(len))
        } else {
            Self::F32(Vec::with_capacity(len))
        }
    }

    /// The values.
    pub fn values(&self) -> Values<'_> {
        match self {
            Self::F32(values) => Values::F32(values),
            Self::Bf16(values) => Values::Bf16(values),
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are in bf16.
    pub fn is_narrow(&self) -> bool {
        matches!(self, Self::Bf16(_))
    }

    /// Chooses the format, as long as there is nothing.
    pub fn begin(&mut self, narrow: bool) {
        if self.is_empty() && narrow != self.is_narrow() {
            *self = Self::with_room(0, narrow);
        }
    }

    /// Appends part of `other`. The format stays.
    pub fn extend_from(&mut self, other: &Self, range: Range<usize>) {
        match (&mut *self, other) {
            (Self::F32(values), Self::F32(more)) => values.extend_from_slice(&more[range]),
            (Self::Bf16(values), Self::Bf16(more)) => values.extend_from_slice(&more[range]),
            (Self::F32(values), Self::Bf16(more)) => {
                values.extend(more[range].iter().map(|value| value.to_f32()));
            }
            (Self::Bf16(values), Self::F32(more)) => {
                let start = values.len();
                values.resize(start + range.len(), bf16::ZERO);
                to_bf16(&more[range], &mut values[start..]);
            }
        }
    }

    fn truncate(&mut self, len: usize) {
        match self {
            Self::F32(values) => values.truncate(len),
            Self::Bf16(values) => values.truncate(len),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => values.capacity() * size_of::<f32>(),
            Self::Bf16(values) => values.capacity() * size_of::<bf16>(),
        }
    }
}

/// Keys and values of one sequence at one layer, `[T, n_kv_heads · d_head]` each.
#[derive(Clone, Debug, Default)]
pub struct SequenceCache {
    /// Keys.
    pub k: Stored,
    /// Values.
    pub v: Stored,
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

    /// Makes room for `len` keys and as many values in every layer of sequences that hold none; `narrow` for a model that computes
    /// in bf16.
    pub fn reserve(&mut self, len: usize, narrow: bool) {
        for sequence in self.layers.iter_mut().flatten() {
            debug_assert!(sequence.k.is_empty(), "a sequence that holds nothing");
            sequence.k = Stored::with_room(len, narrow);
            sequence.v = Stored::with_room(len, narrow);
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
        // A sequence is copied only where it is needed again.
        let mut uses = vec![0usize; self.lengths.len()];
        rows.iter().for_each(|&row| uses[row] += 1);
        for layer in &mut self.layers {
            let mut left = uses.clone();
            let kept = rows.iter().map(|&row| {
                left[row] -= 1;
                match left[row] {
                    0 => std::mem::take(&mut layer[row]),
                    _ => layer[row].clone(),
                }
            });
            *layer = kept.collect();
        }
        for layer in &mut self.cross {
            *layer = rows.iter().map(|&row| Arc::clone(&layer[row])).collect();
        }
        self.lengths = rows.iter().map(|&row| self.lengths[row]).collect();
    }

    /// Appends the sequences of another cache of the same model.
    ///
    /// # Panics
    /// When the numbers of layers differ.
    pub fn append(&mut self, other: Self) {
        assert_eq!(self.layers.len(), other.layers.len(), "caches of one model");
        for (layer, more) in self.layers.iter_mut().zip(other.layers) {
            layer.extend(more);
        }
        if self.lengths.is_empty() {
            self.cross = other.cross;
        } else {
            assert_eq!(self.cross.len(), other.cross.len(), "caches of one model");
            for (layer, more) in self.cross.iter_mut().zip(other.cross) {
                layer.extend(more);
            }
        }
        self.lengths.extend(other.lengths);
    }

    /// Takes the sequence `row` out as a cache of its own; those behind it move up.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn take(&mut self, row: usize) -> Self {
        Self {
            layers: (self.layers.iter_mut())
                .map(|layer| vec![layer.remove(row)])
                .collect(),
            cross: (self.cross.iter_mut())
                .map(|layer| vec![layer.remove(row)])
                .collect(),
            lengths: vec![self.lengths.remove(row)],
        }
    }

    /// Forgets all but the first `length` tokens of the sequence `row`.
    pub fn truncate(&mut self, row: usize, length: usize) {
        let held = self.lengths[row];
        if length >= held {
            return;
        }
        for sequence in self.layers.iter_mut().map(|layer| &mut layer[row]) {
            let width = sequence.k.len() / held;
            sequence.k.truncate(length * width);
            sequence.v.truncate(length * width);
        }
        self.lengths[row] = length;
    }

    /// A copy of the first `length` tokens of the sequence `row`, as a cache of its own with room for `room` tokens.
    pub fn prefix(&self, row: usize, length: usize, room: usize) -> Self {
        let held = self.lengths[row].max(1);
        let length = length.min(self.lengths[row]);
        let copied = |values: &Stored| {
            let width = values.len() / held;
            let room = room.max(length) * width;
            let mut copy = Stored::with_room(room, values.is_narrow());
            copy.extend_from(values, 0..length * width);
            copy
        };
        let layers = self.layers.iter().map(|layer| {
            vec![SequenceCache {
                k: copied(&layer[row].k),
                v: copied(&layer[row].v),
            }]
        });
        let cross = self.cross.iter().map(|layer| vec![Arc::clone(&layer[row])]);
        Self {
            layers: layers.collect(),
            cross: cross.collect(),
            lengths: vec![length],
        }
    }

    /// Bytes held; keys and values that several sequences share count once for each.
    pub fn bytes(&self) -> usize {
        let cross = self.cross.iter().flatten().map(Arc::as_ref);
        let sequences = self.layers.iter().flatten().chain(cross);
        sequences.map(|s| s.k.bytes() + s.v.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers of width 2; token t of sequence b holds 10·b + t.
    fn cache(lengths: &[usize]) -> KvCache {
        let mut cache = KvCache::new(2, lengths.len());
        for layer in &mut cache.layers {
            for (b, (sequence, &length)) in layer.iter_mut().zip(lengths).enumerate() {
                for t in 0..length {
                    let key = (10 * b + t) as f32;
                    let (k, v) = (Stored::F32(vec![key; 2]), Stored::F32(vec![-key; 2]));
                    sequence.k.extend_from(&k, 0..2);
                    sequence.v.extend_from(&v, 0..2);
                }
            }
        }
        let ends = lengths.iter().scan(0, |end, &length| {
            *end += length as u32;
            Some(*end)
        });
        let cu: Vec<u32> = std::iter::once(0).chain(ends).collect();
        cache.advance(&cu);
        cache
    }

    fn keys(cache: &KvCache) -> Vec<Vec<f32>> {
        let layer = &cache.layers[1];
        layer
            .iter()
            .map(|sequence| {
                sequence
                    .k
                    .values()
                    .to_f32()
                    .iter()
                    .step_by(2)
                    .copied()
                    .collect()
            })
            .collect()
    }

    #[test]
    fn rows_are_kept_repeated_and_dropped() {
        let mut rows = cache(&[1, 2, 3]);
        rows.select(&[2, 0, 2]);
        assert_eq!(rows.lengths(), [3, 1, 3]);
        assert_eq!(
            keys(&rows),
            [vec![20.0, 21.0, 22.0], vec![0.0], vec![20.0, 21.0, 22.0]]
        );
    }

    #[test]
    fn values_are_stored_in_the_format_that_was_chosen_at_first() {
        let (wide, narrow) = (
            Stored::F32(vec![1.0, 1.001, 3.0]),
            Stored::Bf16([0.5, 2.0, 4.0].map(bf16::from_f32).to_vec()),
        );
        let mut stored = Stored::default();
        stored.begin(true);
        stored.extend_from(&narrow, 1..3);
        stored.begin(false);
        stored.extend_from(&wide, 1..3);
        assert!(stored.bytes() < 4 * size_of::<f32>());
        // What comes in f32 later is rounded.
        let expected = [2.0, 4.0, 1.0, 3.0].map(bf16::from_f32);
        assert_eq!(stored, Stored::Bf16(expected.to_vec()));
        let mut stored = Stored::with_room(3, false);
        let room = stored.bytes();
        stored.begin(false);
        assert!(room > 0 && stored.bytes() == room);
        stored.extend_from(&wide, 0..1);
        stored.extend_from(&narrow, 0..1);
        stored.truncate(1);
        assert_eq!(stored, Stored::F32(vec![1.0]));
    }

    #[test]
    fn a_sequence_moves_from_cache_to_cache() {
        let mut from = cache(&[2, 1, 3]);
        let taken = from.take(1);
        assert_eq!((taken.lengths(), from.lengths()), (&[1][..], &[2, 3][..]));
        from.append(taken);
        assert_eq!(from.lengths(), [2, 3, 1]);
        assert_eq!(keys(&from)[2], [10.0]);
    }

    #[test]
    fn a_cache_is_cut_and_its_beginning_copied() {
        let mut rows = cache(&[3, 4]);
        let copy = rows.prefix(1, 2, 9);
        rows.truncate(1, 1);
        rows.truncate(0, 5);
        assert_eq!(rows.lengths(), [3, 1]);
        assert_eq!(keys(&rows)[1], [10.0]);
        assert_eq!(
            (copy.lengths(), keys(&copy)),
            (&[2][..], vec![vec![10.0, 11.0]])
        );
        assert!(copy.layers[0][0].v.bytes() >= 18 * size_of::<f32>());
    }
}
