//! Prints how fast the kernels run on this machine: `cargo run --release -p malmoi-kernels --example rates [filter]`.
//!
//! The first rate is that of the best of many runs; the second is per second of processor time, which says more when the
//! machine is busy with other things (waiting threads spin for a while, which counts).

use malmoi_kernels::activation::{Activation, activation_backward, activation_forward};
use malmoi_kernels::attention::{
    AttentionShape, CachedShape, Gradients, KvSlices, Mask, Saved, attention_backward,
    attention_cached, attention_forward,
};
use malmoi_kernels::cpu;
use malmoi_kernels::dropout::add_dropout_residual;
use malmoi_kernels::gemm::{Epilogue, Mat, PackedMat, gemm, gemm_packed};
use malmoi_kernels::linear::{
    linear_backward_bias, linear_backward_input, linear_backward_weight, linear_forward,
};
use malmoi_kernels::loss::{
    LinearCrossEntropy, LinearCrossEntropyGradients, Products, linear_cross_entropy,
};
use malmoi_kernels::mixed::Values;
use malmoi_kernels::norm::{
    LayerNorm, LayerNormOut, NormGradients, layer_norm_backward, layer_norm_forward,
};
use malmoi_kernels::optim::{AdamW, adamw_step};
use malmoi_kernels::random::{Key, Purpose};
use malmoi_kernels::threads;
use std::time::Instant;

fn normals(n: usize) -> Vec<f32> {
    let mut x = vec![0.0; n];
    Key::new(1, Purpose::Other(1), n as u64).fill_normal(0, &mut x);
    x
}

/// Nanoseconds that the threads of this process have run for, where the system tells.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return f64::NAN;
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 1e9
}

/// Seconds of the fastest of many runs, and processor seconds of an average run.
fn best(mut f: impl FnMut()) -> (f64, f64) {
    f();
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 5 || begin.elapsed().as_secs_f64() < 0.4 {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    (best, (cpu_seconds() - cpu) / f64::from(runs))
}

struct Report {
    filter: String,
}

impl Report {
    /// Prints a rate in 1e9 units a second.
    fn line(&self, name: &str, amount: f64, unit: &str, f: impl FnMut()) {
        if name.contains(&self.filter) {
            let (seconds, cpu) = best(f);
            println!(
                "{name:<48} {:>10.3} ms {:>8.1} {unit}, {:>7.1} a processor second",
                seconds * 1e3,
                amount / seconds / 1e9,
                amount / cpu / 1e9
            );
        }
    }
}

fn main() {
    let report = Report {
        filter: std::env::args().nth(1).unwrap_or_default(),
    };
    println!("{} on {} threads", cpu::isa(), threads::count());
    products(&report);
    mixed_products(&report);
    linears(&report);
    attentions(&report);
    rows(&report);
    losses(&report);
}

fn products(report: &Report) {
    for (m, k, n) in [
        (1024, 768, 3072),
        (1024, 3072, 768),
        (1024, 768, 768),
        (4096, 1024, 1024),
        (128, 768, 768),
        (768, 128, 128),
        (768, 128, 512),
        (768, 512, 128),
        (64, 768, 30522),
        (16, 768, 3072),
        (32, 768, 3072),
        (32, 3072, 768),
        (32, 768, 768),
        (32, 768, 50_257),
        (100, 768, 768),
    ] {
        let (a, b) = (normals(m * k), normals(n * k));
        let mut c = vec![0.0; m * n];
        let flops = 2.0 * (m * n * k) as f64;
        let (x, w) = (Mat::row_major(&a, m, k), Mat::row_major(&b, n, k).t());
        report.line(&format!("gemm x*wT {m}x{k}x{n}"), flops, "GFLOP/s", || {
            gemm(x, w, &mut c, false, Epilogue::NONE)
        });
        let packed = PackedMat::new(w);
        report.line(
            &format!("gemm packed {m}x{k}x{n}"),
            flops,
            "GFLOP/s",
            || {
                gemm_packed(x, &packed, &mut c, false, Epilogue::NONE);
            },
        );
    }
    for m in [1, 2, 4, 8] {
        for (k, n) in [(768, 3072), (768, 50257)] {
            let (a, b) = (normals(m * k), normals(n * k));
            let mut c = vec![0.0; m * n];
            let (x, w) = (Mat::row_major(&a, m, k), Mat::row_major(&b, n, k).t());
            report.line(
                &format!("gemv {m}x{k}x{n}"),
                4.0 * (n * k) as f64,
                "GB/s",
                || {
                    gemm(x, w, &mut c, false, Epilogue::NONE);
                },
            );
        }
    }
    // Weights too many for any cache, as when a model decodes.
    let (k, n) = (4096, 50_000);
    let (a, b) = (normals(k), vec![0.5; n * k]);
    let mut c = vec![0.0; n];
    report.line(
        "gemv 1x4096x50000 (800 MB)",
        4.0 * (n * k) as f64,
        "GB/s",
        || {
            gemm(
                Mat::row_major(&a, 1, k),
                Mat::row_major(&b, n, k).t(),
                &mut c,
                false,
                Epilogue::NONE,
            );
        },
    );
}

fn linears(report: &Report) {
    for (n, d_in, d_out) in [(1024, 768, 3072), (768, 128, 512)] {
        let (x, w, bias) = (normals(n * d_in), normals(d_in * d_out), normals(d_out));
        let mut y = normals(n * d_out);
        let (mut dx, mut dw, mut db) = (x.clone(), w.clone(), bias.clone());
        let flops = 2.0 * (n * d_in * d_out) as f64;
        let name = |what: &str| format!("linear {what} {n}x{d_in}x{d_out}");
        report.line(&name("forward"), flops, "GFLOP/s", || {
            linear_forward(&x, &w, Some(&bias), d_in, d_out, &mut y)
        });
        report.line(&name("backward input"), flops, "GFLOP/s", || {
            linear_backward_input(&y, &w, d_in, d_out, &mut dx)
        });
        report.line(&name("backward weight"), flops, "GFLOP/s", || {
            linear_backward_weight(&y, &x, d_in, d_out, &mut dw, false);
        });
        report.line(&name("backward bias"), 4.0 * y.len() as f64, "GB/s", || {
            linear_backward_bias(&y, d_out, &mut db, false);
        });
    }
}

fn attentions(report: &Report) {
    for (b, t, h, mask) in [
        (8, 128, 12, Mask::Full),
        (1, 1024, 12, Mask::Causal),
        (2, 512, 12, Mask::Full),
        (12, 64, 4, Mask::Causal),
    ] {
        let d = if h == 4 { 32 } else { 64 };
        let n = b * t;
        let cu: Vec<u32> = (0..=b).map(|s| (s * t) as u32).collect();
        let shape = AttentionShape::new(&cu, &cu, h, d, mask);
        let (q, k, v, dout) = (
            normals(n * h * d),
            normals(n * h * d),
            normals(n * h * d),
            normals(n * h * d),
        );
        let (mut out, mut lse) = (vec![0.0; n * h * d], vec![0.0; h * n]);
        let half = if mask == Mask::Causal { 0.5 } else { 1.0 };
        let flops = 4.0 * half * (b * t * t * h * d) as f64;
        report.line(
            &format!("attention forward {b}x{t} {mask:?}"),
            flops,
            "GFLOP/s",
            || {
                attention_forward(&shape, &q, &k, &v, &mut out, &mut lse);
            },
        );
        let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
        let saved = Saved {
            q: &q,
            k: &k,
            v: &v,
            out: &out,
            lse: &lse,
        };
        report.line(
            &format!("attention backward {b}x{t} {mask:?}"),
            2.5 * flops,
            "GFLOP/s",
            || {
                let gradients = Gradients {
                    dq: &mut dq,
                    dk: &mut dk,
                    dv: &mut dv,
                    dbias: None,
                };
                attention_backward(&shape, &saved, &dout, gradients);
            },
        );
    }
    let (h, d, len) = (32, 64, 8192);
    let (q, k, v) = (normals(h * d), normals(len * h * d), normals(len * h * d));
    let mut out = vec![0.0; h * d];
    let shape = CachedShape {
        cu_q: &[0, 1],
        n_heads: h,
        n_kv_heads: h,
        d_head: d,
        scale: 0.125,
        mask: Mask::Causal,
        q_stride: h * d,
        bias: None,
    };
    report.line(
        "attention cached 1 query, 8192 keys",
        8.0 * (len * h * d) as f64,
        "GB/s",
        || {
            attention_cached(
                &shape,
                &q,
                &[KvSlices {
                    k: Values::F32(&k),
                    v: Values::F32(&v),
                    len,
                }],
                &mut out,
            );
        },
    );
}

fn rows(report: &Report) {
    let (n, d) = (4096, 768);
    let (x, r, dy) = (normals(n * d), normals(n * d), normals(n * d));
    let (gamma, beta) = (normals(d), normals(d));
    let (mut y, mut sum) = (x.clone(), x.clone());
    let (mut mean, mut rstd) = (vec![0.0; n], vec![0.0; n]);
    let bytes = 4.0 * (n * d) as f64;
    report.line(
        "layer norm forward with residual",
        4.0 * bytes,
        "GB/s",
        || {
            let norm = LayerNorm {
                gamma: &gamma,
                beta: Some(&beta),
                eps: 1e-5,
            };
            let out = LayerNormOut {
                y: &mut y,
                sum: Some(&mut sum),
                mean: &mut mean,
                rstd: &mut rstd,
            };
            layer_norm_forward(&x, Some(&r), norm, out);
        },
    );
    let (mut dx, mut dgamma, mut dbeta) = (x.clone(), gamma.clone(), beta.clone());
    report.line("layer norm backward", 3.0 * bytes, "GB/s", || {
        let out = NormGradients {
            dx: &mut dx,
            dgamma: &mut dgamma,
            dbeta: Some(&mut dbeta),
        };
        layer_norm_backward(&x, &mean, &rstd, &gamma, &dy, out);
    });
    for kind in [Activation::Gelu, Activation::GeluTanh] {
        report.line(&format!("{kind:?} forward"), 2.0 * bytes, "GB/s", || {
            activation_forward(kind, &x, &mut y)
        });
        report.line(&format!("{kind:?} backward"), 3.0 * bytes, "GB/s", || {
            activation_backward(kind, &x, &dy, &mut dx)
        });
    }
    let key = Key::new(1, Purpose::Dropout, 1);
    report.line("add dropout residual", 3.0 * bytes, "GB/s", || {
        add_dropout_residual(&x, &r, 0.1, key, &mut y)
    });
    let n = 30_000_000;
    let g = vec![1e-3; n];
    let (mut p, mut m, mut v) = (vec![0.1; n], vec![0.0; n], vec![0.0; n]);
    let options = AdamW {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        step: 10,
    };
    report.line("adamw 30 M parameters", 28.0 * n as f64, "GB/s", || {
        adamw_step(&mut p, &g, &mut m, &mut v, options)
    });
    report.line("sum of squares 30 M", 4.0 * n as f64, "GB/s", || {
        std::hint::black_box(malmoi_kernels::reduce::sum_of_squares(&g));
    });
}

fn losses(report: &Report) {
    for (m, d, vocab) in [(614, 768, 30_522), (1020, 768, 50_257), (768, 128, 65)] {
        let (x, mut w, bias) = (normals(m * d), normals(vocab * d), normals(vocab));
        // Logits of size 1, as models have them.
        w.iter_mut().for_each(|w| *w /= (d as f32).sqrt());
        let targets: Vec<u32> = (0..m as u32).map(|i| i * 31 % vocab as u32).collect();
        let weights = vec![1.0; m];
        let (mut dx, mut dw, mut db) = (x.clone(), w.clone(), bias.clone());
        let input = LinearCrossEntropy {
            x: &x,
            w: &w,
            bias: Some(&bias),
            targets: &targets,
            weights: &weights,
            d,
            products: Products::F32,
        };
        let flops = 2.0 * (m * d * vocab) as f64;
        for (name, products) in [("", Products::F32), (" bf16", Products::Bf16)] {
            let input = LinearCrossEntropy { products, ..input };
            report.line(
                &format!("linear cross-entropy{name} {m}x{d}x{vocab}"),
                flops,
                "GFLOP/s",
                || {
                    linear_cross_entropy(input, None);
                },
            );
            for bias in [true, false] {
                let with = if bias { "grads" } else { "grads, no bias" };
                report.line(
                    &format!("linear cross-entropy{name} + {with} {m}x{d}x{vocab}"),
                    3.0 * flops,
                    "GFLOP/s",
                    || {
                        let gradients = LinearCrossEntropyGradients {
                            dx: &mut dx,
                            dw: Some(&mut dw),
                            dbias: bias.then_some(&mut db[..]),
                        };
                        linear_cross_entropy(input, Some(gradients));
                    },
                );
            }
        }
    }
}

fn mixed_products(report: &Report) {
    use malmoi_kernels::mixed::{Finish, Matrix, PackedRight, Right, ValuesMut, bf16, product};
    for (m, k, n) in [
        (1024, 768, 3072),
        (1024, 3072, 768),
        (1024, 768, 768),
        (4096, 1024, 1024),
        (32, 768, 3072),
        (32, 768, 512),
        (32, 768, 50_257),
        (8, 768, 3072),
        (1, 768, 3072),
        (1, 768, 50257),
    ] {
        let (a, b) = (normals(m * k), normals(n * k));
        let x: Vec<bf16> = a.iter().map(|&x| bf16::from_f32(x)).collect();
        let flops = 2.0 * (m * n * k) as f64;
        let w = Matrix::row_major(Values::F32(&b), n, k).t();
        let x = Matrix::row_major(Values::Bf16(&x), m, k);
        let mut y = vec![bf16::ZERO; m * n];
        report.line(
            &format!("bf16 x*wT {m}x{k}x{n}, w in f32"),
            flops,
            "GFLOP/s",
            || {
                product(
                    x,
                    Right::Plain(w),
                    ValuesMut::Bf16(&mut y),
                    false,
                    Finish::NONE,
                );
            },
        );
        let packed = PackedRight::new(w);
        report.line(
            &format!("bf16 packed {m}x{k}x{n}"),
            flops,
            "GFLOP/s",
            || {
                product(
                    x,
                    Right::Packed(&packed),
                    ValuesMut::Bf16(&mut y),
                    false,
                    Finish::NONE,
                );
            },
        );
        report.line(
            &format!("bf16 packed, gelu {m}x{k}x{n}"),
            flops,
            "GFLOP/s",
            || {
                let finish = Finish::Activate {
                    bias: None,
                    activation: Activation::Gelu,
                    input: None,
                };
                product(
                    x,
                    Right::Packed(&packed),
                    ValuesMut::Bf16(&mut y),
                    false,
                    finish,
                );
            },
        );
        if m >= 1024 {
            let dy: Vec<bf16> = normals(m * n).iter().map(|&x| bf16::from_f32(x)).collect();
            let dy = Matrix::row_major(Values::Bf16(&dy), m, n);
            let mut dx = vec![bf16::ZERO; m * k];
            report.line(
                &format!("bf16 dy*w {m}x{n}x{k}, w in f32"),
                flops,
                "GFLOP/s",
                || {
                    product(
                        dy,
                        Right::Plain(w.t()),
                        ValuesMut::Bf16(&mut dx),
                        false,
                        Finish::NONE,
                    );
                },
            );
            let mut dw = vec![0.0; n * k];
            report.line(&format!("bf16 dyT*x {n}x{m}x{k}"), flops, "GFLOP/s", || {
                product(
                    dy.t(),
                    Right::Plain(x),
                    ValuesMut::F32(&mut dw),
                    false,
                    Finish::NONE,
                );
            });
        }
    }
}
