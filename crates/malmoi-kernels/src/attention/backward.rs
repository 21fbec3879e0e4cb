//! The backward pass after Dao et al., "FlashAttention" (2022): probabilities are computed again from the saved log-sum-exp,
//! a block of queries at a time.

use super::block::{Block, Head, LeftPanels, MAX_NR, RightPanels, transposed_on};
use super::{AttentionShape, Saved};
use crate::scratch::scratch;
use crate::simd::{Simd, dispatched, math, read, vectors, write};
use crate::threads::{SharedMut, for_each};

/// Where gradients go: rows `stride` apart, the first head at `offset`.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) data: SharedMut,
    pub(super) offset: usize,
    pub(super) stride: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub(super) shape: &'a AttentionShape<'a>,
    pub(super) saved: &'a Saved<'a>,
    pub(super) dout: &'a [f32],
    pub(super) dq: Rows,
    pub(super) dk: Rows,
    pub(super) dv: Rows,
    pub(super) dbias: Option<SharedMut>,
}

/// Computes all gradients. A piece of work is a key head of a sequence, because the queries of its group add to the same keys; the
/// gradient of a bias adds over sequences, so with one a piece is a key head of all sequences in order.
pub(super) fn run(work: Backward) {
    let shape = work.shape;
    let (sequences, heads) = (shape.n_sequences(), shape.n_kv_heads);
    let total: usize = (0..sequences)
        .map(|s| {
            shape.queries_of(s).len()
                * shape.keys_of(s).len()
                * shape.n_heads
                * (5 * shape.d_head / 8 + 4)
        })
        .sum();
    if work.dbias.is_some() {
        for_each(heads, total / heads, |kv_head| {
            for sequence in 0..sequences {
                key_head(work, sequence, kv_head);
            }
        });
    } else {
        let items = sequences * heads;
        for_each(items, total / items.max(1), |index| {
            key_head(work, index / heads, index % heads)
        });
    }
}

dispatched!(fn key_head = key_head_on(work: Backward, sequence: usize, kv_head: usize));

#[inline(always)]
fn key_head_on<S: Simd>(s: S, work: Backward, sequence: usize, kv_head: usize) {
    let shape = work.shape;
    let group = shape.n_heads / shape.n_kv_heads;
    let d = shape.d_head;
    let width = d.next_multiple_of(S::NR);
    let first = Head::new(shape, sequence, kv_head * group);
    let (k, v) = (
        first.keys(work.saved.k, shape.k_stride),
        first.keys(work.saved.v, shape.v_stride),
    );
    let operands = Operands {
        keys: LeftPanels::pack_on(s, k),
        values: LeftPanels::pack_on(s, v),
        keys_right: RightPanels::pack_on(s, k),
    };
    let mut dk = scratch(first.nk * width);
    let mut dv = scratch(first.nk * width);
    dk.fill(0.0);
    dv.fill(0.0);
    for head in kv_head * group..(kv_head + 1) * group {
        let head = Head::new(shape, sequence, head);
        let mut q = 0;
        while q < head.nq {
            block_on(
                s,
                work,
                Block::new_on(s, head, q),
                &operands,
                &mut dk,
                &mut dv,
            );
            q += S::NR;
        }
    }
    for (from, to) in [(&dk, work.dk), (&dv, work.dv)] {
        for j in 0..first.nk {
            let row = shape.keys_of(sequence).start + j;
            // SAFETY: this piece of work alone has these keys of this head.
            let to = unsafe { to.data.slice(to.offset + row * to.stride + kv_head * d, d) };
            to.copy_from_slice(&from[j * width..][..d]);
        }
    }
}

/// The keys and values of a head in the orders that the products want them.
struct Operands {
    keys: LeftPanels,
    values: LeftPanels,
    keys_right: RightPanels,
}

/// One block of queries: writes its `dq`, adds to `dk` and `dv` [keys, width].
#[inline(always)]
fn block_on<S: Simd>(
    s: S,
    work: Backward,
    block: Block,
    operands: &Operands,
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let Block {
        head,
        q0,
        n,
        lo,
        hi,
    } = block;
    let shape = work.shape;
    let (d, keys) = (shape.d_head, block.keys());
    let width = d.next_multiple_of(S::NR);
    let dense = shape.n_heads * d;
    let q = head.queries(work.saved.q, shape.q_stride, q0, n);
    let dout = head.queries(work.dout, dense, q0, n);
    let out = head.queries(work.saved.out, dense, q0, n);

    let mut transposed = scratch(d * S::NR);
    let mut p = scratch(keys * S::NR);
    transposed_on(s, q, shape.scale, &mut transposed);
    operands.keys.times_on(s, lo, hi, &transposed, &mut p);
    block.bias_and_mask_on(s, &mut p);
    let mut ds = scratch(keys * S::NR);
    transposed_on(s, dout, 1.0, &mut transposed);
    operands.values.times_on(s, lo, hi, &transposed, &mut ds);

    let mut factors = scratch(if shape.dropout.is_some() {
        keys * S::NR
    } else {
        0
    });
    if let Some(dropout) = shape.dropout {
        block.dropout_factors_on(s, dropout, &mut factors);
    }
    let (lse, dot) = per_query_on(s, work, block, dout, out);
    for half in [0, S::LANES] {
        let (lse, dot) = (read(s, &lse, half), read(s, &dot, half));
        for j in 0..keys {
            let at = j * S::NR + half;
            let probability = math::exp_finite(s, s.sub(read(s, &p, at), lse));
            let mut dp = read(s, &ds, at);
            let mut dropped = probability;
            if shape.dropout.is_some() {
                let factor = read(s, &factors, at);
                dp = s.mul(dp, factor);
                dropped = s.mul(dropped, factor);
            }
            write(s, &mut p, at, dropped);
            write(s, &mut ds, at, s.mul(probability, s.sub(dp, dot)));
        }
    }
    if let (Some(dbias), Some(bias)) = (work.dbias, shape.bias) {
        // SAFETY: this piece of work alone has this head of the bias.
        let row = unsafe { dbias.slice(head.head * bias.width(), bias.width()) };
        for j in 0..keys {
            let first = bias.at(q0, lo + j, head.nq, head.nk);
            for (to, ds) in row[first..].iter_mut().zip(&ds[j * S::NR..][..n]) {
                *to += ds;
            }
        }
    }
    let scale = s.splat(shape.scale);
    vectors!(s, ds.len(), |i| {
        let scaled = s.mul(read(s, &ds, i), scale);
        write(s, &mut ds, i, scaled);
    });

    RightPanels::pack_on(s, dout).add_rows_times_on(s, &p, keys, &mut dv[lo * width..]);
    RightPanels::pack_on(s, q).add_rows_times_on(s, &ds, keys, &mut dk[lo * width..]);
    let mut dq = scratch(n * width);
    operands
        .keys_right
        .times_columns_on(s, &ds, keys, lo, n, &mut dq);
    for lane in 0..n {
        let row = shape.queries_of(head.sequence).start + q0 + lane;
        // SAFETY: this piece of work alone has these queries of this head.
        let to = unsafe {
            work.dq
                .data
                .slice(work.dq.offset + row * work.dq.stride + head.head * d, d)
        };
        to.copy_from_slice(&dq[lane * width..][..d]);
    }
}

/// For each query of the block: its log-sum-exp (plus infinity where there is no query or it sees no key, so that the
/// probabilities become 0) and the dot product of output and its gradient, which is the mean gradient of its scores.
#[inline(always)]
fn per_query_on<S: Simd>(
    s: S,
    work: Backward,
    block: Block,
    dout: crate::gemm::Mat,
    out: crate::gemm::Mat,
) -> ([f32; MAX_NR], [f32; MAX_NR]) {
    let (mut lse, mut dots) = ([f32::INFINITY; MAX_NR], [0.0; MAX_NR]);
    for lane in 0..block.n {
        let saved = work.saved.lse[block.head.lse_at() + block.q0 + lane];
        if saved != f32::NEG_INFINITY {
            lse[lane] = saved;
        }
        let (x, y) = (dout.row(lane), out.row(lane));
        let mut sum = s.zero();
        vectors!(s, x.len(), |i| {
            sum = s.fma(read(s, x, i), read(s, y, i), sum)
        });
        dots[lane] = s.sum(sum);
    }
    (lse, dots)
}
