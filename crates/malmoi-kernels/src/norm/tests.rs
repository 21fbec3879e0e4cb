use super::*;
use crate::naive::norm as naive;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};

/// Sums of up to 3,000 values of size 1 in f32 lanes: relative error about 1e-6; outputs are of size 1 to 4.
const ATOL: f32 = 1e-5;
const RTOL: f32 = 1e-5;
const SIZES: [(usize, usize); 9] = [
    (0, 8),
    (1, 1),
    (3, 3),
    (2, 15),
    (5, 16),
    (5, 17),
    (70, 33),
    (600, 64),
    (7, 3001),
];

#[test]
fn layer_norm_equals_the_naive_one_on_every_isa() {
    for_each_isa(|isa| {
        for (n, d) in SIZES {
            // A mean far from zero, which a one-pass variance would lose digits to.
            let x: Vec<f32> = normals(1, n * d).iter().map(|x| x + 3.0).collect();
            let r = normals(2, n * d);
            let (gamma, beta, dy) = (normals(3, d), normals(4, d), normals(5, n * d));
            for (residual, keep, beta) in [
                (None, false, None),
                (None, true, Some(&beta[..])),
                (Some(&r[..]), true, Some(&beta[..])),
                (Some(&r[..]), false, None),
            ] {
                let run = |fast: bool| {
                    let (mut y, mut sum) = (vec![9.0; n * d], vec![9.0; n * d]);
                    let (mut mean, mut rstd) = (vec![9.0; n], vec![9.0; n]);
                    let out = LayerNormOut {
                        y: &mut y,
                        sum: keep.then_some(&mut sum[..]),
                        mean: &mut mean,
                        rstd: &mut rstd,
                    };
                    let norm = LayerNorm {
                        gamma: &gamma,
                        beta,
                        eps: 1e-5,
                    };
                    if fast {
                        layer_norm_forward(&x, residual, norm, out);
                    } else {
                        naive::layer_norm_forward(&x, residual, norm, out);
                    }
                    [y, sum, mean, rstd]
                };
                let (got, expected) = (run(true), run(false));
                for (got, expected) in got.iter().zip(&expected) {
                    // A row of one element has variance 0 and rstd 316.
                    assert_close(
                        &format!("layer norm {n}x{d} on {isa}"),
                        got,
                        expected,
                        if d == 1 { 1e-3 } else { ATOL },
                        RTOL,
                    );
                }
                if d == 1 {
                    continue;
                }
                let run = |fast: bool| {
                    let (mut dx, mut dgamma, mut dbeta) =
                        (vec![9.0; n * d], vec![9.0; d], vec![9.0; d]);
                    let out = NormGradients {
                        dx: &mut dx,
                        dgamma: &mut dgamma,
                        dbeta: beta.is_some().then_some(&mut dbeta[..]),
                    };
                    let [_, _, mean, rstd] = &expected;
                    if fast {
                        layer_norm_backward(&x, mean, rstd, &gamma, &dy, out);
                    } else {
                        naive::layer_norm_backward(&x, mean, rstd, &gamma, &dy, out);
                    }
                    [dx, dgamma, dbeta]
                };
                for (got, expected) in run(true).iter().zip(&run(false)) {
                    assert_close(
                        &format!("layer norm backward {n}x{d} on {isa}"),
                        got,
                        expected,
                        4.0 * ATOL,
                        RTOL,
                    );
                }
            }
        }
    });
}

#[test]
fn rms_norm_equals_the_naive_one_on_every_isa() {
    for_each_isa(|isa| {
        for (n, d) in SIZES {
            let (x, r, gamma, dy) = (
                normals(1, n * d),
                normals(2, n * d),
                normals(3, d),
                normals(5, n * d),
            );
            for residual in [None, Some(&r[..])] {
                let run = |fast: bool| {
                    let (mut y, mut sum, mut rstd) =
                        (vec![9.0; n * d], vec![9.0; n * d], vec![9.0; n]);
                    let out = RmsNormOut {
                        y: &mut y,
                        sum: Some(&mut sum),
                        rstd: &mut rstd,
                    };
                    let norm = RmsNorm {
                        gamma: &gamma,
                        eps: 1e-6,
                    };
                    let (mut dx, mut dgamma) = (vec![9.0; n * d], vec![9.0; d]);
                    if fast {
                        rms_norm_forward(&x, residual, norm, out);
                        let out = NormGradients {
                            dx: &mut dx,
                            dgamma: &mut dgamma,
                            dbeta: None,
                        };
                        rms_norm_backward(&sum, &rstd, &gamma, &dy, out);
                    } else {
                        naive::rms_norm_forward(&x, residual, norm, out);
                        let out = NormGradients {
                            dx: &mut dx,
                            dgamma: &mut dgamma,
                            dbeta: None,
                        };
                        naive::rms_norm_backward(&sum, &rstd, &gamma, &dy, out);
                    }
                    [y, sum, rstd, dx, dgamma]
                };
                for (got, expected) in run(true).iter().zip(&run(false)) {
                    // A row of one small element has a large rstd and a gradient that cancels.
                    let atol = if d == 1 { 1e-3 } else { 4.0 * ATOL };
                    assert_close(
                        &format!("rms norm {n}x{d} on {isa}"),
                        got,
                        expected,
                        atol,
                        RTOL,
                    );
                }
            }
        }
    });
}

#[test]
fn gradients_agree_with_differences() {
    for_each_isa(|_| {
        let (n, d) = (2, 7);
        let (x, gamma, dy) = (normals(1, n * d), normals(2, d), normals(3, n * d));
        let loss = |x: &[f32], gamma: &[f32]| {
            let (mut y, mut mean, mut rstd) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; n]);
            let out = LayerNormOut {
                y: &mut y,
                sum: None,
                mean: &mut mean,
                rstd: &mut rstd,
            };
            naive::layer_norm_forward(
                x,
                None,
                LayerNorm {
                    gamma,
                    beta: None,
                    eps: 1e-5,
                },
                out,
            );
            (crate::reduce::dot(&y, &dy), mean, rstd)
        };
        let (_, mean, rstd) = loss(&x, &gamma);
        let (mut dx, mut dgamma) = (vec![0.0; n * d], vec![0.0; d]);
        layer_norm_backward(
            &x,
            &mean,
            &rstd,
            &gamma,
            &dy,
            NormGradients {
                dx: &mut dx,
                dgamma: &mut dgamma,
                dbeta: None,
            },
        );
        let h = 1e-2_f32;
        for i in 0..n * d {
            let (mut above, mut below) = (x.clone(), x.clone());
            above[i] += h;
            below[i] -= h;
            let difference =
                (loss(&above, &gamma).0 - loss(&below, &gamma).0) / f64::from(above[i] - below[i]);
            // h² times a third derivative of order 10.
            assert!(
                (difference - f64::from(dx[i])).abs() < 3e-3,
                "{i}: {difference} {}",
                dx[i]
            );
        }
        for i in 0..d {
            let (mut above, mut below) = (gamma.clone(), gamma.clone());
            above[i] += h;
            below[i] -= h;
            let difference =
                (loss(&x, &above).0 - loss(&x, &below).0) / f64::from(above[i] - below[i]);
            assert!(
                (difference - f64::from(dgamma[i])).abs() < 1e-4,
                "{i}: {difference} {}",
                dgamma[i]
            );
        }
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        let (n, d) = (1000, 300);
        let (x, gamma, dy) = (normals(1, n * d), normals(2, d), normals(3, n * d));
        assert_same_bits_on_any_threads("layer norm", || {
            let (mut y, mut mean, mut rstd) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; n]);
            let out = LayerNormOut {
                y: &mut y,
                sum: None,
                mean: &mut mean,
                rstd: &mut rstd,
            };
            layer_norm_forward(
                &x,
                None,
                LayerNorm {
                    gamma: &gamma,
                    beta: None,
                    eps: 1e-5,
                },
                out,
            );
            let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; n * d], vec![0.0; d], vec![0.0; d]);
            let out = NormGradients {
                dx: &mut dx,
                dgamma: &mut dgamma,
                dbeta: Some(&mut dbeta),
            };
            layer_norm_backward(&x, &mean, &rstd, &gamma, &dy, out);
            [y, mean, rstd, dx, dgamma, dbeta].concat()
        });
    });
}
