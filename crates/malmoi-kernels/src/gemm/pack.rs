//! Bringing panels of `a` and `b` into the order that the tile reads them in.

use super::Mat;
use crate::simd::Simd;

/// Packs columns `j0 .. j0 + cols` (at most `NR`) of rows `p0 .. p0 + kc` of `b` as [kc, NR], zeros behind the last column.
#[inline(always)]
pub(crate) fn pack_b_on<S: Simd>(
    s: S,
    b: Mat,
    p0: usize,
    kc: usize,
    j0: usize,
    cols: usize,
    to: &mut [f32],
) {
    debug_assert!(
        cols <= S::NR && to.len() >= kc * S::NR && j0 + cols <= b.cols && p0 + kc <= b.rows
    );
    let (from, dst) = (b.data.as_ptr(), to.as_mut_ptr());
    if b.col_stride == 1 {
        for p in 0..kc {
            // SAFETY: `b` was checked to hold its rows and columns, and `to` holds kc * NR floats.
            unsafe {
                let row = from.add((p0 + p) * b.row_stride + j0);
                let out = dst.add(p * S::NR);
                for half in 0..2 {
                    let at = half * S::LANES;
                    let left = cols.saturating_sub(at);
                    let v = if left >= S::LANES {
                        s.load(row.add(at))
                    } else {
                        s.load_part(row.wrapping_add(at), left)
                    };
                    s.store(out.add(at), v);
                }
            }
        }
    } else if b.row_stride == 1 {
        // Rows of the transpose: blocks of LANES columns by LANES rows are transposed in registers.
        for half in 0..2 {
            let at = half * S::LANES;
            let rows = cols.saturating_sub(at).min(S::LANES);
            let mut p = 0;
            while p < kc {
                let n = S::LANES.min(kc - p);
                // SAFETY: as above; with no rows nothing is read.
                unsafe {
                    let src = from.wrapping_add((j0 + at) * b.col_stride + p0 + p);
                    s.transpose(src, b.col_stride, rows, n, dst.add(p * S::NR + at), S::NR);
                }
                p += n;
            }
        }
    } else {
        for p in 0..kc {
            for j in 0..S::NR {
                let at = (p0 + p) * b.row_stride + (j0 + j) * b.col_stride;
                to[p * S::NR + j] = if j < cols { b.data[at] } else { 0.0 };
            }
        }
    }
}

/// Packs rows `i0 .. i0 + rows` (at most `MR`) of columns `p0 .. p0 + kc` of `a` as [kc, rows]. `to` needs room for a vector
/// behind the end.
#[inline(always)]
pub(crate) fn pack_a_on<S: Simd>(
    s: S,
    a: Mat,
    i0: usize,
    rows: usize,
    p0: usize,
    kc: usize,
    to: &mut [f32],
) {
    debug_assert!(
        rows <= S::MR
            && to.len() >= kc * rows + S::LANES
            && i0 + rows <= a.rows
            && p0 + kc <= a.cols
    );
    let (from, dst) = (a.data.as_ptr(), to.as_mut_ptr());
    if a.col_stride == 1 {
        let mut p = 0;
        while p < kc {
            let n = S::LANES.min(kc - p);
            // SAFETY: `a` was checked to hold its rows and columns. Each column is written as a whole vector whose end the
            // next column overwrites; the last one ends within the vector of room behind.
            unsafe {
                let src = from.add(i0 * a.row_stride + p0 + p);
                s.transpose(src, a.row_stride, rows, n, dst.add(p * rows), rows);
            }
            p += n;
        }
    } else if a.row_stride == 1 {
        for p in 0..kc {
            // SAFETY: as above.
            unsafe {
                let src = from.add((p0 + p) * a.col_stride + i0);
                s.store(dst.add(p * rows), s.load_part(src, rows));
            }
        }
    } else {
        for p in 0..kc {
            for i in 0..rows {
                to[p * rows + i] = a.data[(i0 + i) * a.row_stride + (p0 + p) * a.col_stride];
            }
        }
    }
}
