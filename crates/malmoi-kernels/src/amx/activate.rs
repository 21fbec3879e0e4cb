//! Activations of results that are rounded to bf16: good to 2^-10, half of what the rounding may do to them.
//!
//! GELU, its approximations and SiLU are all `x · σ(u(x))`. Of GELU, `u = ln(Φ(x) / Φ(-x))` is odd and nearly a cubic, so that one
//! exponential with few digits and a reciprocal estimate serve all of them; the exact forms cost three times as much and would
//! keep the tile unit waiting.

use std::arch::x86_64::*;

use crate::activation::{
    Activation, GELU_CUBIC, QUICK_GELU, TWICE_ROOT_2_OVER_PI, derivative_on, value_on,
};
use crate::simd::{Avx512, Simd};

/// `du/dx` of GELU as a polynomial of `x²` on `|x| <= 6`, relative error 2.1e-4: the density of the normal distribution over
/// `Φ(x) Φ(-x)`, fitted for the least largest error.
const GELU_SLOPE: [f32; 8] = [
    1.595_436_7,
    0.219_595_27,
    -1.465_960_9e-3,
    -4.932_261_7e-4,
    4.162_783_4e-5,
    -1.573_824_4e-6,
    2.931_833e-8,
    -2.170_262e-10,
];
/// Its integral over `x`, divided by `x`.
const GELU_ARGUMENT: [f32; 8] = {
    let mut c = GELU_SLOPE;
    let mut i = 0;
    while i < c.len() {
        c[i] /= (2 * i + 1) as f32;
        i += 1;
    }
    c
};
/// Where the fit ends; further out `u` grows linearly, and GELU is 0 or `x` to within 6e-9.
const GELU_REACH: f32 = 36.0;

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

/// `u` and `du/dx` of the activations `x · σ(u(x))`.
#[inline(always)]
fn argument(s: Avx512, kind: Activation, x: __m512) -> Option<(__m512, __m512)> {
    Some(match kind {
        Activation::Gelu => {
            // The data second: not-a-number stays.
            let z = s.min(s.splat(GELU_REACH), s.mul(x, x));
            (
                s.mul(x, s.polynomial(z, &GELU_ARGUMENT)),
                s.polynomial(z, &GELU_SLOPE),
            )
        }
        Activation::GeluTanh => {
            let (one, three) = (TWICE_ROOT_2_OVER_PI, GELU_CUBIC * TWICE_ROOT_2_OVER_PI);
            let z = s.mul(x, x);
            (
                s.mul(x, s.fma(z, s.splat(three), s.splat(one))),
                s.fma(z, s.splat(3.0 * three), s.splat(one)),
            )
        }
        Activation::QuickGelu => (s.mul(x, s.splat(QUICK_GELU)), s.splat(QUICK_GELU)),
        Activation::Silu => (x, s.splat(1.0)),
        _ => return None,
    })
}

/// `f(x)`; inlined with a constant `kind`.
#[inline(always)]
pub(super) fn value(s: Avx512, kind: Activation, x: __m512) -> __m512 {
    match argument(s, kind, x) {
        Some((u, _)) => s.mul(x, sigmoid(s, u)[0]),
        None => value_on(s, kind, x),
    }
}

/// `f'(x)`; inlined with a constant `kind`.
#[inline(always)]
pub(super) fn derivative(s: Avx512, kind: Activation, x: __m512) -> __m512 {
    match argument(s, kind, x) {
        Some((u, slope)) => {
            let [g, rest] = sigmoid(s, u);
            s.fma(s.mul(s.mul(x, slope), g), rest, g)
        }
        None => derivative_on(s, kind, x),
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
        // bf16 rounds to 2^-9 of a value.
        let kinds = [
            (Activation::Gelu, 2e-6),
            (Activation::GeluTanh, 2e-6),
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
