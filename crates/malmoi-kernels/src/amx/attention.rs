//! Attention on tiles: queries, keys, values and probabilities in bf16, scores, softmax and sums in f32.
//!
//! 32 queries meet all the keys that any of them sees: their scores lie row by row, 4 bytes a key, in the second-level cache, so
//! that the softmax is exact and needs no rescaling. Probabilities go back to the tiles as the left operand of the product with
//! the values. Keys and values are packed once for many queries.

mod backward;
mod forward;
mod row;

use super::pack;
use super::{BLOCK, STEP, STEP_VALUES};
use crate::attention::AttentionShape;
use crate::mixed::{Matrix, Values, bf16};
use crate::scratch::{Scratch, scratch};

pub(crate) use backward::{Backward, backward};
pub(crate) use forward::{Forward, forward};

/// One query head of one sequence.
#[derive(Clone, Copy)]
struct Head<'a> {
    shape: &'a AttentionShape<'a>,
    sequence: usize,
    head: usize,
    nq: usize,
    nk: usize,
    /// The first query row.
    q_row: usize,
    /// The first key row.
    k_row: usize,
}

impl<'a> Head<'a> {
    fn new(shape: &'a AttentionShape<'a>, sequence: usize, head: usize) -> Head<'a> {
        let (q, k) = (shape.queries_of(sequence), shape.keys_of(sequence));
        Head {
            shape,
            sequence,
            head,
            nq: q.len(),
            nk: k.len(),
            q_row: q.start,
            k_row: k.start,
        }
    }

    fn kv_head(&self) -> usize {
        self.head / (self.shape.n_heads / self.shape.n_kv_heads)
    }

    /// Query rows `q0 .. q0 + count` in data whose rows are `stride` apart.
    fn queries<'d>(&self, data: &'d [bf16], stride: usize, q0: usize, count: usize) -> Matrix<'d> {
        rows(
            data,
            stride,
            self.q_row + q0,
            count,
            self.head * self.shape.d_head,
            self.shape.d_head,
        )
    }

    /// The first `count` key or value rows.
    fn keys<'d>(&self, data: &'d [bf16], stride: usize, count: usize) -> Matrix<'d> {
        rows(
            data,
            stride,
            self.k_row,
            count,
            self.kv_head() * self.shape.d_head,
            self.shape.d_head,
        )
    }

    /// Where the log-sum-exps of this head's queries start.
    fn lse_at(&self) -> usize {
        self.head * self.shape.n_queries() + self.q_row
    }

    /// The blocks of keys that any of the queries `q0 .. q0 + count` sees.
    fn blocks(&self, q0: usize, count: usize) -> std::ops::Range<usize> {
        let mask = self.shape.mask;
        // Ranges move to the right from query to query, and empty ones can lie anywhere.
        let end = mask.keys_of(q0 + count - 1, self.nq, self.nk).end;
        let start = mask.keys_of(q0, self.nq, self.nk).start.min(end);
        start / BLOCK..end.div_ceil(BLOCK)
    }
}

fn rows(
    data: &[bf16],
    stride: usize,
    first: usize,
    count: usize,
    column: usize,
    width: usize,
) -> Matrix<'_> {
    if count == 0 || width == 0 {
        return Matrix::row_major(Values::Bf16(&[]), count.min(width), width.min(count));
    }
    Matrix::with_row_stride(
        Values::Bf16(&data[first * stride + column..]),
        count,
        width,
        stride,
    )
}

/// A right operand [k, n] in tiles: [blocks of 32 columns][steps of 32 rows][2 tiles].
struct RightTiles {
    buffer: Scratch,
    steps: usize,
}

impl RightTiles {
    /// # Safety
    /// The processor has the features of the tile unit's packing.
    unsafe fn pack(b: Matrix) -> RightTiles {
        let (steps, blocks) = (b.rows.div_ceil(STEP), b.cols.div_ceil(BLOCK));
        let mut buffer = scratch(steps * blocks * STEP_VALUES / 2);
        let to: *mut u16 = buffer.as_mut_ptr().cast();
        for index in 0..blocks * steps {
            let (block, step) = (index / steps, index % steps);
            // SAFETY: promised by the caller; the buffer has room for every step of every block and is aligned to cache lines.
            unsafe { pack::right(b, step * STEP, block * BLOCK, to.add(index * STEP_VALUES)) };
        }
        RightTiles { buffer, steps }
    }

    /// The steps from `step` on of a block of columns.
    fn at(&self, block: usize, step: usize) -> *const u8 {
        let index = block * self.steps + step;
        self.buffer[index * STEP_VALUES / 2..].as_ptr().cast()
    }
}
