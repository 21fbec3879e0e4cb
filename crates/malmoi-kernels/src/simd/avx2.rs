//! 256-bit vectors with fused multiply-add.

use super::{Simd, Tile, tile};
use half::bf16;
use std::arch::x86_64::*;

/// 256-bit vectors with fused multiply-add.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token, when this processor has the features.
    #[inline]
    pub(crate) fn new() -> Option<Avx2> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        has.then_some(Avx2(()))
    }
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const MR: usize = 6;
    const UNROLL: usize = 4;
    const ASKS_AHEAD: bool = false;
    type V = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        debug_assert!(n <= Self::LANES, "{n} lanes");
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe { _mm256_maskload_ps(p, first(n)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V) {
        debug_assert!(n <= Self::LANES, "{n} lanes");
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe { _mm256_maskstore_ps(p, first(n), v) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V {
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V) {
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe {
            let halves = _mm256_srli_epi32::<16>(rounded(v));
            // Packed within each 128-bit half, then the halves brought together.
            let packed = _mm256_packus_epi32(halves, halves);
            let packed = _mm256_permute4x64_epi64::<0b1000>(packed);
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(packed));
        }
    }
    #[inline(always)]
    fn round_bf16(self, v: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe {
            let upper = _mm256_set1_epi32(0xFFFF_0000_u32 as i32);
            _mm256_castsi256_ps(_mm256_and_si256(rounded(v), upper))
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_sqrt_ps(a) }
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn copysign(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b))
        }
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn scale2(self, a: Self::V, n: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe {
            // In two factors, so that each is a normal number.
            let n = _mm256_cvtps_epi32(n);
            let first = _mm256_srai_epi32::<1>(n);
            let second = _mm256_sub_epi32(n, first);
            let bias = _mm256_set1_epi32(127);
            let first = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(first, bias)));
            let second =
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(second, bias)));
            _mm256_mul_ps(_mm256_mul_ps(a, first), second)
        }
    }
    #[inline(always)]
    fn scale2_normal(self, a: Self::V, n: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe {
            let exponents = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponents))
        }
    }
    #[inline(always)]
    fn select_lt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        // SAFETY: the token says that the processor has the instructions.
        unsafe {
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
    }
    #[inline(always)]
    unsafe fn transpose(
        self,
        src: *const f32,
        src_stride: usize,
        rows: usize,
        cols: usize,
        dst: *mut f32,
        dst_stride: usize,
    ) {
        debug_assert!(rows.max(cols) <= Self::LANES, "a block of {rows} x {cols}");
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe {
            let mut block = [self.splat(0.0); 8];
            if cols == 8 {
                for (r, row) in block.iter_mut().enumerate().take(rows) {
                    *row = self.load(src.add(r * src_stride));
                }
            } else {
                for (r, row) in block.iter_mut().enumerate().take(rows) {
                    *row = self.load_part(src.add(r * src_stride), cols);
                }
            }
            let block = transposed(block);
            if cols == 8 {
                for (c, column) in block.iter().enumerate() {
                    self.store(dst.add(c * dst_stride), *column);
                }
            } else {
                for (c, column) in block.iter().enumerate().take(cols) {
                    self.store(dst.add(c * dst_stride), *column);
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn tile(self, rows: usize, t: Tile) {
        debug_assert!(rows <= Self::MR, "a tile of {rows} rows");
        // SAFETY: the token says that the processor has the instructions; the rest is promised by the caller.
        unsafe {
            match rows {
                0 => {}
                1 => run::<1>(self, t),
                2 => run::<2>(self, t),
                3 => run::<3>(self, t),
                4 => run::<4>(self, t),
                5 => run::<5>(self, t),
                _ => run::<6>(self, t),
            }
        }
    }
}

/// # Safety
/// The processor has the features, and the promises of [`Tile`] hold.
#[target_feature(enable = "avx2,fma")]
unsafe fn run<const ROWS: usize>(s: Avx2, t: Tile) {
    // SAFETY: promised by the caller.
    unsafe { tile::run::<Avx2, ROWS>(s, t) }
}

/// Bits whose upper half is `v` rounded to bf16; what the lower half holds has no meaning.
#[inline(always)]
fn rounded(v: __m256) -> __m256i {
    // SAFETY: called with the token in hand.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
        let number = _mm256_castsi256_ps(_mm256_add_epi32(bits, half));
        // A quiet not-a-number of the same sign.
        let none = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let is_none = _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v);
        _mm256_castps_si256(_mm256_blendv_ps(number, _mm256_castsi256_ps(none), is_none))
    }
}

/// A mask of the first `n` lanes, in the sign bits.
#[inline(always)]
fn first(n: usize) -> __m256i {
    // SAFETY: called with the token in hand.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lanes)
    }
}

/// Transposes 8 x 8: pairs of rows, then fours, then the 128-bit halves.
#[inline(always)]
unsafe fn transposed(r: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: called with the token in hand.
    unsafe {
        // Half h of `fours[4 * g + c]` holds column 4 h + c of rows 4 g .. 4 g + 4.
        let mut fours = [_mm256_setzero_ps(); 8];
        for g in 0..2 {
            let low = _mm256_unpacklo_ps(r[4 * g], r[4 * g + 1]);
            let high = _mm256_unpackhi_ps(r[4 * g], r[4 * g + 1]);
            let low2 = _mm256_unpacklo_ps(r[4 * g + 2], r[4 * g + 3]);
            let high2 = _mm256_unpackhi_ps(r[4 * g + 2], r[4 * g + 3]);
            fours[4 * g] = _mm256_shuffle_ps::<0x44>(low, low2);
            fours[4 * g + 1] = _mm256_shuffle_ps::<0xEE>(low, low2);
            fours[4 * g + 2] = _mm256_shuffle_ps::<0x44>(high, high2);
            fours[4 * g + 3] = _mm256_shuffle_ps::<0xEE>(high, high2);
        }
        let mut out = [_mm256_setzero_ps(); 8];
        for c in 0..4 {
            out[c] = _mm256_permute2f128_ps::<0x20>(fours[c], fours[4 + c]);
            out[4 + c] = _mm256_permute2f128_ps::<0x31>(fours[c], fours[4 + c]);
        }
        out
    }
}
