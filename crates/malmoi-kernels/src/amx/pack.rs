//! Bringing operands into tiles.
//!
//! A tile of the left operand is 16 rows of 32 values; a tile of the right one is 16 pairs of rows by 16 columns, each pair
//! side by side. Whichever way a matrix lies in memory, one of two loads fits: 16 contiguous rows ("rows"), or 32 rows of 16
//! contiguous values woven in pairs ("pairs"). Seen as 32-bit units each is the transpose of what the other operand needs.

use std::arch::x86_64::*;

use super::STEP;
use crate::mixed::{Matrix, Values};

/// One tile: 16 rows of 64 bytes.
type Tile = [__m512i; 16];

/// Features of every function here.
macro_rules! with_features {
    ($($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {
        $(
            $(#[$meta])*
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
            $vis unsafe fn $name($($arg: $ty),*) $(-> $ret)? $body
        )*
    };
}

with_features! {
    /// Writes the tile of rows `i ..` and columns `k ..` of the left operand [m, k] to `to`, zeros outside of it.
    ///
    /// # Safety
    /// The processor has the features; `to` has room for half of [`super::STEP_VALUES`] values and is aligned to 64 bytes.
    pub(super) unsafe fn left_tile(a: Matrix, i: usize, k: usize, to: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            let tile = if a.col_stride == 1 {
                rows(a, i, k)
            } else {
                transposed(pairs(a.t(), k, i))
            };
            store(tile, to);
        }
    }

    /// Writes the two tiles of rows `i ..` and columns `k ..` of the left operand, one after the other.
    ///
    /// # Safety
    /// As [`left_tile`], with room for two tiles.
    pub(super) unsafe fn left(a: Matrix, i: usize, k: usize, to: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            left_tile(a, i, k, to);
            left_tile(a, i + 16, k, to.add(512));
        }
    }

    /// Writes the two tiles of rows `k0 ..` and columns `j0 ..` of the right operand [k, n] to `to`, zeros outside of it.
    ///
    /// # Safety
    /// As [`left`], with room for two tiles.
    pub(super) unsafe fn right(b: Matrix, k0: usize, j0: usize, to: *mut u16) {
        for half in 0..2 {
            let j = j0 + 16 * half;
            // SAFETY: promised by the caller.
            unsafe {
                let tile = if b.col_stride == 1 {
                    pairs(b, k0, j)
                } else {
                    transposed(rows(b.t(), j, k0))
                };
                store(tile, to.add(512 * half));
            }
        }
    }

    /// Rows `i .. i + 16` and columns `k .. k + 32` of a matrix whose rows are contiguous.
    unsafe fn rows(a: Matrix, i: usize, k: usize) -> Tile {
        let cols = a.cols.saturating_sub(k).min(STEP);
        let count = a.rows.saturating_sub(i).min(16);
        debug_assert!(a.col_stride == 1);
        debug_assert!(count == 0 || cols == 0 || (i + count - 1) * a.row_stride + k + cols <= a.values.len());
        let mut tile = [_mm512_setzero_si512(); 16];
        for (r, row) in tile.iter_mut().enumerate().take(count) {
            let at = (i + r) * a.row_stride + k;
            // SAFETY: `cols` values of row `i + r` lie at `at`; masked lanes are not read.
            *row = unsafe {
                match a.values {
                    Values::Bf16(x) => {
                        let mask = mask32(cols);
                        _mm512_maskz_loadu_epi16(mask, x.as_ptr().add(at).cast())
                    }
                    Values::F32(x) => {
                        let x = x.as_ptr().wrapping_add(at);
                        let low = _mm512_maskz_loadu_ps(mask16(cols), x);
                        let high = _mm512_maskz_loadu_ps(mask16(cols.saturating_sub(16)), x.wrapping_add(16));
                        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                    }
                }
            };
        }
        tile
    }

    /// Rows `k .. k + 32` in pairs and columns `j .. j + 16` of a matrix whose rows are contiguous.
    unsafe fn pairs(b: Matrix, k: usize, j: usize) -> Tile {
        let cols = b.cols.saturating_sub(j).min(16);
        let count = b.rows.saturating_sub(k).min(STEP);
        debug_assert!(b.col_stride == 1);
        debug_assert!(count == 0 || cols == 0 || (k + count - 1) * b.row_stride + j + cols <= b.values.len());
        let mask = mask16(cols);
        let weave = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
            17, 1, 16, 0,
        );
        let mut tile = [_mm512_setzero_si512(); 16];
        for (p, pair) in tile.iter_mut().enumerate().take(count.div_ceil(2)) {
            let at = (k + 2 * p) * b.row_stride + j;
            let second = 2 * p + 1 < count;
            // SAFETY: `cols` values of each row lie at `at` and a stride further; masked lanes are not read.
            *pair = unsafe {
                match b.values {
                    Values::Bf16(x) => {
                        let x = x.as_ptr().wrapping_add(at);
                        let low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x.cast()));
                        let high = if second {
                            let x = x.wrapping_add(b.row_stride);
                            _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x.cast()))
                        } else {
                            _mm512_setzero_si512()
                        };
                        _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
                    }
                    Values::F32(x) => {
                        let x = x.as_ptr().wrapping_add(at);
                        let low = _mm512_maskz_loadu_ps(mask, x);
                        let high = if second {
                            _mm512_maskz_loadu_ps(mask, x.wrapping_add(b.row_stride))
                        } else {
                            _mm512_setzero_ps()
                        };
                        let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                        _mm512_permutexvar_epi16(weave, both)
                    }
                }
            };
        }
        tile
    }

    /// The transpose of a tile as 16 x 16 units of 32 bits.
    unsafe fn transposed(tile: Tile) -> Tile {
        // SAFETY: the features are there; the two types have the same size and any bits are valid in both.
        unsafe {
            let tile = std::mem::transmute::<Tile, [__m512; 16]>(tile);
            std::mem::transmute::<[__m512; 16], Tile>(crate::simd::transpose16(tile))
        }
    }

    unsafe fn store(tile: Tile, to: *mut u16) {
        debug_assert!(to.addr().is_multiple_of(64), "a tile at {to:?}");
        for (r, row) in tile.iter().enumerate() {
            // SAFETY: promised by the callers.
            unsafe { _mm512_store_si512(to.add(32 * r).cast(), *row) };
        }
    }
}

/// A mask of the first `n` of 32 lanes.
#[inline(always)]
fn mask32(n: usize) -> __mmask32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

/// A mask of the first `n` of 16 lanes.
#[inline(always)]
fn mask16(n: usize) -> __mmask16 {
    if n >= 16 { u16::MAX } else { (1 << n) - 1 }
}
