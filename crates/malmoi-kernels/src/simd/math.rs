//! Exponentials and their relatives on vectors.
//!
//! The polynomials are minimax fits of this project (weighted Lawson iteration in double precision on Chebyshev nodes).
//! Errors are measured over dense samples by the tests; in units of the last place (ulp) of f32:
//!
//! | function | error with fused multiply-add | where |
//! |---|---|---|
//! | [`exp`], [`exp_finite`] (up to 88) | 2 ulp | all; below -87 it is 0 (no subnormal numbers, which slow every product they meet), above 88.72 infinite |
//! | [`tanh`] | 4 ulp | all |
//! | [`sigmoid`] | 4 ulp | results above 2^-126 |
//! | [`normal`] Φ | 2.3e-7 absolute, 2e-6 relative down to x = -5 | all |
//! | [`gelu_gate`], [`gelu_tanh_gate`] | 1.8e-7 absolute (2.2e-7 without fused multiply-add) | all; exactly 0 below -6.5 and 1 above 6.5 |
//!
//! All of them carry not-a-number through.

use super::Simd;

/// Below it [`exp`] is 0.
const LOWEST: f32 = -87.0;

/// `e^x`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // Beyond these bounds the result is 0 or infinite, and the power of two stays in the range of `scale2`.
    let lowest = s.splat(LOWEST);
    let (e, n) = exp_parts(s, s.min(s.splat(89.0), s.max(lowest, x)));
    s.select_lt(x, lowest, s.zero(), s.scale2(e, n))
}

/// `e^x` for x up to 88, with two thirds of the instructions where powers of two are not an instruction of their own: for softmax,
/// whose exponents are never above 0.
#[inline(always)]
pub(crate) fn exp_finite<S: Simd>(s: S, x: S::V) -> S::V {
    let lowest = s.splat(LOWEST);
    let (e, n) = exp_parts(s, s.max(lowest, x));
    s.select_lt(x, lowest, s.zero(), s.scale2_normal(e, n))
}

/// `(e, n)` with `e^x = e 2^n`, n whole and e between 0.7 and 1.42.
#[inline(always)]
fn exp_parts<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first with trailing zeros, so that the first product is exact.
    let r = s.fnma(n, s.splat(355.0 / 512.0), x);
    let r = s.fnma(n, s.splat(-2.121_944_4e-4), r);
    // e^r = 1 + r + r² q(r) on [-ln 2 / 2, ln 2 / 2]; relative error of the fit 3.1e-9.
    let q = s.polynomial(
        r,
        &[
            0.499_999_94,
            0.166_665_21,
            0.041_668_39,
            0.008_368_745,
            0.001_381_453_8,
        ],
    );
    (s.add(s.fma(s.mul(r, r), q, r), s.splat(1.0)), n)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.zero(), x))))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let t = s.abs(x);
    let one = s.splat(1.0);
    // 1 - 2 / (e^2t + 1) loses digits for small t; there, x + x³ p(x²) with a relative error of 6.4e-9.
    let e = exp(s, s.add(t, t));
    let large = s.sub(one, s.div(s.splat(2.0), s.add(e, one)));
    let square = s.mul(t, t);
    let p = s.polynomial(
        square,
        &[
            -0.333_332_63,
            0.133_309,
            -0.053_692_963,
            0.020_483_306,
            -0.005_528_624_6,
        ],
    );
    let small = s.fma(s.mul(t, square), p, t);
    // Written so that not-a-number takes the branch that keeps it.
    s.copysign(s.select_lt(t, s.splat(0.65), small, large), x)
}

/// Φ(x), the normal distribution function, for GELU: a third of the instructions of [`normal`], and more of them independent of
/// each other, but without its digits in the tail.
#[inline(always)]
pub(crate) fn gelu_gate<S: Simd>(s: S, x: S::V) -> S::V {
    // Error of the fit 9.3e-9 up to 5.6, and not more behind it once it is limited to 1.
    rising(
        s,
        x,
        &[
            0.398_942_23,
            0.034_376_16,
            0.004_707_263,
            1.738_513_2e-4,
            6.356_542e-6,
            2.214_531_1e-8,
        ],
        &[
            1.0,
            0.252_833_96,
            0.028_940_12,
            0.001_912_981_5,
            7.510_215e-5,
            1.180_212_7e-6,
        ],
    )
}

/// `sigmoid(2 √(2/π) (x + 0.044715 x³))`, the factor in GELU's tanh approximation.
#[inline(always)]
pub(crate) fn gelu_tanh_gate<S: Simd>(s: S, x: S::V) -> S::V {
    // Error of the fit 7.4e-9 up to 5.6, behind it 1.4e-8 once it is limited to 1.
    rising(
        s,
        x,
        &[
            0.398_942_32,
            0.030_057_902,
            0.003_631_380_6,
            1.319_065_9e-4,
            7.186_498_4e-6,
            2.532_686e-8,
        ],
        &[
            1.0,
            0.242_836_49,
            0.024_202_164,
            0.001_292_276_8,
            7.593_543e-5,
            1.362_397_1e-6,
        ],
    )
}

/// `1/2 + x p(x²) / q(x²)` between 0 and 1. Both polynomials have positive coefficients, so that nothing cancels, and the fits pass
/// the limits by 4e-6 and more at 6.5, beyond which they are not computed.
#[inline(always)]
fn rising<S: Simd>(s: S, x: S::V, p: &[f32], q: &[f32]) -> S::V {
    let (zero, half, one) = (s.zero(), s.splat(0.5), s.splat(1.0));
    let x = s.min(s.splat(6.5), s.max(s.splat(-6.5), x));
    let square = s.mul(x, x);
    let odd = s.div(s.mul(x, s.polynomial(square, p)), s.polynomial(square, q));
    s.min(one, s.max(zero, s.add(odd, half)))
}

/// The normal distribution function Φ(x) and the factor `e^(-x²/2)` of its density.
#[inline(always)]
pub(crate) fn normal<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let t = s.mul(s.abs(x), s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let density = exp_finite(s, s.mul(s.mul(x, x), s.splat(-0.5)));
    // erfc(t) = e^(-t²) u P(1 - 2u) with u = 1 / (1 + t/3); relative error of the fit 1.9e-9 for t up to 10, beyond which
    // the exponential is 0 in f32.
    let u = s.div(one, s.fma(t, s.splat(1.0 / 3.0), one));
    let w = s.fnma(s.splat(2.0), u, one);
    let p = s.polynomial(
        w,
        &[
            0.358_002_3,
            -0.294_464_83,
            0.196_742_77,
            -0.103_488_69,
            0.039_842_956,
            -0.008_946_449_5,
            -0.000_408_403_55,
            0.001_026_596_9,
            -0.000_161_861_01,
            -0.000_108_859_43,
        ],
    );
    // Half of erfc(t): the tail beyond |x|.
    let tail = s.mul(s.mul(density, s.splat(0.5)), s.mul(u, p));
    let phi = s.select_lt(s.zero(), x, s.sub(one, tail), tail);
    (phi, density)
}
