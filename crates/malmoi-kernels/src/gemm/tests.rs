use super::*;
use crate::naive;
use crate::simd::sizes;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};
use proptest::prelude::*;

/// A sum of k products of normal draws grows as √p after p steps, and each step rounds by at most 2^-24 of it: a random walk of
/// roundings with standard deviation of about 2e-8 · k
/// (3e-8 where a multiply-add rounds twice). Five of them, for the largest of many elements.
fn tolerance(k: usize) -> f32 {
    1.5e-7 * k as f32 + 1e-6
}

fn check(
    m: usize,
    k: usize,
    n: usize,
    a_t: bool,
    b_t: bool,
    accumulate: bool,
    activation: Activation,
) {
    let (a, b) = (normals(1, m * k), normals(2, k * n));
    let bias = normals(3, n);
    let a = if a_t {
        Mat::row_major(&a, k, m).t()
    } else {
        Mat::row_major(&a, m, k)
    };
    let b = if b_t {
        Mat::row_major(&b, n, k).t()
    } else {
        Mat::row_major(&b, k, n)
    };
    let epilogue = Epilogue {
        bias: (n % 2 == 1).then_some(&bias[..]),
        activation,
    };
    let mut expected = normals(4, m * n);
    let (mut got, mut packed) = (expected.clone(), expected.clone());
    naive::gemm::gemm(a, b, &mut expected, accumulate, epilogue);
    gemm(a, b, &mut got, accumulate, epilogue);
    let what = format!(
        "{m}x{k}x{n} a_t {a_t} b_t {b_t} accumulate {accumulate} {activation:?} on {}",
        crate::cpu::isa()
    );
    assert_close(&what, &got, &expected, tolerance(k), 1e-6);
    gemm_packed(a, &PackedMat::new(b), &mut packed, accumulate, epilogue);
    assert_close(
        &format!("packed {what}"),
        &packed,
        &expected,
        tolerance(k),
        1e-6,
    );
}

#[test]
fn what_a_backward_pass_needs_is_saved_and_used_while_sums_are_at_hand() {
    use crate::activation::{activation_backward, activation_forward};
    for_each_isa(|isa| {
        // Row by row against transposed weights, panel by panel, in blocks; parts of vectors and tiles.
        for (m, k, n) in [(0, 3, 5), (1, 300, 33), (20, 64, 37), (150, 70, 801)] {
            let (a, b) = (normals(1, m * k), normals(2, k * n));
            let (bias, beside) = (normals(3, n), normals(4, m * n));
            let (a, b) = (Mat::row_major(&a, m, k), Mat::row_major(&b, n, k).t());
            let product = |finish: Finish<f32>| {
                let mut c = normals(5, m * n);
                gemm_finished(a, b, &mut c, false, finish);
                c
            };
            let (plain, shifted) = (product(Finish::NONE), product(Finish::bias(Some(&bias))));
            let summed: Vec<f32> = plain.iter().zip(&beside).map(|(x, y)| x + y).collect();
            let residual = &beside[..];
            assert_eq!(
                product(Finish::Add { residual }),
                summed,
                "{m}x{k}x{n} on {isa}"
            );
            for activation in Activation::ALL {
                let what = format!("{activation:?} of {m}x{k}x{n} on {isa}");
                let mut saved = vec![0.0; m * n];
                let y = product(Finish::Activate {
                    bias: Some(&bias),
                    activation,
                    input: Some(&mut saved),
                });
                let mut expected = vec![0.0; m * n];
                activation_forward(activation, &shifted, &mut expected);
                assert_eq!((&y, &saved), (&expected, &shifted), "{what}");
                let input = &beside[..];
                let dx = product(Finish::Derivative { activation, input });
                activation_backward(activation, input, &plain, &mut expected);
                assert_eq!(dx, expected, "derivative: {what}");
            }
        }
    });
}

#[test]
fn products_equal_the_naive_ones_around_the_tile_on_every_isa() {
    for_each_isa(|_| {
        let s = sizes();
        for m in [0, 1, 2, 5, 8, 9, s.mr - 1, s.mr, s.mr + 1, 4 * s.mr + 3] {
            for n in [0, 1, s.nr - 1, s.nr, s.nr + 1, 3 * s.nr + 7] {
                for k in [0, 1, s.lanes - 1, s.lanes, s.lanes + 1, 37] {
                    for flags in 0..8 {
                        check(
                            m,
                            k,
                            n,
                            flags & 1 > 0,
                            flags & 2 > 0,
                            flags & 4 > 0,
                            Activation::Identity,
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn products_equal_the_naive_ones_around_the_blocks_on_every_isa() {
    for_each_isa(|_| {
        for (m, k, n) in [
            (3, 769, 600),
            (57, 767, 257),
            (113, 769, 65),
            (17, 384, 3073),
            (44, 300, 65),
            (9, 1603, 3200),
        ] {
            check(m, k, n, false, true, false, Activation::Gelu);
            check(m, k, n, true, false, true, Activation::Identity);
        }
    });
}

#[test]
fn strided_matrices_are_read_where_they_lie() {
    for_each_isa(|isa| {
        let (m, k, n) = (20, 19, 40);
        let (a, b) = (normals(1, m * 70), normals(2, 2 * k * n + 5 * k));
        // A slice of the columns of a wider matrix, and one with no contiguous direction.
        let a = Mat::with_row_stride(&a[3..], m, k, 70);
        let b = Mat {
            data: &b,
            rows: k,
            cols: n,
            row_stride: 2 * n + 5,
            col_stride: 2,
        };
        let (mut got, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
        gemm(a, b, &mut got, false, Epilogue::NONE);
        naive::gemm::gemm(a, b, &mut expected, false, Epilogue::NONE);
        assert_close(
            &format!("strided on {isa}"),
            &got,
            &expected,
            tolerance(k),
            1e-6,
        );
        let (mut got, mut expected) = (vec![0.0; n * m], vec![0.0; n * m]);
        gemm(b.t(), a.t(), &mut got, false, Epilogue::NONE);
        naive::gemm::gemm(b.t(), a.t(), &mut expected, false, Epilogue::NONE);
        assert_close(
            &format!("strided transposed on {isa}"),
            &got,
            &expected,
            tolerance(k),
            1e-6,
        );
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|isa| {
        for (m, k, n) in [
            (1, 700, 3001),
            (33, 300, 450),
            (130, 800, 700),
            (333, 64, 64),
        ] {
            let (a, b) = (normals(1, m * k), normals(2, k * n));
            assert_same_bits_on_any_threads(&format!("{m}x{k}x{n} on {isa}"), || {
                let mut c = vec![0.0; m * n];
                gemm(
                    Mat::row_major(&a, m, k),
                    Mat::row_major(&b, n, k).t(),
                    &mut c,
                    false,
                    Epilogue::NONE,
                );
                c
            });
        }
    });
}

#[test]
fn packing_ahead_and_the_number_of_rows_do_not_change_the_bits() {
    for_each_isa(|isa| {
        let (m, k, n) = (200, 900, 200);
        let (a, b) = (normals(1, m * k), normals(2, k * n));
        let b = Mat::row_major(&b, n, k).t();
        let packed = PackedMat::new(b);
        let product = |rows: usize, packed: Option<&PackedMat>| {
            let a = Mat::row_major(&a[..rows * k], rows, k);
            let mut c = vec![0.0; rows * n];
            match packed {
                Some(packed) => gemm_packed(a, packed, &mut c, false, Epilogue::NONE),
                None => gemm(a, b, &mut c, false, Epilogue::NONE),
            }
            c
        };
        let whole = product(m, None);
        for rows in [17, 32, 56, 57, 128, 129, m] {
            let expected = &whole[..rows * n];
            assert!(product(rows, None) == expected, "{rows} rows on {isa}");
        }
        // Packed, any number of rows: a text gets the same bits whoever is beside it.
        for rows in (1..=33).chain([56, 57, 128, 129, m]) {
            let packed = product(rows, Some(&packed));
            assert!(packed == whole[..rows * n], "{rows} rows packed on {isa}");
        }
    });
}

#[test]
fn a_row_gets_the_same_bits_alone_and_among_few_others() {
    for_each_isa(|isa| {
        for (k, n) in [(5, 3), (100, 50), (300, 250), (4100, 41)] {
            let (a, b) = (normals(1, 16 * k), normals(2, k * n));
            let b = Mat::row_major(&b, n, k).t();
            let product = |a: &[f32]| {
                let a = Mat::row_major(a, a.len() / k, k);
                let mut c = vec![0.0; a.rows * n];
                gemm(a, b, &mut c, false, Epilogue::NONE);
                c
            };
            let alone: Vec<f32> = a.chunks_exact(k).flat_map(product).collect();
            for rows in 2..=rows_alike(k) {
                let together = product(&a[..rows * k]);
                assert!(together == alone[..rows * n], "{rows} rows of {k} on {isa}");
            }
        }
    });
}

#[test]
fn not_a_number_reaches_the_result() {
    for_each_isa(|_| {
        for m in [1, 20] {
            let mut a = normals(1, m * 40);
            a[3] = f32::NAN;
            let b = normals(2, 40 * 33);
            let mut c = vec![0.0; m * 33];
            gemm(
                Mat::row_major(&a, m, 40),
                Mat::row_major(&b, 33, 40).t(),
                &mut c,
                false,
                Epilogue::NONE,
            );
            assert!(c[..33].iter().all(|c| c.is_nan()));
            assert!(c[33..].iter().all(|c| c.is_finite()));
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn products_of_any_shape_equal_the_naive_ones(m in 0_usize..70, k in 0_usize..500, n in 0_usize..140, flags in 0_u8..8) {
        for_each_isa(|_| check(m, k, n, flags & 1 > 0, flags & 2 > 0, flags & 4 > 0, Activation::Tanh));
    }
}
