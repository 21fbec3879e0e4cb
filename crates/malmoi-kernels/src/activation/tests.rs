use super::*;
use crate::naive::activation as naive;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};

/// Φ is good to 2.3e-7 absolute (see `simd::math`), the sigmoids to 4 ulp; their products with x and the derivatives add a few
/// roundings.
const ATOL: f32 = 5e-7;
const RTOL: f32 = 1e-6;

/// The tolerance of values: the factors of x in GELU are good to 2.2e-7 at worst and exact from 6.5 on.
fn atol(kind: Activation) -> f32 {
    match kind {
        Activation::Gelu | Activation::GeluTanh => 6.0 * 2.2e-7,
        _ => ATOL,
    }
}

#[test]
fn every_activation_equals_the_naive_one_on_every_isa() {
    for_each_isa(|isa| {
        for kind in Activation::ALL {
            for n in [
                0,
                1,
                3,
                4,
                5,
                7,
                8,
                9,
                15,
                16,
                17,
                1000,
                CHUNK - 1,
                CHUNK,
                2 * CHUNK + 3,
            ] {
                // Wide enough to reach the tails.
                let x: Vec<f32> = normals(1, n).iter().map(|x| x * 4.0).collect();
                let dy = normals(2, n);
                let (mut got, mut expected) = (vec![0.0; n], vec![0.0; n]);
                activation_forward(kind, &x, &mut got);
                naive::activation_forward(kind, &x, &mut expected);
                let what = format!("{kind:?} on {isa}");
                assert_close(&what, &got, &expected, atol(kind), RTOL);
                activation_backward(kind, &x, &dy, &mut got);
                naive::activation_backward(kind, &x, &dy, &mut expected);
                assert_close(
                    &format!("{kind:?} backward on {isa}"),
                    &got,
                    &expected,
                    4.0 * ATOL,
                    4.0 * RTOL,
                );
            }
        }
    });
}

#[test]
fn gated_activations_equal_the_naive_ones_on_every_isa() {
    for_each_isa(|isa| {
        for kind in Activation::ALL {
            for n in [0, 1, 15, 16, 17, 1000, CHUNK - 1, CHUNK, CHUNK + 1] {
                let gate: Vec<f32> = normals(1, n).iter().map(|x| x * 3.0).collect();
                let (up, dy) = (normals(2, n), normals(3, n));
                let (mut got, mut expected) = (vec![9.0; n], vec![9.0; n]);
                gated_forward(kind, &gate, &up, &mut got);
                naive::gated_forward(kind, &gate, &up, &mut expected);
                // The activation's error times an `up` of up to 5, and one more rounding.
                assert_close(
                    &format!("gated {kind:?} on {isa}"),
                    &got,
                    &expected,
                    5.0 * atol(kind),
                    2.0 * RTOL,
                );
                let (mut dgate, mut dup) = (vec![9.0; n], vec![9.0; n]);
                let (mut dgate_expected, mut dup_expected) = (vec![9.0; n], vec![9.0; n]);
                gated_backward(kind, &gate, &up, &dy, &mut dgate, &mut dup);
                naive::gated_backward(
                    kind,
                    &gate,
                    &up,
                    &dy,
                    &mut dgate_expected,
                    &mut dup_expected,
                );
                let what = format!("gated {kind:?} backward on {isa}");
                assert_close(&what, &dgate, &dgate_expected, 20.0 * ATOL, 4.0 * RTOL);
                assert_close(&what, &dup, &dup_expected, 5.0 * atol(kind), 2.0 * RTOL);
            }
        }
    });
}

#[test]
fn derivatives_agree_with_differences() {
    for kind in Activation::ALL {
        for x in [-3.1, -0.7, 0.4, 2.2] {
            let h = 1e-6;
            let difference =
                (naive::activate(kind, x + h) - naive::activate(kind, x - h)) / (2.0 * h);
            let exact = naive::derivative(kind, x);
            // The error of a central difference is h² f''' / 6 plus rounding 1e-16 / h.
            assert!(
                (difference - exact).abs() < 1e-8,
                "{kind:?} at {x}: {difference} {exact}"
            );
        }
    }
}

#[test]
fn not_a_number_stays_and_infinities_have_their_limits() {
    for_each_isa(|isa| {
        for kind in Activation::ALL {
            let x = [f32::NAN, f32::INFINITY, 1e30, -1e4];
            let mut y = [0.0; 4];
            activation_forward(kind, &x, &mut y);
            assert!(y[0].is_nan(), "{kind:?} on {isa}");
            let bounded = matches!(kind, Activation::Tanh | Activation::Sigmoid);
            assert_eq!(
                y[1],
                if bounded { 1.0 } else { f32::INFINITY },
                "{kind:?} on {isa}"
            );
            let unlimited = if kind == Activation::ReluSquared {
                f32::INFINITY
            } else {
                1e30
            };
            assert_eq!(
                y[2],
                if bounded { 1.0 } else { unlimited },
                "{kind:?} on {isa}"
            );
            let low = match kind {
                Activation::Identity => -1e4,
                Activation::LeakyRelu => -1e4 * 0.01,
                Activation::Tanh => -1.0,
                _ => 0.0,
            };
            assert_eq!(y[3], low, "{kind:?} on {isa}");
        }
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        let x = normals(1, 300_001);
        assert_same_bits_on_any_threads("gelu", || {
            let mut y = vec![0.0; x.len()];
            activation_forward(Activation::Gelu, &x, &mut y);
            y
        });
        let up = normals(2, x.len());
        assert_same_bits_on_any_threads("gated gelu", || {
            let mut y = vec![0.0; x.len()];
            gated_forward(Activation::Gelu, &x, &up, &mut y);
            let (mut dgate, mut dup) = (y.clone(), y.clone());
            gated_backward(Activation::Gelu, &x, &up, &up, &mut dgate, &mut dup);
            [y, dgate, dup].concat()
        });
    });
}
