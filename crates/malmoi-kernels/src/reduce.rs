//! Sums whose order is fixed by the shape.

use crate::scratch::scratch;
use crate::simd::{Simd, dispatched, read, vectors, write};
use crate::threads::{SharedMut, for_each};

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(test)]
mod tests;

/// The sum of all elements, accumulated in double precision.
#[must_use]
pub fn sum(x: &[f32]) -> f64 {
    in_parts(x.len(), |at| sum_part(&x[at]))
}

/// The mean of all elements; 0 for an empty slice.
#[must_use]
pub fn mean(x: &[f32]) -> f64 {
    if x.is_empty() {
        0.0
    } else {
        sum(x) / x.len() as f64
    }
}

/// The sum of squares, accumulated in double precision. The global gradient norm is the root of a sum of these.
#[must_use]
pub fn sum_of_squares(x: &[f32]) -> f64 {
    in_parts(x.len(), |at| dot_part(&x[at.clone()], &x[at]))
}

/// The sum of products, accumulated in double precision.
///
/// # Panics
/// When the lengths differ.
#[must_use]
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len(), "dot: both slices have the same length");
    in_parts(x.len(), |at| dot_part(&x[at.clone()], &y[at]))
}

/// Sums the rows of `x` [n, d] into `out` `[d]`, added to what it holds when `accumulate`.
///
/// # Panics
/// When `x` is not made of rows as wide as `out`.
pub fn sum_rows(x: &[f32], out: &mut [f32], accumulate: bool) {
    assert!(
        out.is_empty() && x.is_empty() || !out.is_empty() && x.len().is_multiple_of(out.len()),
        "sum_rows: x is made of rows of {}",
        out.len()
    );
    if !accumulate {
        out.fill(0.0);
    }
    let d = out.len();
    if x.is_empty() {
        return;
    }
    // Each piece sums its rows, then at most 32 pieces are added in order.
    let n = x.len() / d;
    let rows = n.div_ceil(32).max(8);
    let pieces = n.div_ceil(rows);
    let mut partial = scratch(pieces * d);
    let shared = SharedMut::new(&mut partial);
    for_each(pieces, rows * d, |index| {
        // SAFETY: every piece has its own part.
        let part = unsafe { shared.slice(index * d, d) };
        part.fill(0.0);
        add_rows(
            &x[index * rows * d..((index + 1) * rows * d).min(x.len())],
            part,
        );
    });
    add_rows(&partial, out);
}

/// Whether no element is infinite or not a number.
#[must_use]
pub fn all_finite(x: &[f32]) -> bool {
    let bad = AtomicBool::new(false);
    for_each(x.len().div_ceil(PART), PART, |index| {
        if !all_finite_part(&x[index * PART..((index + 1) * PART).min(x.len())]) {
            bad.store(true, Ordering::Relaxed);
        }
    });
    !bad.into_inner()
}

/// Elements in a part of a sum.
const PART: usize = 65_536;

/// Adds the sums of parts of `0..n` in order.
fn in_parts(n: usize, part: impl Fn(Range<usize>) -> f64 + Sync + Send) -> f64 {
    let mut sums = vec![0.0; n.div_ceil(PART)];
    crate::threads::chunks_mut(&mut sums, 1, PART, |index, sum| {
        sum[0] = part(index * PART..((index + 1) * PART).min(n));
    });
    sums.iter().sum()
}

dispatched!(fn sum_part = sum_part_on(x: &[f32]) -> f64);
dispatched!(fn dot_part = dot_part_on(x: &[f32], y: &[f32]) -> f64);
dispatched!(fn add_rows = add_rows_on(x: &[f32], out: &mut [f32]));
dispatched!(fn all_finite_part = all_finite_part_on(x: &[f32]) -> bool);

/// Sums side by side, for the compiler to keep in vectors.
const WAYS: usize = 32;

#[inline(always)]
fn sum_part_on<S: Simd>(_: S, x: &[f32]) -> f64 {
    let mut sums = [0.0_f64; WAYS];
    let (whole, rest) = x.as_chunks::<WAYS>();
    for x in whole {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += f64::from(x);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x)).sum::<f64>()
}

#[inline(always)]
fn dot_part_on<S: Simd>(_: S, x: &[f32], y: &[f32]) -> f64 {
    let mut sums = [0.0_f64; WAYS];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<WAYS>(), y.as_chunks::<WAYS>());
    for (x, y) in x.iter().zip(y) {
        for ((sum, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *sum += f64::from(x) * f64::from(y);
        }
    }
    let rest: f64 = x_rest
        .iter()
        .zip(y_rest)
        .map(|(&x, &y)| f64::from(x) * f64::from(y))
        .sum();
    sums.iter().sum::<f64>() + rest
}

/// `out += Σ_rows x`.
#[inline(always)]
fn add_rows_on<S: Simd>(s: S, x: &[f32], out: &mut [f32]) {
    for row in x.chunks_exact(out.len()) {
        vectors!(s, out.len(), |i| {
            let sum = s.add(read(s, out, i), read(s, row, i));
            write(s, out, i, sum);
        });
    }
}

#[inline(always)]
fn all_finite_part_on<S: Simd>(_: S, x: &[f32]) -> bool {
    // Without an early exit the loop runs in vectors.
    const EXPONENT: u32 = 0x7F80_0000;
    !x.iter()
        .fold(false, |bad, x| bad | (x.to_bits() & EXPONENT == EXPONENT))
}
