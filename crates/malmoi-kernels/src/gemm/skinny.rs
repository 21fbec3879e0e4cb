//! Few rows against transposed weights: each element is a dot product of two contiguous rows, the weights lie as they are and
//! are read from memory once. This is what generating one token at a time does; its limit is the memory's bandwidth.

use super::operand::round_on;
use super::{Mat, Operand};
use crate::mixed::{Values, bf16, to_f32};
use crate::scratch::scratch;
use crate::simd::{Element, Nearness, Simd, dispatched, prefetch, read, sizes};
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

/// Bytes of a cache line.
const LINE: usize = 64;

/// Rows of weights in one piece of work: about 64 thousand of them, in whole steps of any number of columns.
fn rows_per_piece(k: usize) -> usize {
    (65_536 / k.max(1)).next_multiple_of(24).clamp(24, 4096)
}

/// Rows that are multiplied together at most: their sums with three columns (two with 32 registers) fit the registers.
const fn group(lanes: usize) -> usize {
    if lanes == 16 { 8 } else { 4 }
}

/// Rows of the left-hand side, a group behind the other. Within a group of `m` rows vector `p` of row `i` is vector `p * m + i`, so
/// that what is read together lies together. The last vector of a row is filled up with zeros.
#[derive(Clone, Copy)]
struct Rows<'a> {
    vectors: &'a [f32],
    rows: usize,
    k: usize,
}

impl<'a> Rows<'a> {
    fn new(a: Mat, vectors: &'a mut [f32]) -> Rows<'a> {
        group_rows(a, vectors);
        Rows {
            vectors,
            rows: a.rows,
            k: a.cols,
        }
    }
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
    let mut vectors = scratch(m * k.next_multiple_of(sizes().lanes));
    let in_pieces = |f: &(dyn Fn(usize, usize) + Sync + Send)| {
        // The cost of a piece is reading it: about one operation for a value.
        for_each(n.div_ceil(piece), piece * k * m.div_ceil(4), |index| {
            let first = index * piece;
            f(first, (first + piece).min(n));
        });
    };
    match (a, b) {
        (Operand::Exact(a), Operand::Exact(b)) => {
            let a = Rows::new(a, &mut vectors);
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
            let a = Rows::new(Mat::row_major(&wide, m, k), &mut vectors);
            in_pieces(&|first, last| columns_bf16(a, w, first, last, out, accumulate));
        }
        _ => unreachable!("both operands are of one kind"),
    }
}

dispatched!(fn columns = columns_on(a: Rows, b: Weights<f32>, first: usize, last: usize, c: SharedMut, accumulate: bool));
dispatched!(fn columns_bf16 = columns_on(a: Rows, b: Weights<bf16>, first: usize, last: usize, c: SharedMut, accumulate: bool));
dispatched!(fn round = round_on(values: Values, at: usize, to: &mut [f32]));
dispatched!(fn group_rows = group_rows_on(a: Mat, to: &mut [f32]));

/// Fills [`Rows::vectors`].
#[inline(always)]
fn group_rows_on<S: Simd>(s: S, a: Mat, to: &mut [f32]) {
    let length = a.cols.next_multiple_of(S::LANES);
    for first in (0..a.rows).step_by(group(S::LANES)) {
        let rows = group(S::LANES).min(a.rows - first);
        let to = &mut to[first * length..][..rows * length];
        for (index, to) in to.chunks_exact_mut(S::LANES).enumerate() {
            let v = read(s, a.row(first + index % rows), index / rows * S::LANES);
            // SAFETY: the chunk is one vector long.
            unsafe { s.store(to.as_mut_ptr(), v) };
        }
    }
}

#[inline(always)]
fn columns_on<S: Simd, E: Element>(
    s: S,
    a: Rows,
    b: Weights<E>,
    first: usize,
    last: usize,
    c: SharedMut,
    accumulate: bool,
) {
    let w = Columns {
        a,
        b,
        c,
        last,
        accumulate,
    };
    match a.rows {
        1 | 2 => w.run_on::<S, 4>(s, first),
        _ if S::LANES == 16 => w.run_on::<S, 2>(s, first),
        _ => w.run_on::<S, 3>(s, first),
    }
}

/// All rows against the columns of `b` up to `last`.
#[derive(Clone, Copy)]
struct Columns<'a, E> {
    a: Rows<'a>,
    b: Weights<'a, E>,
    c: SharedMut,
    last: usize,
    accumulate: bool,
}

impl<E: Element> Columns<'_, E> {
    /// `J` columns at a time, each time all rows, so that memory and arithmetic are busy all the time.
    #[inline(always)]
    fn run_on<S: Simd, const J: usize>(self, s: S, first: usize) {
        let mut j = first;
        while j + J <= self.last {
            self.rows_on::<S, J>(s, j);
            j += J;
        }
        while j < self.last {
            self.rows_on::<S, 1>(s, j);
            j += 1;
        }
    }

    /// All rows against `J` columns.
    #[inline(always)]
    fn rows_on<S: Simd, const J: usize>(self, s: S, j: usize) {
        let rows = self.a.rows;
        for i in (0..rows).step_by(group(S::LANES)) {
            // Which of the lines ahead this group asks for: all, or with others, half.
            let asks = match i / group(S::LANES) {
                0 if rows <= group(S::LANES) => 0b11,
                0 => 0b01,
                1 => 0b10,
                _ => 0,
            };
            match group(S::LANES).min(rows - i) {
                1 => self.dots_on::<S, 1, J>(s, i, j, asks),
                2 => self.dots_on::<S, 2, J>(s, i, j, asks),
                3 => self.dots_on::<S, 3, J>(s, i, j, asks),
                4 => self.dots_on::<S, 4, J>(s, i, j, asks),
                5 => self.dots_on::<S, 5, J>(s, i, j, asks),
                6 => self.dots_on::<S, 6, J>(s, i, j, asks),
                7 => self.dots_on::<S, 7, J>(s, i, j, asks),
                _ => self.dots_on::<S, 8, J>(s, i, j, asks),
            }
        }
    }

    /// `M` rows of `a` from `i0` on by `J` columns of `b`. An element is summed the same way whatever `M` and `J` are.
    #[inline(always)]
    fn dots_on<S: Simd, const M: usize, const J: usize>(
        self,
        s: S,
        i0: usize,
        j: usize,
        mut asks: usize,
    ) {
        let Columns {
            a,
            b,
            c,
            last,
            accumulate,
        } = self;
        let k = a.k;
        let length = k.next_multiple_of(S::LANES);
        let x = a.vectors[i0 * length..][..M * length].as_ptr();
        let w = b.values.as_ptr().wrapping_add(j * b.stride);
        // Rows of weights end before the processor sees what comes; so ask, some steps ahead, but not for those of another piece,
        // which another thread reads.
        let steps = (AHEAD / (J * k * size_of::<E>()).max(1)).max(1);
        let ahead = if j + (steps + 1) * J <= last {
            steps * J * b.stride
        } else {
            0
        };
        let mut acc = [[s.zero(); J]; M];
        let line = LINE / size_of::<E>();
        let mut p = 0;
        while p + line <= k {
            for half in 0..2 {
                if asks >> half & 1 > 0 {
                    for jj in (half..J).step_by(2) {
                        let at = jj * b.stride + p;
                        prefetch(w.wrapping_add(at + ahead), Nearness::First);
                    }
                }
            }
            for p in (p..p + line).step_by(S::LANES) {
                // SAFETY: `p + LANES <= k`, and both matrices were checked to hold their rows.
                unsafe { step_on(s, &mut acc, x.add(p * M), w.add(p), b.stride) };
            }
            p += line;
            // The other half of the rows in the next line.
            asks = asks >> 1 | asks << 1 & 2;
        }
        while p + S::LANES <= k {
            // SAFETY: as above.
            unsafe { step_on(s, &mut acc, x.add(p * M), w.add(p), b.stride) };
            p += S::LANES;
        }
        if p < k {
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: rows of `a` end with whole vectors.
                let v = unsafe { s.load(x.add(p * M + i * S::LANES)) };
                for (jj, acc) in acc.iter_mut().enumerate() {
                    let row = &b.values[(j + jj) * b.stride..][..k];
                    *acc = s.fma(v, E::read(s, row, p), *acc);
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

/// A vector of each of `J` rows of weights, `stride` values apart, times one of each of `M` rows from `x` on.
///
/// # Safety
/// The vectors can be read.
#[inline(always)]
unsafe fn step_on<S: Simd, E: Element, const M: usize, const J: usize>(
    s: S,
    acc: &mut [[S::V; J]; M],
    x: *const f32,
    w: *const E,
    stride: usize,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let mut weights = [s.zero(); J];
        for (jj, weights) in weights.iter_mut().enumerate() {
            *weights = E::load(s, w.add(jj * stride));
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let v = s.load(x.add(i * S::LANES));
            for (acc, weights) in acc.iter_mut().zip(weights) {
                *acc = s.fma(v, weights, *acc);
            }
        }
    }
}
