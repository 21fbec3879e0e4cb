use super::*;
use crate::naive::loss as naive;
use crate::random::{Key, Purpose};
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};
use proptest::prelude::*;

fn targets(m: usize, vocab: usize) -> (Vec<u32>, Vec<f32>) {
    let key = Key::new(1, Purpose::Other(3), 0);
    let targets = (0..m as u64).map(|i| key.below_at(i, vocab as u64) as u32);
    // Weights of 0, 1 and 2; a row without weight may have any target.
    let weights: Vec<f32> = (0..m).map(|i| (i % 3) as f32).collect();
    let targets = targets
        .zip(&weights)
        .map(|(t, &w)| if w == 0.0 { u32::MAX } else { t });
    (targets.collect(), weights)
}

#[track_caller]
fn assert_same_sum(what: &str, got: LossSum, expected: LossSum) {
    // The f32 exponentials are good to 2 ulp and logits to 1e-6, so each of the rows to about 1e-6.
    assert!(
        (got.loss - expected.loss).abs() <= 2e-6 * (expected.weight + 1.0),
        "{what}: {got:?} {expected:?}"
    );
    assert_eq!(
        (got.weight, got.correct),
        (expected.weight, expected.correct),
        "{what}"
    );
}

#[test]
fn cross_entropy_equals_the_naive_one_on_every_isa() {
    for_each_isa(|isa| {
        for (m, vocab) in [
            (0, 5),
            (1, 1),
            (3, 2),
            (5, 15),
            (5, 16),
            (5, 17),
            (40, 65),
            (7, 1025),
            (3, 40_000),
        ] {
            let what = format!("{m}x{vocab} on {isa}");
            let logits: Vec<f32> = normals(1, m * vocab).iter().map(|x| x * 5.0).collect();
            let (targets, weights) = targets(m, vocab);
            let (mut got, mut expected) = (vec![9.0; m * vocab], vec![9.0; m * vocab]);
            let exact = naive::cross_entropy_forward(
                &logits,
                vocab,
                &targets,
                &weights,
                Some(&mut expected),
            );
            assert_same_sum(
                &what,
                cross_entropy_forward(&logits, &targets, &weights, None),
                exact,
            );
            assert_same_sum(
                &what,
                cross_entropy_forward(&logits, &targets, &weights, Some(&mut got)),
                exact,
            );
            assert_close(&what, &got, &expected, 1e-6, 2e-6);
            softmax_rows(&logits, vocab, &mut got);
            naive::softmax_rows(&logits, vocab, &mut expected);
            assert_close(&what, &got, &expected, 1e-7, 2e-6);
            log_softmax_rows(&logits, vocab, &mut got);
            naive::log_softmax_rows(&logits, vocab, &mut expected);
            assert_close(&what, &got, &expected, 2e-6, 1e-6);
        }
    });
}

#[test]
fn ties_count_for_the_first_and_large_logits_do_not_overflow() {
    for_each_isa(|_| {
        let hits = |target: u32| {
            cross_entropy_forward(&[1.0, 7.0, 7.0, 2.0], &[target], &[1.0], None).correct
        };
        assert_eq!([hits(0), hits(1), hits(2)], [0.0, 1.0, 0.0]);
        let sum = cross_entropy_forward(&[1e4, -1e4, 0.0], &[1], &[1.0], None);
        assert_eq!(sum.loss, 2e4);
        let sum = cross_entropy_forward(&[1.0, f32::NAN, 0.0], &[0], &[1.0], None);
        assert!(sum.loss.is_nan());
    });
}

#[test]
fn the_fused_projection_equals_the_naive_one_on_every_isa() {
    for_each_isa(|isa| {
        for (m, d, vocab) in [(0, 3, 4), (1, 1, 1), (9, 16, 33), (30, 33, 70), (65, 8, 65)] {
            let what = format!("{m}x{d}x{vocab} on {isa}");
            let (x, w, bias) = (normals(1, m * d), normals(2, vocab * d), normals(3, vocab));
            let (targets, weights) = targets(m, vocab);
            for bias in [None, Some(&bias[..])] {
                let input = LinearCrossEntropy {
                    x: &x,
                    w: &w,
                    bias,
                    targets: &targets,
                    weights: &weights,
                    d,
                    products: Products::F32,
                };
                let run = |fast: bool| {
                    let (mut dx, mut dw, mut dbias) =
                        (vec![9.0; m * d], vec![1.0; vocab * d], vec![1.0; vocab]);
                    let gradients = LinearCrossEntropyGradients {
                        dx: &mut dx,
                        dw: Some(&mut dw),
                        dbias: bias.is_some().then_some(&mut dbias[..]),
                    };
                    let sum = if fast {
                        linear_cross_entropy(input, Some(gradients))
                    } else {
                        naive::linear_cross_entropy(input, Some(gradients))
                    };
                    (sum, [dx, dw, dbias])
                };
                let ((got_sum, got), (exact_sum, expected)) = (run(true), run(false));
                assert_same_sum(&what, linear_cross_entropy(input, None), exact_sum);
                assert_same_sum(&what, got_sum, exact_sum);
                for (got, expected) in got.iter().zip(&expected) {
                    assert_close(&what, got, expected, 2e-5, 1e-5);
                }
            }
        }
    });
}

#[test]
fn gradients_in_bf16_are_those_of_rounded_values() {
    for_each_isa(|isa| {
        // Rows of odd and even width, of less than a vector and of several.
        for (m, d, vocab) in [(5, 32, 7), (33, 40, 131), (70, 64, 1000)] {
            for with_bias in [false, true] {
                let what = format!("{isa} {m}x{d}x{vocab}, bias {with_bias}");
                let rounded = |seed, n| {
                    let mut x = normals(seed, n);
                    mixed::round_to_bf16(&mut x);
                    x
                };
                let (x, w, b) = (rounded(1, m * d), rounded(2, vocab * d), normals(3, vocab));
                let (targets, weights) = targets(m, vocab);
                let input = LinearCrossEntropy {
                    x: &x,
                    w: &w,
                    bias: with_bias.then_some(&b[..]),
                    targets: &targets,
                    weights: &weights,
                    d,
                    products: Products::Bf16,
                };
                let run = |fast: bool, x: &[f32], w: &[f32]| {
                    let (mut dx, mut dw, mut dbias) =
                        (vec![0.0; m * d], vec![0.0; vocab * d], vec![0.0; vocab]);
                    let gradients = LinearCrossEntropyGradients {
                        dx: &mut dx,
                        dw: Some(&mut dw),
                        dbias: with_bias.then_some(&mut dbias[..]),
                    };
                    let sum = match fast {
                        true => linear_cross_entropy(input, Some(gradients)),
                        false => naive::linear_cross_entropy(
                            LinearCrossEntropy { x, w, ..input },
                            Some(gradients),
                        ),
                    };
                    (sum, [dx, dw, dbias])
                };
                let (got_sum, [dx, dw, dbias]) = run(true, &x, &w);
                let (exact_sum, exact) = run(false, &x, &w);
                assert_same_sum(&what, got_sum, exact_sum);
                // The bias sums gradients before they are rounded.
                assert_close(&what, &dbias, &exact[2], 2e-5, 1e-5);
                // Each gradient of a logit is off by 2^-9 of itself at most, so a sum by 2^-9 of the sum of magnitudes. The gradients
                // of a row have magnitudes of at most 2 in sum, those of a column of one a row, times weights of at most 2.
                let largest = |v: &[f32]| v.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
                let heaviest = largest(&weights);
                for (got, exact, bound) in [
                    (&dx, &exact[0], 2.0 * heaviest * largest(&w)),
                    (&dw, &exact[1], weights.iter().sum::<f32>() * largest(&x)),
                ] {
                    assert_close(&what, got, exact, 2e-5 + bound / 512.0, 1e-5);
                    assert_ne!(got, exact, "{what}: rounding shows");
                }
            }
        }
    });
}

#[test]
fn blocks_of_rows_add_up_to_the_whole() {
    for_each_isa(|isa| {
        // 64 rows are the least a block has, so these are three blocks.
        let (m, d, vocab) = (150, 2, LOGITS / 64);
        let (x, w) = (normals(1, m * d), normals(2, vocab * d));
        let (targets, weights) = targets(m, vocab);
        let input = LinearCrossEntropy {
            x: &x,
            w: &w,
            bias: None,
            targets: &targets,
            weights: &weights,
            d,
            products: Products::F32,
        };
        let whole = linear_cross_entropy(input, None);
        let mut parts = LossSum::default();
        for i in 0..m {
            let row = LinearCrossEntropy {
                x: &x[i * d..][..d],
                targets: &targets[i..=i],
                weights: &weights[i..=i],
                ..input
            };
            if i % 10 == 1 {
                parts += linear_cross_entropy(row, None);
            }
        }
        let some: Vec<f32> = (0..m)
            .map(|i| if i % 10 == 1 { weights[i] } else { 0.0 })
            .collect();
        assert_same_sum(
            &format!("{isa}"),
            linear_cross_entropy(
                LinearCrossEntropy {
                    weights: &some,
                    ..input
                },
                None,
            ),
            parts,
        );
        assert!(whole.weight > parts.weight);
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        let (m, d, vocab) = (100, 40, 3000);
        let (x, w) = (normals(1, m * d), normals(2, vocab * d));
        let (targets, weights) = targets(m, vocab);
        let input = LinearCrossEntropy {
            x: &x,
            w: &w,
            bias: None,
            targets: &targets,
            weights: &weights,
            d,
            products: Products::F32,
        };
        assert_same_bits_on_any_threads("cross-entropy", || {
            let (mut dx, mut dw) = (vec![0.0; m * d], vec![0.0; vocab * d]);
            let gradients = LinearCrossEntropyGradients {
                dx: &mut dx,
                dw: Some(&mut dw),
                dbias: None,
            };
            let sum = linear_cross_entropy(input, Some(gradients));
            dx.extend(dw);
            dx.extend([
                sum.loss as f32,
                (sum.loss - f64::from(sum.loss as f32)) as f32,
            ]);
            dx
        });
    });
}

proptest! {
    #[test]
    fn the_top_is_the_naive_one(values in prop::collection::vec(prop::sample::select(vec![0.0_f32, -0.0, 1.0, -1.0, 2.5, f32::NAN, f32::INFINITY]), 0..40), k in 0_usize..45) {
        let (got, expected) = (top_k(&values, k), naive::top_k(&values, k));
        let bits = |top: &[(u32, f32)]| top.iter().map(|&(i, x)| (i, x.to_bits())).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(&expected));
    }
}
