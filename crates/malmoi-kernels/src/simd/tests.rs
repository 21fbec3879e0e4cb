use super::*;
use crate::naive::activation as exact;
use crate::testing::for_each_isa;

#[inline(always)]
fn apply_on<S: Simd>(s: S, function: u8, x: &[f32], y: &mut [f32]) {
    vectors!(s, x.len(), |i| {
        let v = read(s, x, i);
        let v = match function {
            0 => math::exp(s, v),
            1 => math::tanh(s, v),
            2 => math::sigmoid(s, v),
            3 => math::normal(s, v).0,
            4 => s.round(v),
            6 => math::gelu_gate(s, v),
            7 => math::gelu_tanh_gate(s, v),
            8 => math::exp_finite(s, v),
            _ => math::normal(s, v).1,
        };
        write(s, y, i, v);
    });
}
dispatched!(fn apply = apply_on(function: u8, x: &[f32], y: &mut [f32]));

fn ulps(got: f32, expected: f64) -> f64 {
    let rounded = expected as f32;
    let ulp = f64::from(f32::from_bits(
        (rounded.abs().max(f32::MIN_POSITIVE)).to_bits() + 1,
    )) - f64::from(rounded.abs().max(f32::MIN_POSITIVE));
    (f64::from(got) - expected).abs() / ulp
}

fn samples(from: f32, to: f32) -> Vec<f32> {
    let n = 200_003;
    (0..n)
        .map(|i| from + (to - from) * i as f32 / n as f32)
        .collect()
}

fn worst(function: u8, x: &[f32], f: impl Fn(f64) -> f64, error: impl Fn(f32, f64) -> f64) -> f64 {
    let mut y = vec![0.0; x.len()];
    apply(function, x, &mut y);
    let errors = x.iter().zip(&y).map(|(&x, &y)| error(y, f(f64::from(x))));
    errors.fold(
        0.0,
        |worst, e| if e > worst || e.is_nan() { e } else { worst },
    )
}

#[test]
fn functions_are_as_accurate_as_stated() {
    for_each_isa(|isa| {
        // The portable set rounds twice in a multiply-add, which costs one more unit.
        let slack = if isa == crate::cpu::Isa::Portable {
            1.5
        } else {
            0.0
        };
        let e = worst(0, &samples(-87.0, 88.7), f64::exp, ulps);
        assert!(e < 2.0 + slack, "exp on {isa}: {e} ulp");
        let e = worst(0, &samples(-1.0, 1.0), f64::exp, ulps);
        assert!(e < 2.0 + slack, "exp on {isa}: {e} ulp");
        let e = worst(8, &samples(-87.0, 88.0), f64::exp, ulps);
        assert!(e < 2.0 + slack, "exp_finite on {isa}: {e} ulp");
        let e = worst(1, &samples(-10.0, 10.0), f64::tanh, ulps);
        assert!(e < 4.0 + slack, "tanh on {isa}: {e} ulp");
        let e = worst(1, &samples(-0.01, 0.01), f64::tanh, ulps);
        assert!(e < 4.0 + slack, "tanh on {isa}: {e} ulp");
        let e = worst(2, &samples(-80.0, 30.0), |x| 1.0 / (1.0 + (-x).exp()), ulps);
        assert!(e < 4.0 + slack, "sigmoid on {isa}: {e} ulp");
        let phi = |x: f64| 0.5 * (1.0 + exact::erf(x / std::f64::consts::SQRT_2));
        let e = worst(3, &samples(-15.0, 15.0), phi, |got, x| {
            (f64::from(got) - x).abs()
        });
        assert!(e < 2.3e-7, "normal on {isa}: {e}");
        let tail = |x: f64| exact::activate(crate::activation::Activation::Gelu, x) / x;
        let e = worst(3, &samples(-5.0, -0.1), tail, |got, x| {
            (f64::from(got) / x - 1.0).abs()
        });
        assert!(e < 2e-6, "normal tail on {isa}: {e}");
        // Two polynomials without cancellation, their coefficients, a product and a quotient: 5 roundings of a number up to 1/2,
        // each at most 2^-24 of it, and one of the sum; 1 to 2 more where a multiply-add rounds twice. The fits add 1e-8.
        let limit = if slack > 0.0 { 2.2e-7 } else { 1.8e-7 };
        let absolute = |got: f32, x: f64| (f64::from(got) - x).abs();
        let e = worst(6, &samples(-15.0, 15.0), phi, absolute);
        assert!(e < limit, "gelu_gate on {isa}: {e}");
        let gate = |x: f64| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * (1.0 + u.tanh())
        };
        let e = worst(7, &samples(-15.0, 15.0), gate, absolute);
        assert!(e < limit, "gelu_tanh_gate on {isa}: {e}");
    });
}

#[test]
fn functions_keep_limits_and_not_a_number() {
    for_each_isa(|isa| {
        let x = [
            f32::NEG_INFINITY,
            f32::INFINITY,
            f32::NAN,
            0.0,
            -200.0,
            200.0,
            1e30,
        ];
        let mut y = [0.0; 7];
        apply(0, &x, &mut y);
        assert_eq!(y[..2], [0.0, f32::INFINITY], "exp on {isa}");
        assert!(y[2].is_nan());
        assert_eq!(
            y[3..],
            [1.0, 0.0, f32::INFINITY, f32::INFINITY],
            "exp on {isa}"
        );
        let mut below = [9.0];
        apply(0, &[-87.01], &mut below);
        assert_eq!(below, [0.0], "exp on {isa}");
        let mut few = [9.0; 5];
        let given = [-87.01, f32::NEG_INFINITY, -1e30, 0.0, f32::NAN];
        apply(8, &given, &mut few);
        assert_eq!(few[..4], [0.0, 0.0, 0.0, 1.0], "exp_finite on {isa}");
        assert!(few[4].is_nan(), "exp_finite on {isa}");
        apply(1, &x, &mut y);
        assert_eq!(y[..2], [-1.0, 1.0], "tanh on {isa}");
        assert!(y[2].is_nan());
        assert_eq!(y[3..], [0.0, -1.0, 1.0, 1.0], "tanh on {isa}");
        apply(2, &x, &mut y);
        assert_eq!(y[..2], [0.0, 1.0], "sigmoid on {isa}");
        assert!(y[2].is_nan());
        apply(3, &x, &mut y);
        assert!(y[2].is_nan());
        assert_eq!(y[3..], [0.5, 0.0, 1.0, 1.0], "normal on {isa}");
        for gate in [6, 7] {
            apply(gate, &x, &mut y);
            assert_eq!(y[..2], [0.0, 1.0], "gate {gate} on {isa}");
            assert!(y[2].is_nan());
            assert_eq!(y[3..], [0.5, 0.0, 1.0, 1.0], "gate {gate} on {isa}");
            apply(gate, &[-6.5, 6.5, -6.6, 6.6, -7.0, 7.0, 1.0], &mut y);
            let limits = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0];
            assert_eq!(y[..6], limits, "gate {gate} on {isa}");
        }
    });
}

#[inline(always)]
fn transpose_on<S: Simd>(s: S, src: &[f32], rows: usize, cols: usize, dst: &mut [f32]) -> usize {
    // SAFETY: the test passes buffers of 32 x 32.
    unsafe { s.transpose(src.as_ptr(), 32, rows, cols, dst.as_mut_ptr(), 32) };
    S::LANES
}
dispatched!(fn transpose = transpose_on(src: &[f32], rows: usize, cols: usize, dst: &mut [f32]) -> usize);

#[test]
fn transposes_move_every_element_of_whole_and_partial_blocks() {
    for_each_isa(|isa| {
        let src: Vec<f32> = (0..32 * 32).map(|i| i as f32 + 1.0).collect();
        let lanes = sizes().lanes;
        for rows in 0..=lanes {
            for cols in 0..=lanes {
                let mut dst = vec![-1.0; 32 * 32];
                assert_eq!(transpose(&src, rows, cols, &mut dst), lanes);
                for c in 0..32 {
                    for r in 0..32 {
                        let expected = match (c < cols, r < rows, r < lanes) {
                            (true, true, _) => src[r * 32 + c],
                            (true, false, true) => 0.0,
                            _ => -1.0,
                        };
                        assert_eq!(dst[c * 32 + r], expected, "{isa} {rows}x{cols} at {r},{c}");
                    }
                }
            }
        }
    });
}

#[inline(always)]
fn half_on<S: Simd>(s: S, x: &[f32], y: &mut [bf16], rounded: &mut [f32], back: &mut [f32]) {
    vectors!(s, x.len(), |i| {
        let v = read(s, x, i);
        write_bf16(s, y, i, v);
        write(s, rounded, i, s.round_bf16(v));
        let widened = read_bf16(s, y, i);
        write(s, back, i, widened);
    });
}
dispatched!(fn half = half_on(x: &[f32], y: &mut [bf16], rounded: &mut [f32], back: &mut [f32]));

#[test]
fn bf16_is_rounded_and_widened_as_by_the_plain_conversions() {
    // Ties to both sides, what overflows by rounding, the smallest numbers, and what is none.
    let mut x = vec![
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        -1.0 - 1.0 / 256.0,
        f32::MAX,
        f32::MIN,
        f32::from_bits(1),
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::from_bits(0x7F80_0001),
        f32::from_bits(0xFFFF_FFFF),
    ];
    x.extend(crate::testing::normals(3, 61));
    for_each_isa(|isa| {
        for n in (1..40).chain([x.len()]) {
            let x = &x[..n];
            let mut y = vec![bf16::ZERO; n];
            let (mut rounded, mut back) = (vec![0.0; n], vec![0.0; n]);
            half(x, &mut y, &mut rounded, &mut back);
            for (i, &x) in x.iter().enumerate() {
                let expected = bf16::from_f32(x);
                let bits = expected.to_bits();
                assert_eq!(y[i].to_bits(), bits, "{x} ({i} of {n}) on {isa}");
                let wide = u32::from(bits) << 16;
                assert_eq!(rounded[i].to_bits(), wide, "{x} rounded on {isa}");
                assert_eq!(back[i].to_bits(), wide, "{x} widened on {isa}");
            }
        }
    });
}
