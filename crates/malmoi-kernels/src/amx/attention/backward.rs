//! The backward pass: probabilities are computed again from the saved log-sum-exp (Dao et al., 2022), 32 queries at a time.
//!
//! Gradients of keys and values add up over queries. Their transposes are the products whose right operands are probabilities and
//! score gradients with queries in pairs, which neighbouring rows give without moving anything across them; a group of queries adds
//! to them at a time, so that the sums come into the tiles once for several steps.

use std::arch::x86_64::*;
use std::ops::Range;

use super::row::{LANES, Row, power};
use super::{Head, RightTiles};
use crate::amx::tiles::{
    Left, LeftRows, SUMS_ROW, Sums, add_and_store, load_bf16, load_tiles, store_bf16, store_product,
};
use crate::amx::{Amx, BLOCK, STEP_VALUES, pack};
use crate::attention::AttentionShape;
use crate::dropout::survivor_scale;
use crate::mixed::{Matrix, Values, bf16};
use crate::scratch::{Scratch, scratch};
use crate::simd::{Avx512, Simd, transpose16};
use crate::threads::{SharedMut, for_each};

/// Blocks of queries that add to the gradients of keys and values together.
const GROUP: usize = 4;
/// Bytes of a step of an operand.
const STEP_BYTES: usize = STEP_VALUES * 2;

/// As [`crate::attention::attention_backward`], in bf16.
#[derive(Clone, Copy)]
pub(crate) struct Backward<'a> {
    pub(crate) shape: &'a AttentionShape<'a>,
    pub(crate) q: &'a [bf16],
    pub(crate) k: &'a [bf16],
    pub(crate) v: &'a [bf16],
    pub(crate) out: &'a [bf16],
    pub(crate) lse: &'a [f32],
    pub(crate) dout: &'a [bf16],
    pub(crate) dq: SharedMut<bf16>,
    pub(crate) dk: SharedMut<bf16>,
    pub(crate) dv: SharedMut<bf16>,
    /// Zeros to add to.
    pub(crate) dbias: Option<SharedMut>,
}

/// Computes all gradients. A piece of work is a key head of a sequence, because the queries of its group add to the same keys; the
/// gradient of a bias adds over sequences, so with one a piece is a key head of all sequences in order.
pub(crate) fn backward(amx: Amx, work: Backward) {
    let shape = work.shape;
    let (sequences, heads) = (shape.n_sequences(), shape.n_kv_heads);
    let run = |sequence, kv_head| {
        // SAFETY: the token says that the processor has the features.
        amx.with_tiles(|| unsafe { key_head(work, sequence, kv_head) });
    };
    let cost: usize = (0..sequences)
        .map(|s| shape.queries_of(s).len() * shape.keys_of(s).len() * shape.n_heads)
        .sum::<usize>()
        * (6 + shape.d_head / 16);
    if work.dbias.is_some() {
        for_each(heads, cost / heads, |kv_head| {
            (0..sequences).for_each(|sequence| run(sequence, kv_head));
        });
    } else {
        let items = sequences * heads;
        for_each(items, cost / items.max(1), |index| {
            run(index / heads, index % heads);
        });
    }
}

/// Keys and values of a head in the orders that the products want them, and the sums of their gradients.
struct KeySide {
    /// [d, keys].
    keys: RightTiles,
    /// [keys, d].
    keys_down: RightTiles,
    /// [d, keys].
    values: RightTiles,
    dk: Sum,
    dv: Sum,
}

/// A transposed gradient [d in whole blocks, keys in whole blocks].
struct Sum {
    data: Scratch,
    /// Floats from one row to the next.
    row: usize,
}

impl Sum {
    fn zeros(d_blocks: usize, key_blocks: usize) -> Sum {
        let row = key_blocks * BLOCK;
        let mut data = scratch(d_blocks * BLOCK * row);
        data.fill(0.0);
        Sum { data, row }
    }

    /// Adds `steps` steps to a block of keys.
    ///
    /// # Safety
    /// Tiles are configured; `left` holds the steps for `d_blocks` blocks `next` bytes apart, `right` those of the keys.
    unsafe fn add(
        &mut self,
        block: usize,
        (left, next): (Left, usize),
        right: *const u8,
        steps: usize,
        d: usize,
    ) {
        for i in (0..d).step_by(BLOCK) {
            let lower = d - i > 16;
            let at = self.data[i * self.row + block * BLOCK..].as_mut_ptr();
            let left = Left {
                at: left.at.wrapping_add(i / BLOCK * next),
                ..left
            };
            // SAFETY: promised by the caller; the sum has whole blocks.
            unsafe {
                load_tiles(at, self.row * 4, lower);
                add_and_store(left, right, steps, lower, at, self.row * 4);
            }
        }
    }
}

/// All queries that use one key head of a sequence.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn key_head(work: Backward, sequence: usize, kv_head: usize) {
    let Some(s) = Avx512::new() else { return };
    let shape = work.shape;
    let group = shape.n_heads / shape.n_kv_heads;
    let first = Head::new(shape, sequence, kv_head * group);
    let (d, nk) = (shape.d_head, first.nk);
    let (d_blocks, key_blocks) = (d.div_ceil(BLOCK), nk.div_ceil(BLOCK));
    let k = first.keys(work.k, shape.k_stride, nk);
    let v = first.keys(work.v, shape.v_stride, nk);
    // SAFETY: the features are there.
    let mut side = unsafe {
        KeySide {
            keys: RightTiles::pack(k.t()),
            keys_down: RightTiles::pack(k),
            values: RightTiles::pack(v.t()),
            dk: Sum::zeros(d_blocks, key_blocks),
            dv: Sum::zeros(d_blocks, key_blocks),
        }
    };
    let mut room = Room::new(d_blocks, key_blocks);
    for head in kv_head * group..(kv_head + 1) * group {
        let head = Head::new(shape, sequence, head);
        for q0 in (0..head.nq).step_by(GROUP * BLOCK) {
            // SAFETY: the features are there.
            unsafe { queries(s, work, head, q0, &mut side, &mut room) };
        }
    }
    for (sum, to) in [(&side.dk, work.dk), (&side.dv, work.dv)] {
        for j in (0..nk).step_by(16) {
            for c in (0..d).step_by(BLOCK) {
                let (rows, cols) = (16.min(nk - j), BLOCK.min(d - c));
                // SAFETY: the sum has whole blocks; this piece of work alone has these keys of this head.
                unsafe {
                    let turned = [0, 16].map(|half| {
                        transpose16(std::array::from_fn(|lane| {
                            s.load(sum.data[(c + half + lane) * sum.row + j..].as_ptr())
                        }))
                    });
                    for (row, (low, high)) in
                        turned[0].iter().zip(&turned[1]).enumerate().take(rows)
                    {
                        let at = ((first.k_row + j + row) * shape.n_kv_heads + kv_head) * d + c;
                        store_bf16(to.at(at), cols, [*low, *high]);
                    }
                }
            }
        }
    }
}

/// Working memory for a group of queries.
struct Room {
    /// [32, keys]: scores, then probabilities.
    p: Scratch,
    /// [32, keys]: gradients of probabilities, then of scores.
    ds: Scratch,
    /// Probabilities as right operands: [blocks of keys][blocks of queries].
    p_pairs: Scratch,
    /// Score gradients likewise.
    ds_pairs: Scratch,
    /// Score gradients as a left operand: [blocks of keys].
    ds_rows: Scratch,
    /// Transposed queries as left operands: [blocks of d][blocks of queries].
    q_turned: Scratch,
    /// Transposed gradients of the output likewise.
    dout_turned: Scratch,
    kept: Vec<u64>,
}

impl Room {
    fn new(d_blocks: usize, key_blocks: usize) -> Room {
        let floats = |blocks: usize| scratch(blocks * STEP_VALUES / 2);
        Room {
            p: scratch(key_blocks * BLOCK * BLOCK),
            ds: scratch(key_blocks * BLOCK * BLOCK),
            p_pairs: floats(key_blocks * GROUP),
            ds_pairs: floats(key_blocks * GROUP),
            ds_rows: floats(key_blocks),
            q_turned: floats(d_blocks * GROUP),
            dout_turned: floats(d_blocks * GROUP),
            kept: Vec::new(),
        }
    }
}

/// The values of step `index` in a buffer of packed steps.
fn step_at(buffer: &mut Scratch, index: usize) -> *mut u16 {
    buffer[index * STEP_VALUES / 2..].as_mut_ptr().cast()
}

/// Up to `GROUP` blocks of queries from `q0` on: writes their `dq`, adds to the gradients of keys and values.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn queries(
    s: Avx512,
    work: Backward,
    head: Head,
    q0: usize,
    side: &mut KeySide,
    room: &mut Room,
) {
    let shape = work.shape;
    let d = shape.d_head;
    let d_blocks = d.div_ceil(BLOCK);
    let end = (q0 + GROUP * BLOCK).min(head.nq);
    let blocks = (end - q0).div_ceil(BLOCK);
    let dense = shape.n_heads * d;
    let q = head.queries(work.q, shape.q_stride, q0, end - q0);
    let dout = head.queries(work.dout, dense, q0, end - q0);
    for block in 0..blocks {
        for c in 0..d_blocks {
            // SAFETY: the features are there, and the buffers have room for every block.
            unsafe {
                let at = c * GROUP + block;
                pack::left(
                    q.t(),
                    c * BLOCK,
                    block * BLOCK,
                    step_at(&mut room.q_turned, at),
                );
                pack::left(
                    dout.t(),
                    c * BLOCK,
                    block * BLOCK,
                    step_at(&mut room.dout_turned, at),
                );
            }
        }
    }
    let (mut q_rows, mut dout_rows) = (LeftRows::new(q, d_blocks), LeftRows::new(dout, d_blocks));
    let mut seen: [Range<usize>; GROUP] = [const { 0..0 }; GROUP];
    for (block, seen) in seen.iter_mut().enumerate().take(blocks) {
        let i = block * BLOCK;
        let count = BLOCK.min(end - q0 - i);
        *seen = head.blocks(q0 + i, count);
        // SAFETY: the features are there, and every operand has what its product asks for.
        unsafe {
            let q = q_rows.rows(i, count, 0..d_blocks);
            let dout = dout_rows.rows(i, count, 0..d_blocks);
            let part = Part {
                head,
                q0: q0 + i,
                count,
                block,
                seen: seen.clone(),
            };
            score_gradients(s, work, &part, (q, dout), side, room);
            query_gradients(s, work, &part, side, room);
        }
    }
    let turned = |buffer: &Scratch, block: usize| {
        let left = Left {
            at: buffer.as_ptr().cast(),
            row: 64,
            lower: 1024,
            step: STEP_BYTES,
        };
        (left.skip(block), GROUP * STEP_BYTES)
    };
    let from = seen[..blocks].iter().map(|seen| seen.start).min();
    let to = seen[..blocks].iter().map(|seen| seen.end).max();
    for key_block in from.unwrap_or(0)..to.unwrap_or(0) {
        // Ranges move to the right from block to block: those that see these keys are neighbours.
        let sees = |block: &usize| seen[*block].contains(&key_block);
        let Some(from) = (0..blocks).find(sees) else {
            continue;
        };
        let steps = (from..blocks).take_while(sees).count();
        let at = key_block * GROUP + from;
        // SAFETY: the operands hold those steps.
        unsafe {
            let p = step_at(&mut room.p_pairs, at).cast_const().cast();
            side.dv
                .add(key_block, turned(&room.dout_turned, from), p, steps, d);
            let ds = step_at(&mut room.ds_pairs, at).cast_const().cast();
            side.dk
                .add(key_block, turned(&room.q_turned, from), ds, steps, d);
        }
    }
}

/// A block of queries of a head.
struct Part<'a> {
    head: Head<'a>,
    q0: usize,
    count: usize,
    /// Which of its group.
    block: usize,
    /// The blocks of keys that it sees.
    seen: Range<usize>,
}

/// Probabilities and score gradients of a block, brought into the forms that the products want.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn score_gradients(
    s: Avx512,
    work: Backward,
    part: &Part,
    (q, dout): (Left, Left),
    side: &KeySide,
    room: &mut Room,
) {
    let Part {
        head, q0, count, ..
    } = *part;
    let shape = work.shape;
    let d = shape.d_head;
    let d_blocks = d.div_ceil(BLOCK);
    let lower = count > 16;
    let width = part.seen.len() * BLOCK;
    for (place, block) in part.seen.clone().enumerate() {
        for (left, right, to) in [
            (q, &side.keys, &mut room.p),
            (dout, &side.values, &mut room.ds),
        ] {
            // SAFETY: operands hold `d_blocks` steps; there is a row of `width` for every query.
            unsafe {
                store_product(
                    left,
                    right.at(block, 0),
                    d_blocks,
                    lower,
                    to[place * BLOCK..].as_mut_ptr(),
                    width * 4,
                );
            }
        }
    }
    for lane in 0..count {
        let row = Row::new(head, q0 + lane, part.seen.start * BLOCK);
        let at = (head.q_row + q0 + lane) * shape.n_heads * d + head.head * d;
        let lse = work.lse[head.lse_at() + q0 + lane];
        let dot = dot(s, &work.dout[at..at + d], &work.out[at..at + d]);
        // SAFETY: the rows are `width` wide.
        unsafe {
            let p = room.p.as_mut_ptr().add(lane * width);
            let ds = room.ds.as_mut_ptr().add(lane * width);
            row_gradients(s, work, &row, (p, ds, width), (lse, dot), &mut room.kept);
        }
    }
    // Rows without a query count nothing where queries are summed over.
    for buffer in [&mut room.p, &mut room.ds] {
        buffer[count * width..BLOCK * width].fill(0.0);
    }
    for (place, block) in part.seen.clone().enumerate() {
        let at = block * GROUP + part.block;
        // SAFETY: the features are there, and the buffers have room for every block.
        unsafe {
            let j = place * BLOCK;
            pack::right(
                block_rows(&room.p, width),
                0,
                j,
                step_at(&mut room.p_pairs, at),
            );
            pack::right(
                block_rows(&room.ds, width),
                0,
                j,
                step_at(&mut room.ds_pairs, at),
            );
            pack::left(
                block_rows(&room.ds, width),
                0,
                j,
                step_at(&mut room.ds_rows, place),
            );
        }
    }
}

/// The first `width` columns of 32 rows, for packing.
fn block_rows(buffer: &Scratch, width: usize) -> Matrix<'_> {
    Matrix::row_major(Values::F32(&buffer[..BLOCK * width]), BLOCK, width)
}

/// One query: `p` becomes what multiplied the values, `ds` the gradients of the unscaled scores.
///
/// # Safety
/// The processor has the features; `p` and `ds` hold rows of `width`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn row_gradients(
    s: Avx512,
    work: Backward,
    row: &Row,
    (p, ds, width): (*mut f32, *mut f32, usize),
    (lse, dot): (f32, f32),
    kept: &mut Vec<u64>,
) {
    let shape = work.shape;
    let vectors = row.vectors();
    // SAFETY: promised by the caller, here and below.
    unsafe {
        for v in (0..width / LANES).filter(|v| !vectors.contains(v)) {
            s.store(p.add(v * LANES), s.zero());
            s.store(ds.add(v * LANES), s.zero());
        }
        if vectors.is_empty() {
            return;
        }
        let mut scale = shape.scale;
        if !row.is_plain() {
            row.prepare(s, p);
            scale = 1.0;
        }
        let survivors = match shape.dropout {
            Some(dropout) => {
                row.kept(dropout, kept);
                s.splat(survivor_scale(dropout.p))
            }
            None => s.splat(1.0),
        };
        // A query that sees no key has a log-sum-exp of minus infinity, and probabilities of 0.
        let none = lse == f32::NEG_INFINITY;
        let to_power = s.splat(scale * std::f32::consts::LOG2_E);
        let shift = s.splat(-lse * std::f32::consts::LOG2_E);
        let (dot, factor) = (s.splat(dot), s.splat(shape.scale));
        let with_bias = work.dbias.is_some();
        for v in vectors {
            let (p, ds) = (p.add(v * LANES), ds.add(v * LANES));
            let lanes = if none { 0 } else { row.lanes(v) };
            let mut probability = power(s, lanes, s.fma(s.load(p), to_power, shift));
            let mut dp = s.load(ds);
            let mut dropped = probability;
            if shape.dropout.is_some() {
                let kept = row.kept_lanes(kept, v);
                dp = _mm512_maskz_mul_ps(kept, dp, survivors);
                dropped = _mm512_maskz_mul_ps(kept, probability, survivors);
            }
            if !with_bias {
                probability = s.mul(probability, factor);
            }
            // What is not a number outside of the row stays outside.
            let gradient = _mm512_maskz_mul_ps(lanes, probability, s.sub(dp, dot));
            s.store(p, dropped);
            s.store(ds, gradient);
        }
        if let (Some(dbias), Some(bias)) = (work.dbias, shape.bias) {
            // This piece of work alone has this head of the bias.
            let to = dbias.at(row.head.head * bias.width());
            row.add_to_bias(s, ds, bias.reach, to);
            for v in row.vectors() {
                let ds = ds.add(v * LANES);
                s.store(ds, s.mul(s.load(ds), factor));
            }
        }
    }
}

/// `Σ x · y`, the mean gradient of a query's scores.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
fn dot(s: Avx512, x: &[bf16], y: &[bf16]) -> f32 {
    let mut sum = s.zero();
    for (x, y) in x.chunks(BLOCK).zip(y.chunks(BLOCK)) {
        // SAFETY: chunks of as many values.
        let (x, y) = unsafe {
            (
                load_bf16(x.as_ptr(), x.len()),
                load_bf16(y.as_ptr(), y.len()),
            )
        };
        sum = s.fma(x[0], y[0], sum);
        sum = s.fma(x[1], y[1], sum);
    }
    s.sum(sum)
}

/// `dq = ds · k` of a block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn query_gradients(s: Avx512, work: Backward, part: &Part, side: &KeySide, room: &Room) {
    let shape = work.shape;
    let d = shape.d_head;
    let left = Left {
        at: room.ds_rows.as_ptr().cast(),
        row: 64,
        lower: 1024,
        step: STEP_BYTES,
    };
    let lower = part.count > 16;
    let mut sums = Sums([0.0; BLOCK * BLOCK]);
    for c in (0..d).step_by(BLOCK) {
        // SAFETY: both operands hold `seen` steps; this piece of work alone has these queries of this head.
        unsafe {
            let right = side.keys_down.at(c / BLOCK, part.seen.start);
            store_product(
                left,
                right,
                part.seen.len(),
                lower,
                sums.0.as_mut_ptr(),
                SUMS_ROW,
            );
            for lane in 0..part.count {
                let from = sums.0.as_ptr().add(lane * BLOCK);
                let row = part.head.q_row + part.q0 + lane;
                let at = (row * shape.n_heads + part.head.head) * d + c;
                let sum = [s.load(from), s.load(from.add(LANES))];
                store_bf16(work.dq.at(at), BLOCK.min(d - c), sum);
            }
        }
    }
}
