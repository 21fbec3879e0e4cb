use super::*;
use crate::naive::reduce as naive;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};

#[test]
fn sums_equal_the_naive_ones_on_every_isa() {
    for_each_isa(|isa| {
        for n in [0, 1, 31, 32, 33, PART - 1, PART, PART + 1, 3 * PART + 17] {
            let (x, y) = (normals(1, n), normals(2, n));
            // Both sum in double precision, in another order.
            let close =
                |got: f64, expected: f64| (got - expected).abs() <= 1e-11 * (n as f64 + 1.0);
            assert!(close(sum(&x), naive::sum(&x)), "sum {n} on {isa}");
            assert!(
                close(sum_of_squares(&x), naive::sum_of_squares(&x)),
                "squares {n} on {isa}"
            );
            assert!(close(dot(&x, &y), naive::dot(&x, &y)), "dot {n} on {isa}");
        }
        assert_eq!(mean(&[]), 0.0);
        assert_eq!(mean(&[1.0, 2.0]), 1.5);
    });
}

#[test]
fn row_sums_equal_the_naive_ones_on_every_isa() {
    for_each_isa(|isa| {
        for (n, d) in [
            (0, 3),
            (1, 1),
            (5, 15),
            (8, 16),
            (9, 17),
            (257, 65),
            (1000, 3),
        ] {
            let x = normals(1, n * d);
            for accumulate in [false, true] {
                let (mut got, mut expected) = (vec![9.0; d], vec![9.0; d]);
                sum_rows(&x, &mut got, accumulate);
                naive::sum_rows(&x, &mut expected, accumulate);
                // Up to 32 rows and 32 parts in a row: a walk of roundings of values up to 100.
                assert_close(&format!("{n}x{d} on {isa}"), &got, &expected, 3e-5, 1e-6);
            }
        }
    });
}

#[test]
fn one_bad_value_anywhere_is_found() {
    for_each_isa(|_| {
        for n in [1, 40, PART, 3 * PART + 1] {
            let mut x = normals(1, n);
            assert!(all_finite(&x));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, n / 2, n - 1] {
                    let before = std::mem::replace(&mut x[at], bad);
                    assert!(!all_finite(&x), "{bad} at {at} of {n}");
                    x[at] = before;
                }
            }
        }
        assert!(all_finite(&[]));
        assert!(all_finite(&[f32::MAX, -0.0, 1e-45]));
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        let x = normals(1, 700_000);
        assert_same_bits_on_any_threads("sums", || {
            let mut rows = vec![0.0; 700];
            sum_rows(&x, &mut rows, false);
            rows.extend([sum(&x), sum_of_squares(&x)].map(|x| x as f32));
            rows
        });
    });
}
