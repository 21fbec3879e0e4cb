//! Optimiser steps over raw slices, in place.

pub use crate::reduce::{all_finite, sum_of_squares};
use crate::simd::{Simd, dispatched, read, vectors, write};
use crate::threads::{SharedMut, chunks_mut, for_each};

#[cfg(test)]
mod tests;

/// The hyperparameters of one AdamW step (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The number of this step, from 1.
    pub step: u64,
}

/// The scalars of a step, rounded to f32 once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalars {
    pub(crate) keep: f32,
    pub(crate) one_minus_beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) one_minus_beta2: f32,
    pub(crate) root_correction2: f32,
    pub(crate) eps: f32,
    pub(crate) step_size: f32,
}

impl AdamW {
    pub(crate) fn scalars(&self) -> Scalars {
        let steps = self.step as f64;
        let correction1 = 1.0 - self.beta1.powf(steps);
        let correction2 = 1.0 - self.beta2.powf(steps);
        Scalars {
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            root_correction2: correction2.sqrt() as f32,
            eps: self.eps as f32,
            step_size: (self.lr / correction1) as f32,
        }
    }
}

/// One AdamW step in place: parameter `p`, gradient `g`, first moment `m`, second moment `v`.
///
/// In the order of PyTorch's single-tensor form: `p *= 1 - lr·wd; m += (1-β1)(g - m); v = β2·v + (1-β2)·g²;
/// p -= lr/(1-β1^t) · m / (√v / √(1-β2^t) + eps)`.
///
/// # Panics
/// When the lengths differ or `step` is 0.
pub fn adamw_step(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], options: AdamW) {
    assert_eq!(p.len(), g.len(), "adamw_step: one gradient a parameter");
    assert_eq!(p.len(), m.len(), "adamw_step: one first moment a parameter");
    assert_eq!(
        p.len(),
        v.len(),
        "adamw_step: one second moment a parameter"
    );
    assert!(options.step > 0, "adamw_step: steps are counted from 1");
    let scalars = options.scalars();
    let n = p.len();
    let (p, m, v) = (SharedMut::new(p), SharedMut::new(m), SharedMut::new(v));
    for_each(n.div_ceil(CHUNK), CHUNK * 4, |index| {
        let at = index * CHUNK..((index + 1) * CHUNK).min(n);
        // SAFETY: every index has its own chunk of each array.
        let chunk = |data: SharedMut| unsafe { data.slice(at.start, at.len()) };
        adamw_chunk(chunk(p), &g[at.clone()], chunk(m), chunk(v), scalars);
    });
}

/// `x *= factor`.
pub fn scale_in_place(x: &mut [f32], factor: f32) {
    chunks_mut(x, CHUNK, 1, |_, x| scale_chunk(x, factor));
}

/// `x += y`.
///
/// # Panics
/// When the lengths differ.
pub fn add_in_place(x: &mut [f32], y: &[f32]) {
    assert_eq!(
        x.len(),
        y.len(),
        "add_in_place: both slices have the same length"
    );
    chunks_mut(x, CHUNK, 1, |at, x| add_chunk(x, &y[at..]));
}

/// Sets every element.
pub fn fill(x: &mut [f32], value: f32) {
    chunks_mut(x, CHUNK, 1, |_, x| x.fill(value));
}

/// Elements in a piece of work.
const CHUNK: usize = 16_384;

dispatched!(fn adamw_chunk = adamw_chunk_on(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], scalars: Scalars));
dispatched!(fn scale_chunk = scale_chunk_on(x: &mut [f32], factor: f32));
dispatched!(fn add_chunk = add_chunk_on(x: &mut [f32], y: &[f32]));

#[inline(always)]
fn adamw_chunk_on<S: Simd>(
    s: S,
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    scalars: Scalars,
) {
    let keep = s.splat(scalars.keep);
    let one_minus_beta1 = s.splat(scalars.one_minus_beta1);
    let beta2 = s.splat(scalars.beta2);
    let one_minus_beta2 = s.splat(scalars.one_minus_beta2);
    let root_correction2 = s.splat(scalars.root_correction2);
    let eps = s.splat(scalars.eps);
    let step_size = s.splat(scalars.step_size);
    vectors!(s, p.len(), |i| {
        let g = read(s, g, i);
        let first = read(s, m, i);
        let first = s.fma(one_minus_beta1, s.sub(g, first), first);
        let second = s.mul(read(s, v, i), beta2);
        let second = s.fma(s.mul(one_minus_beta2, g), g, second);
        let denominator = s.add(s.div(s.sqrt(second), root_correction2), eps);
        let kept = s.mul(read(s, p, i), keep);
        write(s, m, i, first);
        write(s, v, i, second);
        write(s, p, i, s.fnma(step_size, s.div(first, denominator), kept));
    });
}

#[inline(always)]
fn scale_chunk_on<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    vectors!(s, x.len(), |i| {
        let scaled = s.mul(read(s, x, i), factor);
        write(s, x, i, scaled);
    });
}

#[inline(always)]
fn add_chunk_on<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    let y = &y[..x.len()];
    vectors!(s, x.len(), |i| {
        let sum = s.add(read(s, x, i), read(s, y, i));
        write(s, x, i, sum);
    });
}
