use super::*;
use crate::naive::activation as naive;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};

/// Φ is good to 2.3e-7 absolute (see `simd::math`), the sigmoids to 4 ulp; their products with x and the derivatives add a few
/// roundings.
const ATOL: f32 = 5e-7;
const RTOL: f32 = 1e-6;

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
                assert_close(&format!("{kind:?} on {isa}"), &got, &expected, ATOL, RTOL);
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
            assert_eq!(y[2], if bounded { 1.0 } else { 1e30 }, "{kind:?} on {isa}");
            let low = match kind {
                Activation::Identity => -1e4,
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
    });
}
