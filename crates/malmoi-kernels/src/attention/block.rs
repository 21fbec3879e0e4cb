//! What the forward and backward passes share: one head of one sequence, its operands packed for the tile, and the scores of a
//! block of queries.
//!
//! Scores are held transposed, [keys, queries]: a vector holds the scores of neighbouring queries for one key. Maxima and sums over
//! keys are then sums of vectors, without a single step across lanes, and the scores lie as the tile wants its left operand.

use super::{AttentionShape, Dropout, Mask};
use crate::dropout::{survivor_scale, threshold};
use crate::gemm::{Mat, pack_a_on, pack_b_on};
use crate::random::philox_lanes;
use crate::scratch::{Scratch, scratch};
use crate::simd::{Left, Simd, Tile, read, write};

/// One query head of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) shape: &'a AttentionShape<'a>,
    pub(super) sequence: usize,
    pub(super) head: usize,
    pub(super) nq: usize,
    pub(super) nk: usize,
}

impl<'a> Head<'a> {
    pub(super) fn new(shape: &'a AttentionShape<'a>, sequence: usize, head: usize) -> Head<'a> {
        Head {
            shape,
            sequence,
            head,
            nq: shape.queries_of(sequence).len(),
            nk: shape.keys_of(sequence).len(),
        }
    }

    /// The rows of this head in `data` [rows, heads · d_head]: `count` rows from row `first` of the batch.
    pub(super) fn rows<'d>(
        &self,
        data: &'d [f32],
        stride: usize,
        head: usize,
        first: usize,
        count: usize,
    ) -> Mat<'d> {
        let d = self.shape.d_head;
        if count == 0 || d == 0 {
            return Mat::row_major(&[], 0, d);
        }
        Mat::with_row_stride(&data[first * stride + head * d..], count, d, stride)
    }

    /// Query rows `q0 .. q0 + count` of the sequence, from data laid out like `q`.
    pub(super) fn queries<'d>(
        &self,
        data: &'d [f32],
        stride: usize,
        q0: usize,
        count: usize,
    ) -> Mat<'d> {
        let first = self.shape.queries_of(self.sequence).start + q0;
        self.rows(data, stride, self.head, first, count)
    }

    /// All key (or value) rows of the sequence, for the key head that this query head uses.
    pub(super) fn keys<'d>(&self, data: &'d [f32], stride: usize) -> Mat<'d> {
        let kv_head = self.head / (self.shape.n_heads / self.shape.n_kv_heads);
        self.rows(
            data,
            stride,
            kv_head,
            self.shape.keys_of(self.sequence).start,
            self.nk,
        )
    }

    /// Where the log-sum-exps of this head's queries start.
    pub(super) fn lse_at(&self) -> usize {
        self.head * self.shape.n_queries() + self.shape.queries_of(self.sequence).start
    }
}

/// Rows packed as the tile's left operand: panels of `MR` rows, each [columns, rows of the panel].
pub(super) struct LeftPanels {
    data: Scratch,
    rows: usize,
    cols: usize,
}

impl LeftPanels {
    #[inline(always)]
    pub(super) fn pack_on<S: Simd>(s: S, mat: Mat) -> LeftPanels {
        let (rows, cols) = (mat.rows, mat.cols);
        let mut data = scratch(rows * cols + S::LANES);
        let mut i = 0;
        while i < rows {
            let n = S::MR.min(rows - i);
            pack_a_on(s, mat, i, n, 0, cols, &mut data[i * cols..]);
            i += n;
        }
        LeftPanels { data, rows, cols }
    }

    /// `c[i - from] = Σ_p self[i, p] · right[p]` for rows `from .. to` (`from` a multiple of `MR`); `right` is [columns, NR], `c` [to - from, NR].
    #[inline(always)]
    pub(super) fn times_on<S: Simd>(
        &self,
        s: S,
        from: usize,
        to: usize,
        right: &[f32],
        c: &mut [f32],
    ) {
        debug_assert!(from.is_multiple_of(S::MR) && to <= self.rows);
        assert!(right.len() >= self.cols * S::NR && c.len() >= (to - from) * S::NR);
        let mut i = from;
        while i < to {
            let in_panel = S::MR.min(self.rows - i);
            let tile = Tile {
                k: self.cols,
                a: Left::Columns(self.data[i * self.cols..].as_ptr(), in_panel),
                b: right.as_ptr(),
                c: c[(i - from) * S::NR..].as_mut_ptr(),
                c_step: S::NR,
                accumulate: false,
                ahead: right.as_ptr(),
                ahead_step: 0,
            };
            // SAFETY: the panel is [cols, in_panel]; `right` and `c` are long enough as asserted.
            unsafe { s.tile(in_panel.min(to - i), tile) };
            i += in_panel;
        }
    }
}

/// Rows packed as the tile's right operand: panels of `NR` columns, each [rows, NR], zeros behind the last column.
pub(super) struct RightPanels {
    data: Scratch,
    rows: usize,
    cols: usize,
}

impl RightPanels {
    #[inline(always)]
    pub(super) fn pack_on<S: Simd>(s: S, mat: Mat) -> RightPanels {
        let (rows, cols) = (mat.rows, mat.cols);
        let mut data = scratch(rows * cols.next_multiple_of(S::NR));
        let mut j = 0;
        while j < cols {
            let to = &mut data[j * rows..];
            pack_b_on(s, mat, 0, rows, j, S::NR.min(cols - j), to);
            j += S::NR;
        }
        RightPanels { data, rows, cols }
    }

    /// `c[i] (+)= Σ_p left[p, i] · self[from + p]` where `left` is [k, NR] and `i` runs over its first `n` columns. `c` has rows of
    /// `cols` rounded up to `NR`.
    #[inline(always)]
    pub(super) fn times_columns_on<S: Simd>(
        &self,
        s: S,
        left: &[f32],
        k: usize,
        from: usize,
        n: usize,
        c: &mut [f32],
    ) {
        let width = self.cols.next_multiple_of(S::NR);
        assert!(
            left.len() >= k * S::NR && from + k <= self.rows && n <= S::NR && c.len() >= n * width
        );
        if k == 0 {
            c[..n * width].fill(0.0);
            return;
        }
        // Even groups of rows: 32 are 11 + 11 + 10.
        let groups = n.div_ceil(S::MR);
        let mut i = 0;
        for group in 0..groups {
            let rows = (n - i).div_ceil(groups - group);
            let mut j = 0;
            while j < self.cols {
                let tile = Tile {
                    k,
                    a: Left::Columns(left[i..].as_ptr(), S::NR),
                    b: self.data[j * self.rows + from * S::NR..].as_ptr(),
                    c: c[i * width + j..].as_mut_ptr(),
                    c_step: width,
                    accumulate: false,
                    ahead: self.data[j * self.rows + from * S::NR..].as_ptr(),
                    ahead_step: 0,
                };
                // SAFETY: `left`, the panel and `c` are long enough as asserted.
                unsafe { s.tile(rows, tile) };
                j += S::NR;
            }
            i += rows;
        }
    }

    /// `c[i] += Σ_p left[i, p] · self[p]` for all rows of `left` [n, NR], `p` below the number of packed rows. `c` has rows of
    /// `cols` rounded up to `NR`.
    #[inline(always)]
    pub(super) fn add_rows_times_on<S: Simd>(&self, s: S, left: &[f32], n: usize, c: &mut [f32]) {
        let width = self.cols.next_multiple_of(S::NR);
        assert!(left.len() >= n * S::NR && self.rows <= S::NR && c.len() >= n * width);
        let groups = n.div_ceil(S::MR);
        let mut i = 0;
        for group in 0..groups {
            let rows = (n - i).div_ceil(groups - group);
            let mut j = 0;
            while j < self.cols {
                let tile = Tile {
                    k: self.rows,
                    a: Left::Rows(left[i * S::NR..].as_ptr()),
                    b: self.data[j * self.rows..].as_ptr(),
                    c: c[i * width + j..].as_mut_ptr(),
                    c_step: width,
                    accumulate: true,
                    ahead: self.data[j * self.rows..].as_ptr(),
                    ahead_step: 0,
                };
                // SAFETY: `left`, the panel and `c` are long enough as asserted.
                unsafe { s.tile(rows, tile) };
                j += S::NR;
            }
            i += rows;
        }
    }
}

/// Rows of at most `NR` queries, transposed to [d_head, NR] and multiplied by `factor`; zeros behind the last query.
#[inline(always)]
pub(super) fn transposed_on<S: Simd>(s: S, mat: Mat, factor: f32, to: &mut [f32]) {
    pack_b_on(s, mat.t(), 0, mat.cols, 0, mat.rows, to);
    if factor != 1.0 {
        let factor = s.splat(factor);
        for row in to[..mat.cols * S::NR].chunks_exact_mut(S::LANES) {
            // SAFETY: the chunk is a whole vector.
            unsafe { s.store(row.as_mut_ptr(), s.mul(factor, s.load(row.as_ptr()))) };
        }
    }
}

/// A block of queries of one head: `n` (at most `NR`) from `q0` on, and the keys `lo .. hi` that any of them sees.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) head: Head<'a>,
    pub(super) q0: usize,
    pub(super) n: usize,
    /// The first key, rounded down to a whole panel.
    pub(super) lo: usize,
    pub(super) hi: usize,
}

/// Floats that arrays for a vector of queries need: `NR` of the widest instruction set.
pub(super) const MAX_NR: usize = 32;

impl<'a> Block<'a> {
    #[inline(always)]
    pub(super) fn new_on<S: Simd>(_: S, head: Head<'a>, q0: usize) -> Block<'a> {
        let n = S::NR.min(head.nq - q0);
        let mask = head.shape.mask;
        let first = mask.keys_of(q0, head.nq, head.nk);
        let last = mask.keys_of(q0 + n - 1, head.nq, head.nk);
        // Ranges move to the right from query to query, and empty ones can lie anywhere.
        let hi = last.end;
        let lo = first.start.min(hi) / S::MR * S::MR;
        Block {
            head,
            q0,
            n,
            lo,
            hi,
        }
    }

    /// Keys in the block.
    pub(super) fn keys(&self) -> usize {
        self.hi - self.lo
    }

    /// Adds the bias to raw scores and puts minus infinity where a query does not see a key.
    #[inline(always)]
    pub(super) fn bias_and_mask_on<S: Simd>(&self, s: S, scores: &mut [f32]) {
        let Head {
            shape,
            head,
            nq,
            nk,
            ..
        } = self.head;
        if let Some(bias) = shape.bias {
            let row = bias.of_head(head);
            for j in 0..self.keys() {
                // Neighbouring queries lie next to each other in the row.
                let first = bias.at(self.q0, self.lo + j, nq, nk);
                for half in [0, S::LANES] {
                    // Beyond the row there are no queries.
                    if first + half < row.len() {
                        let at = j * S::NR + half;
                        let sum = s.add(read(s, scores, at), read(s, row, first + half));
                        write(s, scores, at, sum);
                    }
                }
            }
        }
        if let Mask::Strided { .. } = shape.mask {
            for (j, row) in scores.chunks_exact_mut(S::NR).take(self.keys()).enumerate() {
                for (lane, score) in row[..self.n].iter_mut().enumerate() {
                    let (query, key) = (self.q0 + lane, self.lo + j);
                    let seen = shape.mask.keys_of(query, nq, nk).contains(&key)
                        && shape.mask.sees(query, key, nq, nk);
                    if !seen {
                        *score = f32::NEG_INFINITY;
                    }
                }
            }
        }
        // Keys that every query of the block sees need no mask.
        let seen = |lane: usize| shape.mask.keys_of(self.q0 + lane.min(self.n - 1), nq, nk);
        let (first, last) = (seen(0), seen(self.n - 1));
        if last.start <= self.lo && first.end >= self.hi {
            return;
        }
        let (mut starts, mut ends) = ([0.0_f32; MAX_NR], [0.0_f32; MAX_NR]);
        for (lane, (start, end)) in starts.iter_mut().zip(&mut ends).enumerate() {
            let seen = seen(lane);
            // Relative to `lo`, so that they are exact in f32.
            *start = seen.start as f32 - self.lo as f32;
            *end = seen.end as f32 - self.lo as f32;
        }
        let hidden = s.splat(f32::NEG_INFINITY);
        for j in 0..self.keys() {
            if j + self.lo >= last.start && j + self.lo < first.end {
                continue;
            }
            let key = s.splat(j as f32);
            for half in [0, S::LANES] {
                // SAFETY: `half + LANES` is at most NR, within the row of scores and the bounds.
                unsafe {
                    let at = scores[j * S::NR + half..].as_mut_ptr();
                    let after_start =
                        s.select_lt(key, s.load(starts[half..].as_ptr()), hidden, s.load(at));
                    let end = s.load(ends[half..].as_ptr());
                    s.store(at, s.select_lt(key, end, after_start, hidden));
                }
            }
        }
    }

    /// What dropout multiplies the probabilities of the block with [keys, NR]; see [`Dropout`].
    #[inline(always)]
    pub(super) fn dropout_factors_on<S: Simd>(&self, _: S, dropout: Dropout, factors: &mut [f32]) {
        const LANES: usize = 16;
        let (limit, scale) = (threshold(dropout.p), survivor_scale(dropout.p));
        for quad in self.lo / 4..self.hi.div_ceil(4) {
            for start in (0..S::NR).step_by(LANES) {
                let queries = std::array::from_fn(|lane| (self.q0 + start + lane) as u32);
                let words = philox_lanes::<LANES>(
                    [
                        [quad as u32; LANES],
                        queries,
                        [self.head.head as u32; LANES],
                        [self.head.sequence as u32; LANES],
                    ],
                    dropout.key.words,
                );
                let n = LANES.min(S::NR - start);
                for (word, words) in words.iter().enumerate() {
                    let key = quad * 4 + word;
                    if key >= self.lo && key < self.hi {
                        let row = &mut factors[(key - self.lo) * S::NR + start..][..n];
                        for (factor, &word) in row.iter_mut().zip(words) {
                            *factor = if word < limit { 0.0 } else { scale };
                        }
                    }
                }
            }
        }
    }
}
