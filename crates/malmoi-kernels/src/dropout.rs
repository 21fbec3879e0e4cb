//! Dropout (Srivastava et al. 2014) whose mask is a function of a key and the position, so that the backward pass draws
//! it again instead of storing it.

use crate::random::{Key, philox_lanes};
use crate::simd::{Simd, dispatched};
use crate::threads::{SharedMut, for_each};

#[cfg(test)]
mod tests;

/// `y[i] = x[i] / (1 - p)` with probability 1 - p, else 0. The backward pass is the same function on the gradient.
///
/// Element `i` is dropped when `key.u32_at(i)` is below p · 2^32.
///
/// # Panics
/// When the lengths differ or `p` is not in `[0, 1)`.
pub fn dropout_forward(x: &[f32], p: f32, key: Key, y: &mut [f32]) {
    assert_eq!(
        x.len(),
        y.len(),
        "dropout_forward: x and y have the same length"
    );
    check_probability(p);
    apply(x, None, p, key, y);
}

/// `y = dropout(x) + residual`.
///
/// # Panics
/// When the lengths differ or `p` is not in `[0, 1)`.
pub fn add_dropout_residual(x: &[f32], residual: &[f32], p: f32, key: Key, y: &mut [f32]) {
    assert_eq!(
        x.len(),
        y.len(),
        "add_dropout_residual: x and y have the same length"
    );
    assert_eq!(
        residual.len(),
        y.len(),
        "add_dropout_residual: residual and y have the same length"
    );
    check_probability(p);
    apply(x, Some(residual), p, key, y);
}

/// Words below this are dropped.
pub(crate) fn threshold(p: f32) -> u32 {
    (f64::from(p) * 4_294_967_296.0) as u32
}

/// What survivors are multiplied by.
pub(crate) fn survivor_scale(p: f32) -> f32 {
    (1.0 / (1.0 - f64::from(p))) as f32
}

pub(crate) fn check_probability(p: f32) {
    assert!(
        (0.0..1.0).contains(&p),
        "a dropout probability lies in [0, 1), found {p}"
    );
}

/// Elements in a piece of work.
const CHUNK: usize = 16_384;
/// Philox blocks drawn at once; four words each.
const BLOCKS: usize = 16;

/// Elements `first ..` (a multiple of 4) of a longer array; on the calling thread.
pub(crate) fn apply_from(
    x: &[f32],
    residual: Option<&[f32]>,
    p: f32,
    key: Key,
    first: usize,
    y: &mut [f32],
) {
    check_probability(p);
    debug_assert!(first.is_multiple_of(4) && x.len() == y.len());
    let draws = Draws {
        key,
        block: (first / 4) as u64,
        limit: threshold(p),
        scale: survivor_scale(p),
    };
    chunk(x, residual, draws, y);
}

fn apply(x: &[f32], residual: Option<&[f32]>, p: f32, key: Key, y: &mut [f32]) {
    let out = SharedMut::new(y);
    for_each(x.len().div_ceil(CHUNK), CHUNK * 4, |index| {
        let at = index * CHUNK..((index + 1) * CHUNK).min(x.len());
        // SAFETY: every index has its own chunk.
        let y = unsafe { out.slice(at.start, at.len()) };
        let residual = residual.map(|r| &r[at.clone()]);
        let draws = Draws {
            key,
            block: (at.start / 4) as u64,
            limit: threshold(p),
            scale: survivor_scale(p),
        };
        chunk(&x[at], residual, draws, y);
    });
}

/// The draws of a chunk: from Philox block `block` on.
#[derive(Clone, Copy)]
struct Draws {
    key: Key,
    block: u64,
    limit: u32,
    scale: f32,
}

dispatched!(fn chunk = chunk_on(x: &[f32], residual: Option<&[f32]>, draws: Draws, y: &mut [f32]));

#[inline(always)]
fn chunk_on<S: Simd>(_: S, x: &[f32], residual: Option<&[f32]>, draws: Draws, y: &mut [f32]) {
    let mut factors = [0.0_f32; 4 * BLOCKS];
    let mut block = draws.block;
    for (i, y) in y.chunks_mut(4 * BLOCKS).enumerate() {
        let at = i * 4 * BLOCKS;
        let words = philox_lanes::<BLOCKS>(
            [
                std::array::from_fn(|lane| (block + lane as u64) as u32),
                std::array::from_fn(|lane| ((block + lane as u64) >> 32) as u32),
                [draws.key.stream[0]; BLOCKS],
                [draws.key.stream[1]; BLOCKS],
            ],
            draws.key.words,
        );
        for lane in 0..BLOCKS {
            for word in 0..4 {
                factors[4 * lane + word] = if words[word][lane] < draws.limit {
                    0.0
                } else {
                    draws.scale
                };
            }
        }
        let x = &x[at..][..y.len()];
        if let Some(residual) = residual {
            for (((y, x), factor), r) in y.iter_mut().zip(x).zip(&factors).zip(&residual[at..]) {
                *y = drop_or_scale(*x, *factor) + r;
            }
        } else {
            for ((y, x), factor) in y.iter_mut().zip(x).zip(&factors) {
                *y = drop_or_scale(*x, *factor);
            }
        }
        block += BLOCKS as u64;
    }
}

/// A dropped element is 0 even when it is infinite.
#[inline(always)]
fn drop_or_scale(x: f32, factor: f32) -> f32 {
    if factor == 0.0 { 0.0 } else { x * factor }
}
