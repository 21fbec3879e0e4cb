//! What the products by blocks and panels take: matrices of f32 as they are, or of either format rounded to bf16 on the way into
//! panels, which hold f32 in any case.

use super::Mat;
use super::pack::{pack_a_on, pack_b_on};
use crate::mixed::{Matrix, Values};
use crate::scratch::scratch;
use crate::simd::{Simd, dispatched, read, read_bf16, vectors, write};

/// An operand of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a> {
    /// Its values as they are.
    Exact(Mat<'a>),
    /// Its values rounded to bf16.
    Rounded(Matrix<'a>),
}

impl Operand<'_> {
    pub(super) fn rows(&self) -> usize {
        match self {
            Operand::Exact(mat) => mat.rows,
            Operand::Rounded(matrix) => matrix.rows,
        }
    }

    pub(super) fn cols(&self) -> usize {
        match self {
            Operand::Exact(mat) => mat.cols,
            Operand::Rounded(matrix) => matrix.cols,
        }
    }

    /// Whether the elements of a column are neighbours.
    pub(super) fn has_contiguous_columns(&self) -> bool {
        match self {
            Operand::Exact(mat) => mat.row_stride == 1,
            Operand::Rounded(matrix) => matrix.row_stride == 1,
        }
    }

    /// Where element (`row`, `col`) is, for asking ahead; it may lie behind the end.
    pub(super) fn place(&self, row: usize, col: usize) -> *const f32 {
        match self {
            Operand::Exact(mat) => {
                let at = row * mat.row_stride + col * mat.col_stride;
                mat.data.as_ptr().wrapping_add(at)
            }
            Operand::Rounded(matrix) => {
                let at = row * matrix.row_stride + col * matrix.col_stride;
                match matrix.values {
                    Values::F32(values) => values.as_ptr().wrapping_add(at),
                    Values::Bf16(values) => values.as_ptr().wrapping_add(at).cast(),
                }
            }
        }
    }

    /// See [`super::pack::pack_a_on`].
    #[inline(always)]
    pub(super) fn pack_a_on<S: Simd>(
        self,
        s: S,
        i0: usize,
        rows: usize,
        p0: usize,
        kc: usize,
        to: &mut [f32],
    ) {
        let a = match self {
            Operand::Exact(a) => return pack_a_on(s, a, i0, rows, p0, kc, to),
            Operand::Rounded(a) => a,
        };
        debug_assert!(
            rows <= S::MR
                && to.len() >= kc * rows + S::LANES
                && i0 + rows <= a.rows
                && p0 + kc <= a.cols
        );
        if a.col_stride == 1 {
            let mut wide = scratch(rows * kc);
            for i in 0..rows {
                let at = (i0 + i) * a.row_stride + p0;
                round_on(s, a.values, at, &mut wide[i * kc..][..kc]);
            }
            pack_a_on(s, Mat::row_major(&wide, rows, kc), 0, rows, 0, kc, to);
        } else {
            // Whole vectors where there are any, whose ends the next column overwrites.
            let end = a.values.len();
            for p in 0..kc {
                let at = (p0 + p) * a.col_stride + i0;
                let len = if at + S::LANES <= end { S::LANES } else { rows };
                round_on(s, a.values, at, &mut to[p * rows..][..len]);
            }
        }
    }

    /// See [`super::pack::pack_b_on`].
    #[inline(always)]
    pub(super) fn pack_b_on<S: Simd>(
        self,
        s: S,
        p0: usize,
        kc: usize,
        j0: usize,
        cols: usize,
        to: &mut [f32],
    ) {
        let b = match self {
            Operand::Exact(b) => return pack_b_on(s, b, p0, kc, j0, cols, to),
            Operand::Rounded(b) => b,
        };
        debug_assert!(
            cols <= S::NR && to.len() >= kc * S::NR && j0 + cols <= b.cols && p0 + kc <= b.rows
        );
        if b.col_stride == 1 {
            for p in 0..kc {
                let row = &mut to[p * S::NR..][..S::NR];
                round_on(s, b.values, (p0 + p) * b.row_stride + j0, &mut row[..cols]);
                row[cols..].fill(0.0);
            }
        } else {
            // Rows of the transpose, a stretch at a time that stays in the first-level cache.
            let stretch = kc.min(STRETCH);
            let mut wide = scratch(cols * stretch);
            for p in (0..kc).step_by(STRETCH) {
                let n = stretch.min(kc - p);
                for j in 0..cols {
                    let at = (j0 + j) * b.col_stride + p0 + p;
                    round_on(s, b.values, at, &mut wide[j * n..][..n]);
                }
                let rows = Mat::row_major(&wide[..cols * n], cols, n);
                pack_b_on(s, rows.t(), 0, n, 0, cols, &mut to[p * S::NR..]);
            }
        }
    }
}

/// Values of a column that are rounded at a time.
const STRETCH: usize = 128;

dispatched!(
    /// Packs a panel of `b`; see [`Operand::pack_b_on`].
    pub(super) fn pack_b = on_b(b: Operand, p0: usize, kc: usize, j0: usize, cols: usize, to: &mut [f32])
);

#[inline(always)]
fn on_b<S: Simd>(s: S, b: Operand, p0: usize, kc: usize, j0: usize, cols: usize, to: &mut [f32]) {
    b.pack_b_on(s, p0, kc, j0, cols, to);
}

/// Values from `at` on, rounded to bf16.
#[inline(always)]
pub(super) fn round_on<S: Simd>(s: S, values: Values, at: usize, to: &mut [f32]) {
    match values {
        Values::F32(values) => {
            let values = &values[at..][..to.len()];
            vectors!(s, to.len(), |i| write(
                s,
                to,
                i,
                s.round_bf16(read(s, values, i))
            ));
        }
        Values::Bf16(values) => {
            let values = &values[at..][..to.len()];
            vectors!(s, to.len(), |i| write(s, to, i, read_bf16(s, values, i)));
        }
    }
}
