//! Exponentials and their relatives on vectors.
//!
//! The polynomials are minimax fits of this project (weighted Lawson iteration in double precision on Chebyshev nodes).
//! Errors are measured over dense samples by the tests; in units of the last place (ulp) of f32:
//!
//! | function | error with fused multiply-add | where |
//! |---|---|---|
//! | [`exp`] | 2 ulp | all; below -87 it is 0 (no subnormal numbers, which slow every product they meet), above 88.72 infinite |
//! | [`tanh`] | 4 ulp | all |
//! | [`sigmoid`] | 4 ulp | results above 2^-126 |
//! | [`normal`] Φ | 2.3e-7 absolute, 2e-6 relative down to x = -5 | all |
//!
//! All of them carry not-a-number through.

use super::Simd;

/// `e^x`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // Beyond these bounds the result is 0 or infinite, and the power of two stays in the range of `scale2`.
    let lowest = s.splat(-87.0);
    let given = x;
    let x = s.min(s.splat(89.0), s.max(lowest, x));
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
    let e = s.add(s.fma(s.mul(r, r), q, r), s.splat(1.0));
    s.select_lt(given, lowest, s.zero(), s.scale2(e, n))
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

/// The normal distribution function Φ(x) and the factor `e^(-x²/2)` of its density.
#[inline(always)]
pub(crate) fn normal<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let t = s.mul(s.abs(x), s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let density = exp(s, s.mul(s.mul(x, x), s.splat(-0.5)));
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
