//! 512-bit vectors (AVX-512 foundation, byte/word, doubleword/quadword and vector length).

use super::{Simd, Tile, tile};
use half::bf16;
use std::arch::x86_64::*;

/// 512-bit vectors (AVX-512 foundation, byte/word, doubleword/quadword and vector length).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The token, when this processor has the features.
    #[inline]
    pub(crate) fn new() -> Option<Avx512> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        has.then_some(Avx512(()))
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const MR: usize = 14;
    type V = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        debug_assert!(n <= Self::LANES, "{n} lanes");
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe { _mm512_maskz_loadu_ps(first(n), p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V) {
        debug_assert!(n <= Self::LANES, "{n} lanes");
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe { _mm512_mask_storeu_ps(p, first(n), v) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V {
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V) {
        // SAFETY: the token says that the processor has the instructions; the caller promises the memory.
        unsafe {
            let halves = _mm512_srli_epi32::<16>(rounded(v));
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(halves));
        }
    }
    #[inline(always)]
    fn round_bf16(self, v: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe {
            let upper = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
            _mm512_castsi512_ps(_mm512_and_si512(rounded(v), upper))
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_andnot_ps(_mm512_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn copysign(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe {
            let sign = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b))
        }
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn scale2(self, a: Self::V, n: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    fn scale2_normal(self, a: Self::V, n: Self::V) -> Self::V {
        self.scale2(a, n)
    }
    #[inline(always)]
    fn select_lt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        // SAFETY: the token says that the processor has the instructions.
        unsafe { _mm512_reduce_add_ps(a) }
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
            let mut block = [self.splat(0.0); 16];
            if cols == 16 {
                for (r, row) in block.iter_mut().enumerate().take(rows) {
                    *row = self.load(src.add(r * src_stride));
                }
            } else {
                for (r, row) in block.iter_mut().enumerate().take(rows) {
                    *row = self.load_part(src.add(r * src_stride), cols);
                }
            }
            let block = transposed(block);
            if cols == 16 {
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
                6 => run::<6>(self, t),
                7 => run::<7>(self, t),
                8 => run::<8>(self, t),
                9 => run::<9>(self, t),
                10 => run::<10>(self, t),
                11 => run::<11>(self, t),
                12 => run::<12>(self, t),
                13 => run::<13>(self, t),
                _ => run::<14>(self, t),
            }
        }
    }
}

/// # Safety
/// The processor has the features, and the promises of [`Tile`] hold.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn run<const ROWS: usize>(s: Avx512, t: Tile) {
    // SAFETY: promised by the caller.
    unsafe { tile::run::<Avx512, ROWS>(s, t) }
}

/// Bits whose upper half is `v` rounded to bf16; what the lower half holds has no meaning.
#[inline(always)]
fn rounded(v: __m512) -> __m512i {
    // SAFETY: called with the token in hand.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
        // A quiet not-a-number of the same sign.
        let none = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
        let is_none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        _mm512_mask_blend_epi32(is_none, _mm512_add_epi32(bits, half), none)
    }
}

/// A mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    if n >= 16 { u16::MAX } else { (1 << n) - 1 }
}

/// Transposes 16 x 16: pairs of rows, then fours, then the 128-bit quarters.
#[inline(always)]
pub(crate) unsafe fn transposed(r: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: called with the token in hand.
    unsafe {
        // Quarter q of `fours[4 * g + c]` holds column 4 q + c of rows 4 g .. 4 g + 4.
        let mut fours = [_mm512_setzero_ps(); 16];
        for g in 0..4 {
            let low = _mm512_unpacklo_ps(r[4 * g], r[4 * g + 1]);
            let high = _mm512_unpackhi_ps(r[4 * g], r[4 * g + 1]);
            let low2 = _mm512_unpacklo_ps(r[4 * g + 2], r[4 * g + 3]);
            let high2 = _mm512_unpackhi_ps(r[4 * g + 2], r[4 * g + 3]);
            fours[4 * g] = _mm512_shuffle_ps::<0x44>(low, low2);
            fours[4 * g + 1] = _mm512_shuffle_ps::<0xEE>(low, low2);
            fours[4 * g + 2] = _mm512_shuffle_ps::<0x44>(high, high2);
            fours[4 * g + 3] = _mm512_shuffle_ps::<0xEE>(high, high2);
        }
        let mut out = [_mm512_setzero_ps(); 16];
        for c in 0..4 {
            // Quarters (0, 1) and (2, 3) of two groups of rows, then the even and odd ones apart.
            let a = _mm512_shuffle_f32x4::<0x44>(fours[c], fours[4 + c]);
            let b = _mm512_shuffle_f32x4::<0x44>(fours[8 + c], fours[12 + c]);
            let a2 = _mm512_shuffle_f32x4::<0xEE>(fours[c], fours[4 + c]);
            let b2 = _mm512_shuffle_f32x4::<0xEE>(fours[8 + c], fours[12 + c]);
            out[c] = _mm512_shuffle_f32x4::<0x88>(a, b);
            out[4 + c] = _mm512_shuffle_f32x4::<0xDD>(a, b);
            out[8 + c] = _mm512_shuffle_f32x4::<0x88>(a2, b2);
            out[12 + c] = _mm512_shuffle_f32x4::<0xDD>(a2, b2);
        }
        out
    }
}
