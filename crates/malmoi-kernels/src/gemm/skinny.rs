//! Few rows against transposed weights: each element is a dot product of two contiguous rows, nothing is packed, and the
//! weights are read from memory once. This is what generating one token at a time does; its limit is the memory's bandwidth.

use super::operand::round_on;
use super::{Mat, Operand};
use crate::mixed::{Values, bf16, to_f32};
use crate::scratch::scratch;
use crate::simd::{Element, Nearness, Simd, dispatched, prefetch};
use crate::threads::{SharedMut, for_each};

/// Whether a product of this shape goes this way. Packing the weights costs about as much as reading them twice, so the
/// more rows share it the better; summing across lanes at the end of each dot product costs less the longer it is.
pub(super) fn suits(a: Operand, b: Operand) -> bool {
    let contiguous = match (a, b) {
        (Operand::Exact(a), Operand::Exact(b)) => a.col_stride == 1 && b.row_stride == 1,
        // What is not contiguous is made so when it is rounded.
        (Operand::Rounded(_), Operand::Rounded(_)) => true,
        _ => false,
    };
    contiguous && a.rows() <= rows_alike(a.cols())
}

/// Rows of length `k` that may be multiplied together with transposed weights such that each gets the same bits as alone. Above
/// this number the sums are made in another order.
#[must_use]
pub fn rows_alike(k: usize) -> usize {
    if k >= 256 { 16 } else { 8 }
}

/// Bytes of weights between those in use and those asked for: well within the second-level cache and far enough for the memory to
/// answer.
const AHEAD: usize = 32_768;
/// The same along a row.
const AHEAD_IN_ROW: usize = 4096;

/// Rows of weights in one piece of work: about 64 thousand of them, in multiples of 8.
fn rows_per_piece(k: usize) -> usize {
    (65_536 / k.max(1)).next_multiple_of(8).clamp(8, 4096)
}

/// Transposed weights [n, k] as they are stored; a row is a column of the product's right-hand side.
#[derive(Clone, Copy)]
struct Weights<'a, E> {
    values: &'a [E],
    n: usize,
    stride: usize,
}

/// `c[i, j] = Σ_p a[i, p] · b[p, j]` (added to `c` when `accumulate`) where rows of `a` and columns of `b` are contiguous.
pub(super) fn multiply(a: Operand, b: Operand, c: &mut [f32], accumulate: bool) {
    debug_assert!(suits(a, b));
    let (n, m, k) = (b.cols(), a.rows(), a.cols());
    let piece = rows_per_piece(k);
    let out = SharedMut::new(c);
    let in_pieces = |f: &(dyn Fn(usize, usize) + Sync + Send)| {
        // The cost of a piece is reading it: about one operation for a value.
        for_each(n.div_ceil(piece), piece * k * m.div_ceil(4), |index| {
            let first = index * piece;
            f(first, (first + piece).min(n));
        });
    };
    match (a, b) {
        (Operand::Exact(a), Operand::Exact(b)) => {
            let (values, stride) = (b.data, b.col_stride);
            let w = Weights { values, n, stride };
            in_pieces(&|first, last| columns(a, w, first, last, out, accumulate));
        }
        (Operand::Rounded(a), Operand::Rounded(b)) => {
            let gathered;
            let (values, stride) = match b.values {
                Values::Bf16(values) if b.row_stride == 1 => (values, b.col_stride),
                _ => {
                    gathered = b.columns();
                    (&gathered[..], k)
                }
            };
            let w = Weights { values, n, stride };
            let mut wide = scratch(m * k);
            if a.col_stride == 1 {
                for (i, row) in wide.chunks_exact_mut(k).enumerate() {
                    round(a.values, i * a.row_stride, row);
                }
            } else {
                to_f32(&a.t().columns(), &mut wide);
            }
            let a = Mat::row_major(&wide, m, k);
            in_pieces(&|first, last| columns_bf16(a, w, first, last, out, accumulate));
        }
        _ => unreachable!("both operands are of one kind"),
    }
}

dispatched!(fn columns = columns_on(a: Mat, b: Weights<f32>, first: usize, last: usize, c: SharedMut, accumulate: bool));
dispatched!(fn columns_bf16 = columns_on(a: Mat, b: Weights<bf16>, first: usize, last: usize, c: SharedMut, accumulate: bool));
dispatched!(fn round = round_on(values: Values, at: usize, to: &mut [f32]));

#[inline(always)]
fn columns_on<S: Simd, E: Element>(
    s: S,
    a: Mat,
    b: Weights<E>,
    first: usize,
    last: usize,
    c: SharedMut,
    accumulate: bool,
) {
    // Groups of rows whose sums fit the registers: 8 x 2 of 32, or 4 x 2 of 16.
    let group = if S::LANES == 16 { 8 } else { 4 };
    let mut i = 0;
    while i < a.rows {
        let rows = group.min(a.rows - i);
        let w = Columns {
            a,
            b,
            c,
            i,
            accumulate,
        };
        match rows {
            1 => w.run_on::<S, 1, 4>(s, first, last),
            2 => w.run_on::<S, 2, 4>(s, first, last),
            3 => w.run_on::<S, 3, 2>(s, first, last),
            4 => w.run_on::<S, 4, 2>(s, first, last),
            5 => w.run_on::<S, 5, 2>(s, first, last),
            6 => w.run_on::<S, 6, 2>(s, first, last),
            7 => w.run_on::<S, 7, 2>(s, first, last),
            _ => w.run_on::<S, 8, 2>(s, first, last),
        }
        i += rows;
    }
}

/// Rows of `a` from `i` on against some columns of `b`.
#[derive(Clone, Copy)]
struct Columns<'a, E> {
    a: Mat<'a>,
    b: Weights<'a, E>,
    c: SharedMut,
    i: usize,
    accumulate: bool,
}

impl<E: Element> Columns<'_, E> {
    #[inline(always)]
    fn run_on<S: Simd, const M: usize, const J: usize>(self, s: S, first: usize, last: usize) {
        let mut j = first;
        while j + J <= last {
            self.dots_on::<S, M, J>(s, j, last);
            j += J;
        }
        while j < last {
            self.dots_on::<S, M, 1>(s, j, last);
            j += 1;
        }
    }

    /// `M` rows of `a` by `J` columns of `b`. An element is summed the same way whatever `M` and `J` are.
    #[inline(always)]
    fn dots_on<S: Simd, const M: usize, const J: usize>(self, s: S, j: usize, last: usize) {
        let Columns {
            a,
            b,
            c,
            i: i0,
            accumulate,
        } = self;
        let k = a.cols;
        let x = a.data.as_ptr().wrapping_add(i0 * a.row_stride);
        let w = b.values.as_ptr().wrapping_add(j * b.stride);
        // A short row of weights ends before the processor sees what comes; so ask, some rows ahead, but not for those of another
        // piece, which another thread reads. Of long rows, further on.
        let ahead = match AHEAD / (J * k.max(1) * size_of::<E>()) {
            0 => AHEAD_IN_ROW / size_of::<E>(),
            groups if j + (groups + 1) * J <= last => groups * J * b.stride,
            _ => 0,
        };
        let mut acc = [[s.zero(); J]; M];
        let whole = k - k % S::LANES;
        let mut p = 0;
        while p < whole {
            // SAFETY: `p + LANES <= k`, and the matrices were checked to hold their rows and columns.
            unsafe {
                let mut weights = [s.zero(); J];
                for (jj, weights) in weights.iter_mut().enumerate() {
                    let at = w.add(jj * b.stride + p);
                    *weights = E::load(s, at);
                    prefetch(at.wrapping_add(ahead), Nearness::First);
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let v = s.load(x.add(i * a.row_stride + p));
                    for jj in 0..J {
                        acc[jj] = s.fma(v, weights[jj], acc[jj]);
                    }
                }
            }
            p += S::LANES;
        }
        if whole < k {
            // SAFETY: `k - whole` floats are left in each row.
            unsafe {
                for (i, acc) in acc.iter_mut().enumerate() {
                    let v = s.load_part(x.add(i * a.row_stride + whole), k - whole);
                    for (jj, acc) in acc.iter_mut().enumerate() {
                        let row = &b.values[(j + jj) * b.stride..][..k];
                        let weights = E::read(s, row, whole);
                        *acc = s.fma(v, weights, *acc);
                    }
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            for (jj, acc) in acc.iter().enumerate() {
                let sum = s.sum(*acc);
                // SAFETY: `c` is [m, n], and this piece of work alone has these columns.
                unsafe {
                    let to = c.at((i0 + i) * b.n + j + jj);
                    *to = if accumulate { *to + sum } else { sum };
                }
            }
        }
    }
}
