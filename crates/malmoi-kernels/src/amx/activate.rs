//! Activations of results that are rounded to bf16.
//!
//! While the tile unit works, the vector unit has about one instruction every two cycles for the finishing of a block; what takes longer
//! keeps the tile unit waiting. So GELU and its tanh form are `x · (1/2 + x · p(x²))` with a polynomial where the function bends,
//! 14 instructions: off by 2.6e-5 at most, which is what bf16 does to a value of 0.013 (half a unit in the last place, `2^-9` of it), while
//! the outputs that carry a layer's sums are larger. SiLU and the sigmoid form of GELU bend further out and are
//! `x · σ(u)` with a short exponential and a reciprocal estimate, good to `2^-10` of a value.

use std::arch::x86_64::*;

use crate::activation::{Activation, QUICK_GELU, derivative_on, value_on};
use crate::simd::{Avx512, Simd};

/// An odd function plus a half: `1/2 + x · p(x² - reach²/2)` for `|x| <= reach`, 0 below and what it is at `reach` above. The coefficients of `p` are
/// those of the least largest error (in `x` times the function for values, in the function for derivatives). The shift keeps its
/// terms small, which would cancel each other at the ends in f32.
struct Bend<const N: usize> {
    reach: f32,
    p: [f32; N],
}

/// `Φ(x)`, the normal distribution.
const GELU: Bend<9> = Bend {
    reach: 4.4,
    p: [
        1.604_044_1e-1,
        -8.121_107e-3,
        5.896_382_5e-4,
        -4.419_79e-5,
        3.052_591_9e-6,
        -1.879_828_6e-7,
        1.335_550_9e-8,
        -9.899_854e-10,
        3.572_619e-11,
    ],
};
/// `(1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`.
const GELU_TANH: Bend<9> = Bend {
    reach: 4.3,
    p: [
        1.640_957_7e-1,
        -8.670_65e-3,
        6.512_608_4e-4,
        -4.984_915e-5,
        3.468_274_6e-6,
        -2.127_282_5e-7,
        1.568_555_6e-8,
        -1.269_366_7e-9,
        4.936_081_8e-11,
    ],
};
/// The derivative of GELU, `Φ(x) + x φ(x)`, to 6.9e-5.
const GELU_SLOPE: Bend<10> = Bend {
    reach: 4.5,
    p: [
        1.594_457_6e-1,
        -8.881_284e-3,
        8.407_101e-4,
        -9.187_897e-5,
        9.994_716e-6,
        -8.247_302_5e-7,
        4.430_421_2e-8,
        -4.169_557_6e-9,
        5.067_253e-10,
        -2.210_813_7e-11,
    ],
};
/// The derivative of its tanh form, to 5.4e-5.
const GELU_TANH_SLOPE: Bend<10> = Bend {
    reach: 4.4,
    p: [
        1.634_405_4e-1,
        -9.707_506e-3,
        9.867_299e-4,
        -1.124_153_64e-4,
        1.228_706_6e-5,
        -9.870_496e-7,
        4.704_134_7e-8,
        -4.728_136e-9,
        6.894_121e-10,
        -3.285_250_5e-11,
    ],
};

impl<const N: usize> Bend<N> {
    /// The function up to the reach on both sides of zero, and where `x` is not below it.
    #[inline(always)]
    fn at(&self, s: Avx512, x: __m512) -> (__m512, __mmask16) {
        // The data second: not-a-number stays.
        let near = s.min(s.splat(self.reach), s.max(s.splat(-self.reach), x));
        let middle = s.splat(-self.reach * self.reach / 2.0);
        let p = s.polynomial(s.fma(near, near, middle), &self.p);
        // SAFETY: the token says that the processor has the features.
        let counts = unsafe { _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, s.splat(-self.reach)) };
        (s.fma(near, p, s.splat(0.5)), counts)
    }

    /// `x` times it.
    #[inline(always)]
    fn times(&self, s: Avx512, x: __m512) -> __m512 {
        let (y, counts) = self.at(s, x);
        // SAFETY: as above.
        unsafe { _mm512_maskz_mul_ps(counts, x, y) }
    }

    /// It.
    #[inline(always)]
    fn value(&self, s: Avx512, x: __m512) -> __m512 {
        let (y, counts) = self.at(s, x);
        // SAFETY: as above.
        unsafe { _mm512_maskz_mov_ps(counts, y) }
    }
}

/// `σ(u) = 1 / (1 + e^-u)` and `σ(-u)`, relative error 2^-14.
#[inline(always)]
fn sigmoid(s: Avx512, u: __m512) -> [__m512; 2] {
    let t = s.mul(u, s.splat(-std::f32::consts::LOG2_E));
    // Neither the power nor its reciprocal becomes subnormal, which would cost a hundred cycles. The data second: not-a-number stays.
    let t = s.min(s.splat(100.0), s.max(s.splat(-100.0), t));
    let e = exp2(s, t);
    // SAFETY: the token says that the processor has the features.
    let g = unsafe { _mm512_rcp14_ps(s.add(e, s.splat(1.0))) };
    [g, s.mul(e, g)]
}

/// `2^t`, relative error 2.6e-6.
#[inline(always)]
pub(super) fn exp2(s: Avx512, t: __m512) -> __m512 {
    // SAFETY: the token says that the processor has the features.
    unsafe {
        let n = _mm512_roundscale_ps::<0>(t);
        let r = s.sub(t, n);
        // On [-1/2, 1/2], for the least largest relative error.
        let p = s.polynomial(
            r,
            &[
                0.999_999_3,
                0.693_121_8,
                0.240_247_46,
                0.055_917_893,
                0.009_570_076,
            ],
        );
        _mm512_scalef_ps(p, n)
    }
}

/// `u / x` of the activations `x · σ(u)`.
fn factor(kind: Activation) -> Option<f32> {
    match kind {
        Activation::QuickGelu => Some(QUICK_GELU),
        Activation::Silu => Some(1.0),
        _ => None,
    }
}

/// `f(x)`; inlined with a constant `kind`.
#[inline(always)]
pub(super) fn value(s: Avx512, kind: Activation, x: __m512) -> __m512 {
    match (kind, factor(kind)) {
        (Activation::Gelu, _) => GELU.times(s, x),
        (Activation::GeluTanh, _) => GELU_TANH.times(s, x),
        (_, Some(factor)) => s.mul(x, sigmoid(s, s.mul(x, s.splat(factor)))[0]),
        _ => value_on(s, kind, x),
    }
}

/// `f'(x)`; inlined with a constant `kind`.
#[inline(always)]
pub(super) fn derivative(s: Avx512, kind: Activation, x: __m512) -> __m512 {
    match (kind, factor(kind)) {
        (Activation::Gelu, _) => GELU_SLOPE.value(s, x),
        (Activation::GeluTanh, _) => GELU_TANH_SLOPE.value(s, x),
        (_, Some(factor)) => {
            let u = s.mul(x, s.splat(factor));
            let [g, rest] = sigmoid(s, u);
            s.fma(s.mul(u, g), rest, g)
        }
        _ => derivative_on(s, kind, x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive;

    /// Largest deviation over `x` in [-12, 12], in units of the value's own size, or of `floor` where that is larger.
    fn deviation(
        fast: impl Fn(Avx512, __m512) -> __m512,
        exact: impl Fn(f64) -> f64,
        floor: f64,
    ) -> f64 {
        let Some(s) = Avx512::new() else { return 0.0 };
        let mut worst: f64 = 0.0;
        for block in 0..3000 {
            let x: [f32; 16] =
                std::array::from_fn(|lane| (block * 16 + lane) as f32 / 2000.0 - 12.0);
            let mut y = [0.0_f32; 16];
            // SAFETY: arrays of a whole vector.
            unsafe { s.store(y.as_mut_ptr(), fast(s, s.load(x.as_ptr()))) };
            for (&x, &y) in x.iter().zip(&y) {
                let exact = exact(f64::from(x));
                worst = worst.max((f64::from(y) - exact).abs() / exact.abs().max(floor));
            }
        }
        worst
    }

    #[test]
    fn fast_activations_are_better_than_their_rounding() {
        // bf16 rounds to 2^-9 of a value. Below 0.0267 the polynomials' error, 2.6e-5, is more than half of that; it is then less than what the
        // rounding does to the larger outputs that are summed with this one.
        let kinds = [
            (Activation::Gelu, 0.0267),
            (Activation::GeluTanh, 0.0267),
            (Activation::QuickGelu, 2e-6),
            (Activation::Silu, 2e-6),
        ];
        for (kind, floor) in kinds {
            let value = deviation(
                |s, x| value(s, kind, x),
                |x| naive::activation::activate(kind, x),
                floor,
            );
            assert!(value < 1.0 / 1024.0, "{kind:?}: {value}");
            // Derivatives cross zero, so their size is measured at 2^-3 at least there.
            let slope = deviation(
                |s, x| derivative(s, kind, x),
                |x| naive::activation::derivative(kind, x),
                0.125,
            );
            assert!(slope < 1.0 / 1024.0, "{kind:?}': {slope}");
        }
    }

    #[test]
    fn far_from_zero_activations_are_zero_or_their_argument() {
        let Some(s) = Avx512::new() else { return };
        for kind in [Activation::Gelu, Activation::GeluTanh] {
            for (x, expected, slope) in [(-1e30_f32, 0.0, 0.0), (1e30, 1e30, 1.0)] {
                let (mut y, mut d) = ([0.0_f32; 16], [0.0_f32; 16]);
                // SAFETY: arrays of a whole vector.
                unsafe {
                    s.store(y.as_mut_ptr(), value(s, kind, s.splat(x)));
                    s.store(d.as_mut_ptr(), derivative(s, kind, s.splat(x)));
                }
                for (y, d) in y.iter().zip(d) {
                    assert!(
                        (y - expected).abs() <= expected * 1e-4,
                        "{kind:?}({x}): {y}"
                    );
                    assert!((d - slope).abs() <= 3e-4, "{kind:?}'({x}): {d}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays() {
        let Some(s) = Avx512::new() else { return };
        for kind in [
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::QuickGelu,
            Activation::Silu,
        ] {
            let mut y = [0.0_f32; 16];
            // SAFETY: an array of a whole vector.
            unsafe { s.store(y.as_mut_ptr(), value(s, kind, s.splat(f32::NAN))) };
            assert!(y.iter().all(|y| y.is_nan()), "{kind:?}");
        }
    }
}
