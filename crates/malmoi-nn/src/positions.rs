//! Position schemes that are not a learned table: sinusoids, rotary angles, relative buckets and linear biases.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use malmoi_kernels::rotary::Pairs;

use crate::batch::PackedBatch;
use crate::host;
use crate::layers::parameter;
use crate::ops::{self, RotaryLayout};

/// How a sinusoid table is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sinusoid {
    /// sin, cos, sin, cos, … (Vaswani et al., 2017, section 3.5).
    Interleaved,
    /// All sines, then all cosines.
    Concatenated,
}

/// `sin(p / 10000^(2i/d))` and `cos(p / 10000^(2i/d))` for `n` positions: `[n, d]`.
///
/// # Panics
/// When `d` is odd.
pub fn sinusoids(n: usize, d: usize, layout: Sinusoid) -> Vec<f32> {
    assert!(
        d.is_multiple_of(2),
        "sinusoids come in pairs, but the width is {d}"
    );
    let mut table = vec![0.0; n * d];
    for (position, row) in table.chunks_exact_mut(d.max(1)).enumerate() {
        for i in 0..d / 2 {
            let angle = position as f64 / 10_000_f64.powf(2.0 * i as f64 / d as f64);
            let (sin, cos) = match layout {
                Sinusoid::Interleaved => (2 * i, 2 * i + 1),
                Sinusoid::Concatenated => (i, d / 2 + i),
            };
            row[sin] = angle.sin() as f32;
            row[cos] = angle.cos() as f32;
        }
    }
    table
}

/// A table of sinusoids that grows with the positions asked for. Clones share it.
#[derive(Clone, Debug)]
pub struct Sinusoids {
    d: usize,
    layout: Sinusoid,
    table: Arc<Mutex<Arc<Vec<f32>>>>,
}

impl Sinusoids {
    /// Sinusoids of width `d`, which is even.
    pub fn new(d: usize, layout: Sinusoid) -> Self {
        Self {
            d,
            layout,
            table: Arc::default(),
        }
    }

    /// The vector of each position: `[N, d]`.
    pub fn rows(&self, positions: &[u32]) -> Tensor<2> {
        let needed = positions.iter().max().map_or(0, |p| *p as usize + 1);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() < needed * self.d {
            let n = needed.next_power_of_two();
            *table = Arc::new(sinusoids(n, self.d, self.layout));
        }
        let rows = positions
            .iter()
            .flat_map(|p| &table[*p as usize * self.d..][..self.d]);
        host::tensor(rows.copied().collect(), [positions.len(), self.d])
    }
}

/// Cosines and sines of positions, `[positions, d_rotary / 2]` each.
pub type Angles = (Vec<f32>, Vec<f32>);

/// Rotary positions of an attention layer. Clones share their table of angles, so that the layers of a model compute it once.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// Turns a position of each pair of elements, `[d_rotary / 2]`.
    pub frequencies: Arc<[f32]>,
    /// Factor on cosines and sines; 1 except where long contexts were trained with another (Peng et al., 2023, "YaRN").
    pub amplitude: f32,
    /// Which elements turn together.
    pub pairs: Pairs,
    angles: Arc<Mutex<Arc<Angles>>>,
}

impl PartialEq for Rotary {
    fn eq(&self, other: &Self) -> bool {
        self.frequencies == other.frequencies
            && self.amplitude.to_bits() == other.amplitude.to_bits()
            && self.pairs == other.pairs
    }
}

impl Rotary {
    /// The first `d_rotary` elements of a head turn, pair i by `theta^(-2i / d_rotary)` a position.
    pub fn new(theta: f32, d_rotary: usize, pairs: Pairs) -> Self {
        // In f32 step by step, as the tables of published models are computed: at far positions the rounding shows.
        let frequency = |i: usize| 1.0 / theta.powf((2 * i) as f32 / d_rotary as f32);
        Self::with_frequencies((0..d_rotary / 2).map(frequency).collect(), pairs)
    }

    /// The same with frequencies of one's own (for contexts longer than a model was trained with).
    pub fn with_frequencies(frequencies: Arc<[f32]>, pairs: Pairs) -> Self {
        Self {
            frequencies,
            amplitude: 1.0,
            pairs,
            angles: Arc::default(),
        }
    }

    /// The angles of all positions of a batch.
    pub(crate) fn layout(&self, positions: &Arc<[u32]>, d_head: usize) -> RotaryLayout {
        let half = self.frequencies.len();
        let needed = positions.iter().max().map_or(0, |p| *p as usize + 1);
        let mut held = self.angles.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0.len() < needed * half {
            // Doubled, so that generating token by token does not compute it anew at each.
            let angles = (0..needed.next_power_of_two()).flat_map(|position| {
                (self.frequencies.iter()).map(move |f| f64::from(position as f32 * f).sin_cos())
            });
            let amplitude = f64::from(self.amplitude);
            *held = Arc::new(
                angles
                    .map(|(sin, cos)| ((amplitude * cos) as f32, (amplitude * sin) as f32))
                    .unzip(),
            );
        }
        RotaryLayout {
            positions: Arc::clone(positions),
            angles: Arc::clone(&held),
            d_rotary: 2 * half,
            d_head,
            pairs: self.pairs,
        }
    }
}

/// How an attention layer itself knows positions. What enters with the embeddings is none of its business.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// It does not: they enter with the embeddings, or as a bias that the whole stack shares.
    Outside,
    /// Queries and keys are turned.
    Rotary(Rotary),
}

/// Which distances a stack tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    /// Keys on both sides of a query, each with buckets of its own (an encoder).
    Both,
    /// Keys before the query (a decoder).
    Left,
}

/// The bucket of a key `distance` positions after the query (before it, when negative), of `n_buckets`: half of a side's buckets hold
/// one distance each, the others grow with its logarithm up to `max_distance` (Raffel et al., 2020, section 2.1).
pub fn relative_bucket(distance: i64, sides: Sides, n_buckets: usize, max_distance: usize) -> u32 {
    let (buckets, first, distance) = match sides {
        Sides::Both => {
            let half = n_buckets / 2;
            let first = if distance > 0 { half } else { 0 };
            (half, first, distance.unsigned_abs() as usize)
        }
        Sides::Left => (n_buckets, 0, (-distance).max(0) as usize),
    };
    let exact = buckets / 2;
    if distance < exact {
        return (first + distance) as u32;
    }
    // In f32 and in this order, as published: a bucket's edge can fall on a rounding.
    let exact = exact.max(1);
    let ratio = (distance as f32 / exact as f32).ln();
    let range = (max_distance as f64 / exact as f64).ln() as f32;
    let steps = (ratio / range * (buckets - exact.min(buckets)) as f32) as usize;
    (first + (exact + steps).min(buckets.saturating_sub(1))) as u32
}

/// A learned bias a bucket and head, shared by the layers of a stack.
#[derive(Module, Debug)]
pub struct RelativeBias {
    /// `[n_buckets, n_heads]`.
    pub weight: Param<Tensor<2>>,
    #[module(skip)]
    sides: Sides,
    #[module(skip)]
    max_distance: usize,
}

impl RelativeBias {
    /// A table with values yet to be filled.
    pub fn new(n_buckets: usize, n_heads: usize, max_distance: usize, sides: Sides) -> Self {
        Self {
            weight: parameter([n_buckets, n_heads], 0.0),
            sides,
            max_distance,
        }
    }

    fn by_distance(&self, reach: usize) -> Tensor<2> {
        let n_buckets = self.weight.lazy_shape()[0];
        // In the order of `malmoi_kernels::attention::Bias`: from the key furthest after the query to the one furthest before.
        let buckets = (1 - reach as i64..reach as i64)
            .map(|before| relative_bucket(-before, self.sides, n_buckets, self.max_distance));
        ops::bias_of_buckets(self.weight.val(), buckets.collect())
    }
}

/// Slopes of linear biases, one a head (Press et al., 2022, "ALiBi"): a geometric series that starts at its own ratio `2^(-8/n)`;
/// for a number of heads that is no power of two, that of the next smaller one and every other slope of the next larger one.
pub fn alibi_slopes(n_heads: usize) -> Vec<f32> {
    let series = |n: usize| (1..=n).map(move |i| 2_f64.powf(-8.0 * i as f64 / n as f64) as f32);
    if n_heads.is_power_of_two() {
        return series(n_heads).collect();
    }
    let below = (n_heads + 1).next_power_of_two() / 2;
    let rest = series(2 * below).step_by(2).take(n_heads - below);
    series(below).chain(rest).collect()
}

/// What is added to the scores of every layer of a stack.
#[derive(Clone, Copy, Debug)]
pub enum PositionBias<'a> {
    /// Nothing.
    None,
    /// Learned biases by bucket of distance.
    Relative(&'a RelativeBias),
    /// `-slope · distance`, fixed; see [`alibi_slopes`].
    Linear {
        /// Query heads.
        n_heads: usize,
    },
}

impl PositionBias<'_> {
    /// The bias for sequences whose distances stay below `reach`: `[n_heads, 2·reach - 1]`.
    pub fn tensor(self, reach: usize) -> Option<Tensor<2>> {
        match self {
            Self::None => None,
            Self::Relative(table) => Some(table.by_distance(reach)),
            Self::Linear { n_heads } => {
                let distances = 1 - reach as i64..reach as i64;
                let values = alibi_slopes(n_heads).into_iter().flat_map(|slope| {
                    (distances.clone()).map(move |before| -slope * before.abs() as f32)
                });
                let width = 2 * reach - 1;
                Some(host::tensor(values.collect(), [n_heads, width]))
            }
        }
    }
}

/// The length of the longest sequence of a batch, with what `before` has of each.
pub(crate) fn reach(batch: &PackedBatch, before: &[usize]) -> usize {
    let longest = batch
        .sequences()
        .enumerate()
        .map(|(i, rows)| rows.len() + before.get(i).copied().unwrap_or(0));
    longest.max().unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_follow_the_paper() {
        assert_eq!(alibi_slopes(1), [2_f32.powi(-8)]);
        assert_eq!(alibi_slopes(2), [2_f32.powi(-4), 2_f32.powi(-8)]);
        let eight: Vec<f32> = (1..=8).map(|i| 2_f32.powi(-i)).collect();
        assert_eq!(alibi_slopes(8), eight);
        // Three heads: two of the series for two, one of the series for four.
        assert_eq!(
            alibi_slopes(3),
            [2_f32.powi(-4), 2_f32.powi(-8), 2_f32.powi(-2)]
        );
        assert_eq!(alibi_slopes(12).len(), 12);
    }

    #[test]
    fn buckets_are_exact_near_and_logarithmic_far() {
        let bucket = |d| relative_bucket(d, Sides::Both, 32, 128);
        assert_eq!([bucket(0), bucket(-1), bucket(-7)], [0, 1, 7]);
        assert_eq!([bucket(1), bucket(7), bucket(1000)], [17, 23, 31]);
        assert_eq!(bucket(-1000), 15);
        let left = |d| relative_bucket(d, Sides::Left, 32, 128);
        assert_eq!([left(5), left(0), left(-15), left(-500)], [0, 0, 15, 31]);
        // Tables too small for two sides still have a bucket for everything.
        for n_buckets in 1..5 {
            for distance in -9..9 {
                for sides in [Sides::Both, Sides::Left] {
                    let bucket = relative_bucket(distance, sides, n_buckets, 4);
                    assert!((bucket as usize) < n_buckets, "{distance} of {n_buckets}");
                }
            }
        }
    }

    #[test]
    fn the_table_of_angles_grows_and_is_shared() {
        let rotary = Rotary::new(10_000.0, 8, Pairs::Halves);
        let twin = rotary.clone();
        let short = rotary.layout(&[0, 1].into(), 8);
        let long = twin.layout(&[5].into(), 8);
        assert_eq!(short.angles.0.len(), 2 * 4);
        assert_eq!(long.angles.0.len(), 8 * 4);
        assert!(Arc::ptr_eq(
            &long.angles,
            &rotary.layout(&[7].into(), 8).angles
        ));
        assert!((long.angles.1[5 * 4] - 5_f32.sin()).abs() < 1e-6);
    }

    #[test]
    fn sinusoids_start_with_zeros_and_ones() {
        let table = sinusoids(2, 4, Sinusoid::Interleaved);
        assert_eq!(table[..4], [0.0, 1.0, 0.0, 1.0]);
        assert!((table[4] - 1_f32.sin()).abs() < 1e-7);
        let concatenated = sinusoids(2, 4, Sinusoid::Concatenated);
        assert_eq!(concatenated[4], table[4]);
        assert_eq!(concatenated[6], table[5]);
    }
}
