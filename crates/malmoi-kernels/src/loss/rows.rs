//! Softmax and cross-entropy of rows.

use super::LossSum;
use crate::mixed::{self, bf16};
use crate::simd::{Simd, dispatched, math, read, vectors, write};
use crate::threads::{SharedMut, chunks_mut, for_each};

/// Elements in a piece of work.
const CHUNK: usize = 16_384;

fn rows_per_piece(d: usize) -> usize {
    CHUNK.div_ceil(d)
}

/// The loss alone.
pub(super) fn cross_entropy(
    logits: &[f32],
    vocab: usize,
    targets: &[u32],
    weights: &[f32],
) -> LossSum {
    sum_over_rows(vocab, targets, weights, |i| {
        let row = &logits[i * vocab..][..vocab];
        let (max, sum) = log_sum_exp(row);
        score(row, targets[i], weights[i], max, sum)
    })
}

/// The loss, and its gradient in the place of the logits; `finish` gets each row of it while it is in the cache.
pub(super) fn cross_entropy_in_place(
    logits: &mut [f32],
    vocab: usize,
    targets: &[u32],
    weights: &[f32],
    finish: impl Fn(&mut [f32]) + Sync + Send,
) -> LossSum {
    let shared = SharedMut::new(logits);
    sum_over_rows(vocab, targets, weights, |i| {
        // SAFETY: every row is visited once.
        let row = unsafe { shared.slice(i * vocab, vocab) };
        if weights[i] == 0.0 {
            row.fill(0.0);
            finish(row);
            return LossSum::default();
        }
        let max = maximum(row);
        let target = row[targets[i] as usize];
        let correct = is_first_maximum(row, targets[i], max);
        let sum = exponentials(row, max);
        scale_down(row, (f64::from(weights[i]) / sum) as f32);
        row[targets[i] as usize] -= weights[i];
        finish(row);
        outcome(target, correct, weights[i], max, sum)
    })
}

/// Rounds each row to bf16, as [`halve`].
pub(super) fn halve_rows(x: &mut [f32], d: usize) {
    let rows = rows_per_piece(d);
    chunks_mut(x, rows * d, 1, |_, x| x.chunks_mut(d).for_each(halve));
}

/// Rounds a row to bf16 values, which fill its first half.
pub(super) fn halve(row: &mut [f32]) {
    const RUN: usize = 64;
    let mut narrow = [bf16::ZERO; RUN];
    for start in (0..row.len()).step_by(RUN) {
        let run = RUN.min(row.len() - start);
        // Read before anything is written over it.
        mixed::narrow(&row[start..][..run], &mut narrow[..run]);
        let pairs = narrow[..run.next_multiple_of(2)].chunks_exact(2);
        for (to, pair) in row[start / 2..].iter_mut().zip(pairs) {
            *to = f32::from_bits(u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16);
        }
    }
}

/// Adds what `f` gives for each row with a weight (all rows when the gradient is asked for), pieces of rows in order.
fn sum_over_rows(
    vocab: usize,
    targets: &[u32],
    weights: &[f32],
    f: impl Fn(usize) -> LossSum + Sync + Send,
) -> LossSum {
    let m = targets.len();
    let rows = rows_per_piece(vocab);
    let mut sums = vec![LossSum::default(); m.div_ceil(rows)];
    chunks_mut(&mut sums, 1, rows * vocab * 4, |index, sum| {
        for i in index * rows..((index + 1) * rows).min(m) {
            sum[0] += f(i);
        }
    });
    let mut total = LossSum::default();
    for sum in sums {
        total += sum;
    }
    debug_assert_eq!(weights.len(), m);
    total
}

fn score(row: &[f32], target: u32, weight: f32, max: f32, sum: f64) -> LossSum {
    if weight == 0.0 {
        return LossSum::default();
    }
    let correct = is_first_maximum(row, target, max);
    outcome(row[target as usize], correct, weight, max, sum)
}

fn is_first_maximum(row: &[f32], target: u32, max: f32) -> bool {
    row[target as usize] == max && !row[..target as usize].contains(&max)
}

fn outcome(target: f32, correct: bool, weight: f32, max: f32, sum: f64) -> LossSum {
    let weight = f64::from(weight);
    LossSum {
        loss: weight * (sum.ln() + (f64::from(max) - f64::from(target))),
        weight,
        correct: if correct { weight } else { 0.0 },
    }
}

/// Softmax of each row.
pub(super) fn softmax(x: &[f32], d: usize, y: &mut [f32]) {
    for_rows(x, d, y, |x, y| {
        y.copy_from_slice(x);
        let max = maximum(y);
        let sum = exponentials(y, max);
        scale(y, (1.0 / sum) as f32);
    });
}

/// Logarithm of the softmax of each row.
pub(super) fn log_softmax(x: &[f32], d: usize, y: &mut [f32]) {
    for_rows(x, d, y, |x, y| {
        let (max, sum) = log_sum_exp(x);
        let log = sum.ln();
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (f64::from(x) - f64::from(max) - log) as f32;
        }
    });
}

fn for_rows(x: &[f32], d: usize, y: &mut [f32], f: impl Fn(&[f32], &mut [f32]) + Sync + Send) {
    let rows = rows_per_piece(d);
    let n = x.len() / d;
    let out = SharedMut::new(y);
    for_each(n.div_ceil(rows), rows * d * 4, |index| {
        for i in index * rows..((index + 1) * rows).min(n) {
            // SAFETY: every row is visited once.
            f(&x[i * d..][..d], unsafe { out.slice(i * d, d) });
        }
    });
}

dispatched!(
    /// The largest element; not-a-number when there is one in the row's maximum. At least the lowest finite number.
    fn maximum = maximum_on(row: &[f32]) -> f32
);
dispatched!(
    /// The maximum and the sum of exponentials relative to it.
    fn log_sum_exp = log_sum_exp_on(row: &[f32]) -> (f32, f64)
);
dispatched!(
    /// Replaces the row by exponentials relative to `max`; gives their sum.
    fn exponentials = exponentials_on(row: &mut [f32], max: f32) -> f64
);
dispatched!(fn scale = scale_on(row: &mut [f32], factor: f32));
dispatched!(
    /// [`scale`] with magnitudes below 2^-100 written as 0: no optimiser can tell, and subnormal numbers would slow the products
    /// that follow a hundredfold.
    fn scale_down = scale_down_on(row: &mut [f32], factor: f32)
);

#[inline(always)]
fn maximum_on<S: Simd>(s: S, row: &[f32]) -> f32 {
    let whole = row.len() - row.len() % S::LANES;
    let mut lanes = s.splat(f32::MIN);
    let mut i = 0;
    while i < whole {
        // The running maximum second: not-a-number in the data is passed over here and shows in the sum.
        lanes = s.max(read(s, row, i), lanes);
        i += S::LANES;
    }
    let mut all = [f32::MIN; 16];
    write(s, &mut all, 0, lanes);
    all.iter()
        .chain(&row[whole..])
        .fold(f32::MIN, |max, &x| if x > max { x } else { max })
}

/// Vectors summed in f32 before the sum goes to double precision.
const RUN: usize = 64;

#[inline(always)]
fn log_sum_exp_on<S: Simd>(s: S, row: &[f32]) -> (f32, f64) {
    let max = maximum_on(s, row);
    let shift = s.splat(max);
    let mut sum = 0.0;
    for run in row.chunks(RUN * S::LANES) {
        let whole = run.len() - run.len() % S::LANES;
        let mut lanes = s.zero();
        let mut i = 0;
        while i < whole {
            lanes = s.add(lanes, math::exp_finite(s, s.sub(read(s, run, i), shift)));
            i += S::LANES;
        }
        sum += f64::from(s.sum(lanes));
        if whole < run.len() {
            let mut last = [0.0_f32; 16];
            write(
                s,
                &mut last,
                0,
                math::exp_finite(s, s.sub(read(s, run, whole), shift)),
            );
            sum += last[..run.len() - whole]
                .iter()
                .map(|&e| f64::from(e))
                .sum::<f64>();
        }
    }
    (max, sum)
}

#[inline(always)]
fn exponentials_on<S: Simd>(s: S, row: &mut [f32], max: f32) -> f64 {
    let shift = s.splat(max);
    let mut sum = 0.0;
    for run in row.chunks_mut(RUN * S::LANES) {
        let whole = run.len() - run.len() % S::LANES;
        let mut lanes = s.zero();
        let mut i = 0;
        while i < whole {
            let e = math::exp_finite(s, s.sub(read(s, run, i), shift));
            lanes = s.add(lanes, e);
            write(s, run, i, e);
            i += S::LANES;
        }
        sum += f64::from(s.sum(lanes));
        if whole < run.len() {
            let e = math::exp_finite(s, s.sub(read(s, run, whole), shift));
            write(s, run, whole, e);
            sum += run[whole..].iter().map(|&e| f64::from(e)).sum::<f64>();
        }
    }
    sum
}

#[inline(always)]
fn scale_on<S: Simd>(s: S, row: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    vectors!(s, row.len(), |i| {
        let scaled = s.mul(read(s, row, i), factor);
        write(s, row, i, scaled);
    });
}

#[inline(always)]
fn scale_down_on<S: Simd>(s: S, row: &mut [f32], factor: f32) {
    // 2^-100
    let smallest = s.splat(7.888_609e-31);
    let factor = s.splat(factor);
    vectors!(s, row.len(), |i| {
        let scaled = s.mul(read(s, row, i), factor);
        write(
            s,
            row,
            i,
            s.select_lt(s.abs(scaled), smallest, s.zero(), scaled),
        );
    });
}
