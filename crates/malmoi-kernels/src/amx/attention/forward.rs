//! The forward pass.

use std::arch::x86_64::*;

use super::row::{LANES, Row, power};
use super::{Head, RightTiles};
use crate::amx::tiles::{Left, LeftRows, SUMS_ROW, Sums, store_bf16, store_product};
use crate::amx::{Amx, BLOCK, STEP_VALUES};
use crate::attention::AttentionShape;
use crate::dropout::survivor_scale;
use crate::mixed::bf16;
use crate::scratch::scratch;
use crate::simd::{Avx512, Simd};
use crate::threads::{SharedMut, for_each};

/// Queries that share one packing of keys and values: enough to make it cheap, few enough to give every thread work.
const QUERIES: usize = 256;

/// As [`crate::attention::attention_forward`], in bf16.
#[derive(Clone, Copy)]
pub(crate) struct Forward<'a> {
    pub(crate) shape: &'a AttentionShape<'a>,
    pub(crate) q: &'a [bf16],
    pub(crate) k: &'a [bf16],
    pub(crate) v: &'a [bf16],
    pub(crate) out: SharedMut<bf16>,
    pub(crate) lse: SharedMut,
}

/// Computes all heads of all sequences.
pub(crate) fn forward(amx: Amx, work: Forward) {
    let shape = work.shape;
    let mut items = Vec::new();
    let mut cost = 0;
    for sequence in 0..shape.n_sequences() {
        let (nq, nk) = (
            shape.queries_of(sequence).len(),
            shape.keys_of(sequence).len(),
        );
        for q0 in (0..nq).step_by(QUERIES) {
            items.extend((0..shape.n_heads).map(|head| (sequence, head, q0)));
        }
        cost += shape.n_heads * nq * nk * (2 + shape.d_head / 64);
    }
    for_each(items.len(), cost / items.len().max(1), |index| {
        let (sequence, head, q0) = items[index];
        let head = Head::new(shape, sequence, head);
        // SAFETY: the token says that the processor has the features.
        amx.with_tiles(|| unsafe { queries(work, head, q0) });
    });
}

/// One head, queries `q0 .. q0 + QUERIES`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn queries(work: Forward, head: Head, q0: usize) {
    let Some(s) = Avx512::new() else { return };
    let shape = work.shape;
    let d = shape.d_head;
    let end = (q0 + QUERIES).min(head.nq);
    // Keys that no query of these sees are not packed at the end; at the start they are, to keep places simple.
    let visible = shape.mask.keys_of(end - 1, head.nq, head.nk).end;
    // SAFETY: the features are there.
    let (keys, values) = unsafe {
        (
            RightTiles::pack(head.keys(work.k, shape.k_stride, visible).t()),
            RightTiles::pack(head.keys(work.v, shape.v_stride, visible)),
        )
    };
    let d_blocks = d.div_ceil(BLOCK);
    let mut left = LeftRows::new(head.queries(work.q, shape.q_stride, q0, end - q0), d_blocks);
    let blocks = visible.div_ceil(BLOCK);
    let mut scores = scratch(BLOCK * BLOCK * blocks);
    let mut probabilities = scratch(STEP_VALUES / 2 * blocks);
    let mut sums = Sums([0.0; BLOCK * BLOCK]);
    let mut kept = Vec::new();
    for q in (q0..end).step_by(BLOCK) {
        let count = BLOCK.min(end - q);
        let lower = count > 16;
        let seen = head.blocks(q, count);
        let row = seen.len() * BLOCK * 4;
        // SAFETY: the features are there; operands hold `d_blocks` steps, scores a row of `seen` blocks for every query.
        unsafe {
            let operand = left.rows(q - q0, count, 0..d_blocks);
            for (place, block) in seen.clone().enumerate() {
                store_product(
                    operand,
                    keys.at(block, 0),
                    d_blocks,
                    lower,
                    scores[place * BLOCK..].as_mut_ptr(),
                    row,
                );
            }
        }
        let mut factors = [0.0; BLOCK];
        for (lane, factor) in factors.iter_mut().enumerate().take(count) {
            let query = Row::new(head, q + lane, seen.start * BLOCK);
            // SAFETY: as above; probabilities have room for `seen` steps of 32 rows of 32.
            let lse = unsafe {
                let scores = scores.as_mut_ptr().byte_add(lane * row);
                let to = probabilities.as_mut_ptr().cast::<u16>().add(lane * 32);
                softmax(s, &query, scores, to, seen.len(), &mut kept, factor)
            };
            // SAFETY: this piece of work alone has this query of this head.
            unsafe { *work.lse.at(head.lse_at() + q + lane) = lse };
        }
        let left = Left {
            at: probabilities.as_ptr().cast(),
            row: 64,
            lower: 1024,
            step: STEP_VALUES * 2,
        };
        for block in 0..d_blocks {
            let j = block * BLOCK;
            let cols = BLOCK.min(d - j);
            // SAFETY: the features are there; both operands hold `seen` steps; this piece of work alone has these queries of
            // this head.
            unsafe {
                let right = values.at(block, seen.start);
                store_product(
                    left,
                    right,
                    seen.len(),
                    lower,
                    sums.0.as_mut_ptr(),
                    SUMS_ROW,
                );
                for (lane, &factor) in factors.iter().enumerate().take(count) {
                    let factor = s.splat(factor);
                    let c = sums.0.as_ptr().add(lane * BLOCK);
                    let c = [
                        s.mul(factor, s.load(c)),
                        s.mul(factor, s.load(c.add(LANES))),
                    ];
                    let at = (head.q_row + q + lane) * shape.n_heads * d + head.head * d + j;
                    store_bf16(work.out.at(at), cols, c);
                }
            }
        }
    }
}

/// Turns a row of scores into probabilities, up to the factor that makes their sum 1 (and the survivors of dropout larger), as a
/// row of the left operand's tiles. Returns the log-sum-exp.
///
/// # Safety
/// The processor has the features; `scores` holds `blocks` blocks of 32, and `to` is a row of as many pairs of tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn softmax(
    s: Avx512,
    row: &Row,
    scores: *mut f32,
    to: *mut u16,
    blocks: usize,
    kept: &mut Vec<u64>,
    factor: &mut f32,
) -> f32 {
    let shape = row.head.shape;
    let vectors = row.vectors();
    let hidden = s.splat(f32::NEG_INFINITY);
    // SAFETY: promised by the caller, here and below.
    unsafe {
        let mut scale = shape.scale;
        if !row.is_plain() {
            row.prepare(s, scores);
            scale = 1.0;
        }
        let mut most = hidden;
        for v in vectors.clone() {
            let x = _mm512_mask_loadu_ps(hidden, row.lanes(v), scores.add(v * LANES));
            // The data second: not-a-number stays.
            most = s.max(most, x);
        }
        let most = _mm512_reduce_max_ps(most) * scale;
        if most == f32::NEG_INFINITY {
            for block in 0..blocks {
                _mm512_storeu_si512(to.add(block * STEP_VALUES).cast(), _mm512_setzero_si512());
            }
            return f32::NEG_INFINITY;
        }
        if let Some(dropout) = shape.dropout {
            row.kept(dropout, kept);
        }
        let to_power = s.splat(scale * std::f32::consts::LOG2_E);
        let shift = s.splat(-most * std::f32::consts::LOG2_E);
        let mut sum = s.zero();
        for block in 0..blocks {
            let mut pair = [s.zero(); 2];
            for (half, p) in pair.iter_mut().enumerate() {
                let v = 2 * block + half;
                if vectors.contains(&v) {
                    let t = s.fma(s.load(scores.add(v * LANES)), to_power, shift);
                    *p = power(s, row.lanes(v), t);
                    sum = s.add(sum, *p);
                    if shape.dropout.is_some() {
                        *p = _mm512_maskz_mov_ps(row.kept_lanes(kept, v), *p);
                    }
                }
            }
            store_bf16(to.add(block * STEP_VALUES).cast(), BLOCK, pair);
        }
        let sum = s.sum(sum);
        *factor = shape
            .dropout
            .map_or(1.0, |dropout| survivor_scale(dropout.p))
            / sum;
        most + sum.ln()
    }
}
