//! Between f32 and bf16.

use super::bf16;
use crate::threads::{SharedMut, for_each};

/// Values in a piece of work.
const CHUNK: usize = 32_768;

/// Rounds to the nearest bf16, ties to even; not-a-number stays one.
///
/// # Panics
/// When the lengths differ.
pub fn to_bf16(x: &[f32], y: &mut [bf16]) {
    assert_eq!(
        x.len(),
        y.len(),
        "to_bf16: both slices have the same length"
    );
    let out = SharedMut::new(y);
    for_each(x.len().div_ceil(CHUNK), CHUNK, |index| {
        let at = index * CHUNK..((index + 1) * CHUNK).min(x.len());
        // SAFETY: every index has its own chunk.
        let y = unsafe { out.slice(at.start, at.len()) };
        narrow(&x[at], y);
    });
}

/// Widens exactly.
///
/// # Panics
/// When the lengths differ.
pub fn to_f32(x: &[bf16], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "to_f32: both slices have the same length");
    let out = SharedMut::new(y);
    for_each(x.len().div_ceil(CHUNK), CHUNK, |index| {
        let at = index * CHUNK..((index + 1) * CHUNK).min(x.len());
        // SAFETY: every index has its own chunk.
        let y = unsafe { out.slice(at.start, at.len()) };
        widen(&x[at], y);
    });
}

/// `x += y`, each sum rounded.
///
/// # Panics
/// When the lengths differ.
pub fn add_in_place(x: &mut [bf16], y: &[bf16]) {
    assert_eq!(
        x.len(),
        y.len(),
        "add_in_place: both slices have the same length"
    );
    crate::threads::chunks_mut(x, CHUNK, 1, |at, x| add(&y[at..at + x.len()], x));
}

/// Rounds f32 values to those that bf16 can hold.
pub fn round_to_bf16(x: &mut [f32]) {
    crate::threads::chunks_mut(x, CHUNK, 1, |_, x| {
        for x in x {
            *x = f32::from_bits(round_bits(*x) << 16);
        }
    });
}

/// The upper half of `x`, rounded. Written so that the compiler vectorises it.
#[inline(always)]
pub(crate) fn round_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    // A quiet not-a-number of the same sign.
    if x.is_nan() {
        bits >> 16 | 0x40
    } else {
        rounded
    }
}

#[inline(always)]
fn narrow_on(x: &[f32], y: &mut [bf16]) {
    for (x, y) in x.iter().zip(y) {
        *y = bf16::from_bits(round_bits(*x) as u16);
    }
}

#[inline(always)]
fn widen_on(x: &[bf16], y: &mut [f32]) {
    for (x, y) in x.iter().zip(y) {
        *y = f32::from_bits(u32::from(x.to_bits()) << 16);
    }
}

#[inline(always)]
fn add_on(x: &[bf16], y: &mut [bf16]) {
    for (x, y) in x.iter().zip(y) {
        let sum = f32::from_bits(u32::from(x.to_bits()) << 16)
            + f32::from_bits(u32::from(y.to_bits()) << 16);
        *y = bf16::from_bits(round_bits(sum) as u16);
    }
}

/// Defines a function that the compiler vectorises for the instruction set in use.
macro_rules! vectorised {
    ($name:ident = $generic:ident($x:ident: $in:ty, $y:ident: $out:ty)) => {
        pub(crate) fn $name($x: $in, $y: $out) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn on_avx512($x: $in, $y: $out) {
                    $generic($x, $y);
                }
                #[target_feature(enable = "avx2,fma")]
                fn on_avx2($x: $in, $y: $out) {
                    $generic($x, $y);
                }
                match crate::simd::token() {
                    // SAFETY: the token says that the processor has the features.
                    crate::simd::Token::Avx512(_) => return unsafe { on_avx512($x, $y) },
                    // SAFETY: as above.
                    crate::simd::Token::Avx2(_) => return unsafe { on_avx2($x, $y) },
                    crate::simd::Token::Portable => {}
                }
            }
            $generic($x, $y);
        }
    };
}

vectorised!(narrow = narrow_on(x: &[f32], y: &mut [bf16]));
vectorised!(add = add_on(x: &[bf16], y: &mut [bf16]));
vectorised!(widen = widen_on(x: &[bf16], y: &mut [f32]));
