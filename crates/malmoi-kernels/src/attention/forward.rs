//! The forward pass. A block of queries meets all its keys at once: its scores (`NR` queries by the keys, 128 KB for 1,024 keys) stay
//! in the second-level cache, so the softmax is exact and needs no rescaling, and nothing grows with the square of the length.

use super::AttentionShape;
use super::block::{Block, Head, LeftPanels, MAX_NR, RightPanels, transposed_on};
use crate::scratch::scratch;
use crate::simd::{Simd, dispatched, math, read, vectors, write};
use crate::threads::{self, SharedMut, for_each};
use std::ops::Range;

/// Queries that share one packing of keys and values: whole blocks, so that results do not depend on the choice.
const QUERIES: usize = 256;
/// The same where every thread would get fewer than four pieces of work otherwise.
const QUERIES_OF_FEW: usize = 128;

#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub(super) shape: &'a AttentionShape<'a>,
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) out: SharedMut,
    pub(super) lse: SharedMut,
}

/// Computes all heads of all sequences.
pub(super) fn run(work: Forward) {
    let shape = work.shape;
    let lengths = (0..shape.n_sequences()).map(|s| shape.queries_of(s).len());
    let pieces = shape.n_heads * lengths.map(|n| n.div_ceil(QUERIES)).sum::<usize>();
    let together = if pieces < 4 * threads::count() {
        QUERIES_OF_FEW
    } else {
        QUERIES
    };
    let mut items = Vec::new();
    let mut cost = 0;
    for sequence in 0..shape.n_sequences() {
        let (nq, nk) = (
            shape.queries_of(sequence).len(),
            shape.keys_of(sequence).len(),
        );
        for q0 in (0..nq).step_by(together) {
            let queries = q0..(q0 + together).min(nq);
            items.extend((0..shape.n_heads).map(|head| (sequence, head, queries.clone())));
        }
        // Two products and an exponential; eight multiply-adds take the time of one plain operation.
        cost += shape.n_heads * nq * nk * (2 * shape.d_head / 8 + 2);
    }
    for_each(items.len(), cost / items.len().max(1), |index| {
        let (sequence, head, ref these) = items[index];
        queries(work, Head::new(shape, sequence, head), these);
    });
}

dispatched!(fn queries = queries_on(work: Forward, head: Head, these: &Range<usize>));

/// Some queries of one head.
#[inline(always)]
fn queries_on<S: Simd>(s: S, work: Forward, head: Head, these: &Range<usize>) {
    let shape = work.shape;
    let d = shape.d_head;
    // Keys that no query of these sees are not packed at the end; at the start they are, to keep places simple.
    let visible = shape.mask.keys_of(these.end - 1, head.nq, head.nk).end;
    let keys = LeftPanels::pack_on(s, head.keys(work.k, shape.k_stride).first_rows(visible));
    let values = RightPanels::pack_on(s, head.keys(work.v, shape.v_stride).first_rows(visible));
    let mut queries = scratch(d * S::NR);
    let width = d.next_multiple_of(S::NR);
    let mut out = scratch(S::NR * width);
    let mut scores = scratch(head.nk * S::NR);
    let mut factors = scratch(if shape.dropout.is_some() {
        head.nk * S::NR
    } else {
        0
    });
    for q in these.clone().step_by(S::NR) {
        let block = Block::new_on(s, head, q);
        transposed_on(
            s,
            head.queries(work.q, shape.q_stride, q, block.n),
            shape.scale,
            &mut queries,
        );
        keys.times_on(s, block.lo, block.hi, &queries, &mut scores);
        block.bias_and_mask_on(s, &mut scores);
        let (max, sum) = exponentials_on(s, &mut scores[..block.keys() * S::NR]);
        if let Some(dropout) = shape.dropout {
            block.dropout_factors_on(s, dropout, &mut factors);
            let n = block.keys() * S::NR;
            vectors!(s, n, |i| {
                let dropped = s.mul(read(s, &scores[..n], i), read(s, &factors[..n], i));
                write(s, &mut scores[..n], i, dropped);
            });
        }
        values.times_columns_on(s, &scores, block.keys(), block.lo, block.n, &mut out);
        for lane in 0..block.n {
            // A query that sees no key has a sum of 0; not-a-number passes on.
            let empty = sum[lane] == 0.0;
            let factor = s.splat(if empty { 0.0 } else { 1.0 / sum[lane] });
            let row = shape.queries_of(head.sequence).start + q + lane;
            // SAFETY: this piece of work alone has these queries of this head.
            let to = unsafe { work.out.slice((row * shape.n_heads + head.head) * d, d) };
            let from = &out[lane * width..][..d];
            vectors!(s, d, |i| write(s, to, i, s.mul(read(s, from, i), factor)));
            // SAFETY: as above.
            let lse = unsafe { work.lse.slice(head.lse_at() + q + lane, 1) };
            lse[0] = if empty {
                f32::NEG_INFINITY
            } else {
                (f64::from(max[lane]) + f64::from(sum[lane]).ln()) as f32
            };
        }
    }
}

/// Replaces scores [keys, NR] by their exponentials relative to each query's maximum; gives maxima and sums.
#[inline(always)]
fn exponentials_on<S: Simd>(s: S, scores: &mut [f32]) -> ([f32; MAX_NR], [f32; MAX_NR]) {
    // The lowest finite number instead of minus infinity: a query that sees nothing gets exp(-∞) = 0, not ∞ - ∞.
    let mut max = [s.splat(f32::MIN); 2];
    for row in scores.chunks_exact(S::NR) {
        for (half, max) in max.iter_mut().enumerate() {
            *max = s.max(read(s, row, half * S::LANES), *max);
        }
    }
    let mut sum = [s.zero(); 2];
    for row in scores.chunks_exact_mut(S::NR) {
        for half in 0..2 {
            let score = read(s, row, half * S::LANES);
            let e = math::exp_finite(s, s.sub(score, max[half]));
            sum[half] = s.add(sum[half], e);
            write(s, row, half * S::LANES, e);
        }
    }
    let (mut maxima, mut sums) = ([0.0; MAX_NR], [0.0; MAX_NR]);
    for half in 0..2 {
        write(s, &mut maxima, half * S::LANES, max[half]);
        write(s, &mut sums, half * S::LANES, sum[half]);
    }
    (maxima, sums)
}
