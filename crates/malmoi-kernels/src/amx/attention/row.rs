//! One query's row of scores.

use std::arch::x86_64::*;
use std::ops::Range;

use super::Head;
use crate::amx::activate::exp2;
use crate::attention::{Dropout, Mask};
use crate::dropout::threshold;
use crate::random::philox_lanes;
use crate::simd::{Avx512, Simd};

/// Floats of a vector.
pub(super) const LANES: usize = 16;

/// The keys that a query sees, as places in its row of scores.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) head: Head<'a>,
    /// The query.
    pub(super) i: usize,
    /// The key at the start of the row: a multiple of 32.
    pub(super) first: usize,
    /// The first place that it sees.
    pub(super) start: usize,
    /// Behind the last place that it sees.
    pub(super) end: usize,
}

impl<'a> Row<'a> {
    pub(super) fn new(head: Head<'a>, i: usize, first: usize) -> Row<'a> {
        let keys = head.shape.mask.keys_of(i, head.nq, head.nk);
        // An empty range can lie anywhere.
        let (start, end) = if keys.is_empty() {
            (first, first)
        } else {
            (keys.start, keys.end)
        };
        Row {
            head,
            i,
            first,
            start: start - first,
            end: end - first,
        }
    }

    /// The vectors that hold any key it sees.
    #[inline(always)]
    pub(super) fn vectors(&self) -> Range<usize> {
        self.start / LANES..self.end.div_ceil(LANES)
    }

    /// Which lanes of vector `v` hold keys that it sees.
    #[inline(always)]
    pub(super) fn lanes(&self, v: usize) -> __mmask16 {
        let (start, end) = (v * LANES, (v + 1) * LANES);
        if self.start <= start && self.end >= end {
            return u16::MAX;
        }
        let below = |place: usize| ((1_u32 << place.saturating_sub(start).min(LANES)) - 1) as u16;
        below(self.end) & !below(self.start)
    }

    /// Whether scores need more than a factor before the softmax.
    pub(super) fn is_plain(&self) -> bool {
        let shape = self.head.shape;
        shape.bias.is_none() && !matches!(shape.mask, Mask::Strided { .. }) && shape.scale > 0.0
    }

    /// Scales the scores and adds the bias; minus infinity for keys between those of a stride.
    ///
    /// # Safety
    /// `scores` holds the row's vectors.
    #[inline(always)]
    pub(super) unsafe fn prepare(&self, s: Avx512, scores: *mut f32) {
        let Head {
            shape,
            head,
            nq,
            nk,
            ..
        } = self.head;
        let bias = shape.bias.map(|bias| (bias, bias.of_head(head)));
        let reversed = reversed();
        for v in self.vectors() {
            let lanes = self.lanes(v);
            // SAFETY: promised by the caller; of the bias only lanes of keys that exist are read.
            unsafe {
                let at = scores.add(v * LANES);
                let mut x = s.mul(s.load(at), s.splat(shape.scale));
                if let Some((bias, row)) = bias {
                    // The values of neighbouring keys lie next to each other, in falling order.
                    let last = self.first + v * LANES + LANES - 1;
                    let from = bias_place(bias.reach, self.i + nk, nq, last);
                    let mirrored = lanes.reverse_bits();
                    let row = row.as_ptr().wrapping_offset(from);
                    let b = _mm512_maskz_loadu_ps(mirrored, row);
                    x = s.add(x, _mm512_permutexvar_ps(reversed, b));
                }
                if let Mask::Strided { .. } = shape.mask {
                    let mut sees = 0_u16;
                    for lane in 0..LANES {
                        let key = self.first + v * LANES + lane;
                        if lanes >> lane & 1 == 1 && shape.mask.sees(self.i, key, nq, nk) {
                            sees |= 1 << lane;
                        }
                    }
                    x = _mm512_mask_blend_ps(sees, s.splat(f32::NEG_INFINITY), x);
                }
                s.store(at, x);
            }
        }
    }

    /// Adds `ds` to the gradient of the bias.
    ///
    /// # Safety
    /// `ds` holds the row's vectors, with zeros for keys that it does not see; `row` holds the bias of the head.
    #[inline(always)]
    pub(super) unsafe fn add_to_bias(
        &self,
        s: Avx512,
        ds: *const f32,
        reach: usize,
        row: *mut f32,
    ) {
        let Head { nq, nk, .. } = self.head;
        let reversed = reversed();
        for v in self.vectors() {
            let last = self.first + v * LANES + LANES - 1;
            let from = bias_place(reach, self.i + nk, nq, last);
            let mirrored = self.lanes(v).reverse_bits();
            // SAFETY: promised by the caller; lanes of keys that don't exist are neither read nor written.
            unsafe {
                let to = row.wrapping_offset(from);
                let d = _mm512_permutexvar_ps(reversed, s.load(ds.add(v * LANES)));
                let sum = s.add(_mm512_maskz_loadu_ps(mirrored, to), d);
                _mm512_mask_storeu_ps(to, mirrored, sum);
            }
        }
    }

    /// Which keys dropout keeps, a bit a key from the last multiple of 64 at or before [`Row::first`].
    #[inline(always)]
    pub(super) fn kept(&self, dropout: Dropout, kept: &mut Vec<u64>) {
        kept.clear();
        let limit = threshold(dropout.p);
        let start = self.first / 64;
        for group in start..(self.first + self.end).div_ceil(64) {
            let quads = std::array::from_fn(|lane| (group * 16 + lane) as u32);
            let words = philox_lanes::<16>(
                [
                    quads,
                    [self.i as u32; 16],
                    [self.head.head as u32; 16],
                    [self.head.sequence as u32; 16],
                ],
                dropout.key.words,
            );
            let mut bits = 0;
            for (word, words) in words.iter().enumerate() {
                // SAFETY: the tile unit's token says that the processor has the features; an array of a whole vector.
                unsafe {
                    let words = _mm512_loadu_si512(words.as_ptr().cast());
                    let survive = _mm512_cmpge_epu32_mask(words, _mm512_set1_epi32(limit as i32));
                    // Words of a quad belong to neighbouring keys.
                    bits |= _pdep_u64(u64::from(survive), 0x1111_1111_1111_1111 << word);
                }
            }
            kept.push(bits);
        }
    }

    /// Of [`Row::kept`], the lanes of vector `v`.
    #[inline(always)]
    pub(super) fn kept_lanes(&self, kept: &[u64], v: usize) -> __mmask16 {
        let place = self.first % 64 + v * LANES;
        (kept[place / 64] >> (place % 64)) as u16
    }
}

/// Where the bias of a key stands in the row of a head, before the row's start for lanes behind the last key; see
/// [`crate::attention::Bias`].
#[inline(always)]
fn bias_place(reach: usize, query: usize, nq: usize, key: usize) -> isize {
    (reach - 1 + query) as isize - nq as isize - key as isize
}

#[inline(always)]
fn reversed() -> __m512i {
    // SAFETY: the tile unit's token says that the processor has the features.
    unsafe { _mm512_set_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) }
}

/// `2^t`, and 0 where that is subnormal or the lane is not asked for; what is not a number stays.
#[inline(always)]
pub(super) fn power(s: Avx512, lanes: __mmask16, t: __m512) -> __m512 {
    // SAFETY: the token says that the processor has the features.
    unsafe {
        let lowest = s.splat(-126.0);
        let normal = _mm512_mask_cmp_ps_mask::<_CMP_NLT_UQ>(lanes, t, lowest);
        _mm512_maskz_mov_ps(normal, exp2(s, s.max(lowest, t)))
    }
}
