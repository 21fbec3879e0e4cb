use super::*;
use crate::activation::{activation_backward, activation_forward};
use crate::gemm::Epilogue;
use crate::naive;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};

/// Sums of products of bf16 values are exact products in f32 whose order of summation alone differs: the bound of the f32
/// product's tests.
fn sum_tolerance(k: usize) -> f32 {
    1.5e-7 * k as f32 + 1e-6
}

/// Deviation of an activation that is about to be rounded to bf16, on the tile unit.
const ESTIMATE: f32 = 1.0 / 1024.0;
/// Half a unit in the last place of bf16 (8 significant bits), and a little for sums near a tie.
const ROUNDING: f32 = 1.0 / 256.0 + 1e-4;

fn bf16s(seed: u64, n: usize) -> Vec<bf16> {
    normals(seed, n).into_iter().map(bf16::from_f32).collect()
}

fn widened(x: &[bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// Every way a matrix can lie: format and direction.
#[derive(Clone, Copy, Debug)]
struct Kind {
    bf16: bool,
    transposed: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        bf16: false,
        transposed: false,
    },
    Kind {
        bf16: false,
        transposed: true,
    },
    Kind {
        bf16: true,
        transposed: false,
    },
    Kind {
        bf16: true,
        transposed: true,
    },
];

/// The stored values of a [rows, cols] matrix.
struct Stored {
    kind: Kind,
    rows: usize,
    cols: usize,
    f32: Vec<f32>,
    bf16: Vec<bf16>,
}

impl Stored {
    fn new(seed: u64, kind: Kind, rows: usize, cols: usize) -> Stored {
        let f32 = normals(seed, rows * cols);
        let bf16 = f32.iter().map(|&x| bf16::from_f32(x)).collect();
        Stored {
            kind,
            rows,
            cols,
            f32,
            bf16,
        }
    }

    fn matrix(&self) -> Matrix<'_> {
        let values = if self.kind.bf16 {
            Values::Bf16(&self.bf16)
        } else {
            Values::F32(&self.f32)
        };
        if self.kind.transposed {
            Matrix::row_major(values, self.cols, self.rows).t()
        } else {
            Matrix::row_major(values, self.rows, self.cols)
        }
    }

    /// The rounded values as the naive product takes them.
    fn rounded(&self) -> Vec<f32> {
        let wide = widened(&self.bf16);
        if !self.kind.transposed {
            return wide;
        }
        let mut out = vec![0.0; wide.len()];
        for i in 0..self.rows {
            for j in 0..self.cols {
                out[i * self.cols + j] = wide[j * self.rows + i];
            }
        }
        out
    }
}

fn expected(a: &Stored, b: &Stored, c: &[f32], accumulate: bool) -> Vec<f32> {
    let (left, right) = (a.rounded(), b.rounded());
    let mut expected = c.to_vec();
    naive::gemm::gemm(
        Mat::row_major(&left, a.rows, a.cols),
        Mat::row_major(&right, b.rows, b.cols),
        &mut expected,
        accumulate,
        Epilogue::NONE,
    );
    expected
}

#[test]
fn products_agree_with_the_naive_ones_at_every_edge() {
    for_each_isa(|isa| {
        for (m, k, n) in [
            (1, 1, 1),
            (1, 32, 32),
            (2, 31, 33),
            (15, 33, 31),
            (16, 64, 16),
            (17, 96, 65),
            (32, 32, 32),
            (33, 100, 47),
            (48, 64, 96),
            (63, 160, 130),
            (70, 257, 31),
        ] {
            for a_kind in KINDS {
                for b_kind in KINDS {
                    let (a, b) = (Stored::new(1, a_kind, m, k), Stored::new(2, b_kind, k, n));
                    let what = format!("{m}x{k}x{n} {a_kind:?} {b_kind:?} on {isa}");
                    let before = normals(3, m * n);
                    for accumulate in [false, true] {
                        let mut got = before.clone();
                        let right = Right::Plain(b.matrix());
                        product(
                            a.matrix(),
                            right,
                            ValuesMut::F32(&mut got),
                            accumulate,
                            Finish::NONE,
                        );
                        let expected = expected(&a, &b, &before, accumulate);
                        assert_close(&what, &got, &expected, sum_tolerance(k), sum_tolerance(k));
                        let packed = PackedRight::new(b.matrix());
                        let mut same = before.clone();
                        product(
                            a.matrix(),
                            Right::Packed(&packed),
                            ValuesMut::F32(&mut same),
                            accumulate,
                            Finish::NONE,
                        );
                        assert_eq!(got, same, "{what}: packed beforehand");
                    }
                }
            }
        }
    });
}

#[test]
fn long_sums_agree_with_the_naive_ones() {
    for_each_isa(|isa| {
        // The first passes groups of rows with each part of the sum, the second one row of blocks after the other.
        for (m, k, n) in [(70, 1600, 530), (70, 3200, 40)] {
            for transposed in [false, true] {
                let kind = Kind {
                    bf16: true,
                    transposed,
                };
                let (a, b) = (Stored::new(1, kind, m, k), Stored::new(2, kind, k, n));
                let mut got = vec![0.0; m * n];
                let right = Right::Plain(b.matrix());
                product(
                    a.matrix(),
                    right,
                    ValuesMut::F32(&mut got),
                    false,
                    Finish::NONE,
                );
                let expected = expected(&a, &b, &vec![0.0; m * n], false);
                let what = format!("{m}x{k}x{n} {kind:?} on {isa}");
                assert_close(&what, &got, &expected, sum_tolerance(k), sum_tolerance(k));
            }
        }
    });
}

#[test]
fn a_product_without_terms_is_zero_and_an_empty_one_nothing() {
    for_each_isa(|_| {
        let (a, b) = (
            Matrix::row_major(Values::F32(&[]), 3, 0),
            Matrix::row_major(Values::F32(&[]), 0, 2),
        );
        let mut c = [7.0; 6];
        product(
            a,
            Right::Plain(b),
            ValuesMut::F32(&mut c),
            false,
            Finish::bias(Some(&[1.0, 2.0])),
        );
        assert_eq!(c, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
        let nothing = Matrix::row_major(Values::F32(&[]), 0, 2);
        let right = Right::Plain(Matrix::row_major(Values::F32(&[1.0; 8]), 2, 4));
        product(nothing, right, ValuesMut::F32(&mut []), false, Finish::NONE);
    });
}

#[test]
fn results_are_finished_as_asked() {
    for_each_isa(|isa| {
        let (m, k, n) = (37, 64, 45);
        let kind = Kind {
            bf16: true,
            transposed: false,
        };
        let (a, b) = (Stored::new(1, kind, m, k), Stored::new(2, kind, k, n));
        let sums = expected(&a, &b, &vec![0.0; m * n], false);
        let bias = normals(4, n);
        let other = bf16s(5, m * n);
        for activation in Activation::ALL {
            let what = format!("{activation:?} on {isa}");
            let mut biased = sums.clone();
            biased
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x += bias[i % n]);
            let (mut y, mut input) = (vec![bf16::ZERO; m * n], vec![bf16::ZERO; m * n]);
            let finish = Finish::Activate {
                bias: Some(&bias),
                activation,
                input: Some(&mut input),
            };
            product(
                a.matrix(),
                Right::Plain(b.matrix()),
                ValuesMut::Bf16(&mut y),
                false,
                finish,
            );
            assert_close(&what, &widened(&input), &biased, 1e-4, ROUNDING);
            let mut active = vec![0.0; m * n];
            activation_forward(activation, &biased, &mut active);
            assert_close(&what, &widened(&y), &active, 1e-4, ROUNDING + ESTIMATE);

            let mut dx = vec![bf16::ZERO; m * n];
            let finish = Finish::Derivative {
                activation,
                input: &other,
            };
            product(
                a.matrix(),
                Right::Plain(b.matrix()),
                ValuesMut::Bf16(&mut dx),
                false,
                finish,
            );
            let mut slope = vec![0.0; m * n];
            activation_backward(activation, &widened(&other), &sums, &mut slope);
            // A derivative crosses zero, where its deviation is one of its size elsewhere; the sums multiply it.
            let largest = sums.iter().fold(0.0_f32, |most, c| most.max(c.abs()));
            let absolute = 1e-4 + ESTIMATE / 8.0 * largest;
            assert_close(&what, &widened(&dx), &slope, absolute, ROUNDING + ESTIMATE);
        }
        let mut y = vec![bf16::ZERO; m * n];
        product(
            a.matrix(),
            Right::Plain(b.matrix()),
            ValuesMut::Bf16(&mut y),
            false,
            Finish::Add { residual: &other },
        );
        let total: Vec<f32> = sums
            .iter()
            .zip(widened(&other))
            .map(|(a, b)| a + b)
            .collect();
        assert_close("residual", &widened(&y), &total, 1e-4, ROUNDING);
    });
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for_each_isa(|isa| {
        let (m, k, n) = (200, 192, 300);
        let (a, b) = (
            Stored::new(1, KINDS[1], m, k),
            Stored::new(2, KINDS[0], k, n),
        );
        assert_same_bits_on_any_threads(&format!("product on {isa}"), || {
            let mut c = vec![0.0; m * n];
            product(
                a.matrix(),
                Right::Plain(b.matrix()),
                ValuesMut::F32(&mut c),
                false,
                Finish::NONE,
            );
            c
        });
    });
}

#[test]
fn conversions_round_to_nearest_even_and_keep_what_is_not_a_number() {
    for_each_isa(|_| {
        let mut x = normals(1, 40_000);
        x.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            1.0 + 1.0 / 256.0,
            1.0 + 3.0 / 256.0,
            3.4e38,
            1e-40,
        ]);
        let mut y = vec![bf16::ZERO; x.len()];
        to_bf16(&x, &mut y);
        assert!(
            x.iter()
                .zip(&y)
                .all(|(&x, y)| y.to_bits() == bf16::from_f32(x).to_bits())
        );
        let mut back = vec![0.0; x.len()];
        to_f32(&y, &mut back);
        assert!(
            y.iter()
                .zip(&back)
                .all(|(y, &back)| y.to_f32().to_bits() == back.to_bits())
        );
        round_to_bf16(&mut x);
        assert_eq!(x, back);
        let mut y = [bf16::ZERO];
        to_bf16(&[f32::NAN], &mut y);
        assert!(y[0].is_nan());
    });
}

/// A result of f32 arithmetic, rounded once.
fn assert_rounded(what: &str, got: &[bf16], expected: &[f32]) {
    assert_close(what, &widened(got), expected, 1e-5, ROUNDING);
}

#[test]
fn norms_agree_with_those_in_f32() {
    for_each_isa(|isa| {
        for (n, d) in [(1, 1), (3, 7), (40, 33), (100, 768)] {
            let (x, r) = (bf16s(1, n * d), bf16s(2, n * d));
            let (gamma, beta, dy) = (normals(3, d), normals(4, d), bf16s(5, n * d));
            let layer = crate::norm::LayerNorm {
                gamma: &gamma,
                beta: Some(&beta),
                eps: 1e-5,
            };
            let rms = crate::norm::RmsNorm {
                gamma: &gamma,
                eps: 1e-5,
            };
            for norm in [Norm::Layer(layer), Norm::Rms(rms)] {
                let layered = matches!(norm, Norm::Layer(_));
                let what = format!("{n}x{d} layer {layered} on {isa}");
                let means = if layered { n } else { 0 };
                let (mut y, mut sum) = (vec![bf16::ZERO; n * d], vec![bf16::ZERO; n * d]);
                let (mut mean, mut rstd) = (vec![0.0; means], vec![0.0; n]);
                let out = NormOut {
                    y: &mut y,
                    sum: Some(&mut sum),
                    mean: &mut mean,
                    rstd: &mut rstd,
                };
                norm_forward(&x, Some(&r), norm, out);
                let (wx, wr) = (widened(&x), widened(&r));
                let (mut ey, mut es) = (vec![0.0; n * d], vec![0.0; n * d]);
                let (mut em, mut er) = (vec![0.0; means], vec![0.0; n]);
                match norm {
                    Norm::Layer(norm) => {
                        let out = crate::norm::LayerNormOut {
                            y: &mut ey,
                            sum: Some(&mut es),
                            mean: &mut em,
                            rstd: &mut er,
                        };
                        naive::norm::layer_norm_forward(&wx, Some(&wr), norm, out);
                    }
                    Norm::Rms(norm) => {
                        let out = crate::norm::RmsNormOut {
                            y: &mut ey,
                            sum: Some(&mut es),
                            rstd: &mut er,
                        };
                        naive::norm::rms_norm_forward(&wx, Some(&wr), norm, out);
                    }
                }
                assert_rounded(&what, &sum, &es);
                // Rows of one element divide by nearly nothing.
                if d > 1 {
                    assert_rounded(&what, &y, &ey);
                }
                assert_close(&what, &mean, &em, 1e-5, 1e-4);

                let saved = NormSaved {
                    x: &sum,
                    mean: &mean,
                    rstd: &rstd,
                };
                let mut dx = vec![bf16::ZERO; n * d];
                let (mut dgamma, mut dbeta) = (vec![9.0; d], vec![9.0; d]);
                norm_backward(
                    norm,
                    saved,
                    &dy,
                    &mut dx,
                    &mut dgamma,
                    layered.then_some(&mut dbeta[..]),
                );
                let (wsum, wdy) = (widened(&sum), widened(&dy));
                let mut edx = vec![0.0; n * d];
                let (mut eg, mut eb) = (vec![0.0; d], vec![0.0; d]);
                let out = crate::norm::NormGradients {
                    dx: &mut edx,
                    dgamma: &mut eg,
                    dbeta: layered.then_some(&mut eb),
                };
                match norm {
                    Norm::Layer(_) => {
                        naive::norm::layer_norm_backward(&wsum, &mean, &rstd, &gamma, &wdy, out)
                    }
                    Norm::Rms(_) => naive::norm::rms_norm_backward(&wsum, &rstd, &gamma, &wdy, out),
                }
                if d > 1 {
                    assert_rounded(&what, &dx, &edx);
                    assert_close(&what, &dgamma, &eg, 1e-3, 1e-4);
                }
                if layered {
                    assert_close(&what, &dbeta, &eb, 1e-4, 1e-5);
                }
            }
        }
    });
}

#[test]
fn sums_of_rows_and_residuals_agree_with_those_in_f32() {
    for_each_isa(|isa| {
        for (n, d) in [(0, 5), (1, 1), (37, 65), (300, 129)] {
            let (x, r) = (bf16s(1, n * d), bf16s(2, n * d));
            let what = format!("{n}x{d} on {isa}");
            let mut sums = vec![3.0; d];
            sum_rows(&x, &mut sums);
            let mut expected = vec![0.0; d];
            naive::reduce::sum_rows(&widened(&x), &mut expected, false);
            assert_close(&what, &sums, &expected, 1e-4, 1e-5);

            let key = crate::random::Key::new(7, crate::random::Purpose::Dropout, 3);
            for drop in [None, Some((0.1, key))] {
                let mut y = vec![bf16::ZERO; n * d];
                add_dropout(&x, Some(&r), drop, &mut y);
                let mut expected = vec![0.0; n * d];
                match drop {
                    Some((p, key)) => {
                        crate::dropout::add_dropout_residual(
                            &widened(&x),
                            &widened(&r),
                            p,
                            key,
                            &mut expected,
                        );
                    }
                    None => {
                        expected = widened(&x)
                            .iter()
                            .zip(widened(&r))
                            .map(|(x, r)| x + r)
                            .collect();
                    }
                }
                assert_rounded(&what, &y, &expected);
            }
            let mut total = x.clone();
            add_in_place(&mut total, &r);
            let expected: Vec<f32> = widened(&x)
                .iter()
                .zip(widened(&r))
                .map(|(x, r)| x + r)
                .collect();
            assert_rounded(&what, &total, &expected);
        }
    });
}

#[test]
fn activations_and_gates_are_those_in_f32_rounded() {
    use crate::activation;
    for_each_isa(|isa| {
        // Less than a vector, several, and a piece with one element behind it.
        for n in [0, 1, 37, 16_385] {
            let [x, up, dy] = [1, 2, 3].map(|seed| bf16s(seed, n));
            let [wx, wup, wdy] = [&x, &up, &dy].map(|x| widened(x));
            for kind in Activation::ALL {
                let what = format!("{kind:?} of {n} on {isa}");
                let (mut y, mut wide) = (vec![bf16::ONE; n], vec![0.0; n]);
                let check = |y: &[bf16], wide: &[f32], part: &str| {
                    let rounded: Vec<bf16> = wide.iter().map(|&x| bf16::from_f32(x)).collect();
                    assert_eq!(y, rounded, "{what}: {part}");
                };
                super::activation_forward(kind, &x, &mut y);
                activation_forward(kind, &wx, &mut wide);
                check(&y, &wide, "forward");
                super::activation_backward(kind, &x, &dy, &mut y);
                activation_backward(kind, &wx, &wdy, &mut wide);
                check(&y, &wide, "backward");
                gated_forward(kind, &x, &up, &mut y);
                activation::gated_forward(kind, &wx, &wup, &mut wide);
                check(&y, &wide, "gated");
                let (mut by_up, mut wide_by_up) = (vec![bf16::ONE; n], vec![0.0; n]);
                gated_backward(kind, &x, &up, &dy, &mut y, &mut by_up);
                activation::gated_backward(kind, &wx, &wup, &wdy, &mut wide, &mut wide_by_up);
                check(&y, &wide, "gradient of the gate");
                check(&by_up, &wide_by_up, "gradient of what is gated");
            }
        }
    });
}
