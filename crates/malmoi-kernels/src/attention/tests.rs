use super::*;
use crate::mixed::{self, bf16};
use crate::naive::attention as naive;
use crate::random::Purpose;
use crate::simd::sizes;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};
use proptest::prelude::*;

/// Scores of normal draws have a standard deviation of about 1 after scaling, their f32 error about 1e-6 (64 products); exponentials
/// pass that on, outputs are means of values of size 1, gradients sums of up to a few hundred of them.
const ATOL: f32 = 2e-5;
const RTOL: f32 = 2e-5;

/// Distances that the biases of the tests cover.
const REACH: usize = 300;

struct Case {
    cu_q: Vec<u32>,
    cu_k: Vec<u32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(lengths: &[(usize, usize)], n_heads: usize) -> Case {
        let cumulate = |lengths: Vec<usize>| -> Vec<u32> {
            std::iter::once(0)
                .chain(lengths.iter().scan(0, |sum, &n| {
                    *sum += n as u32;
                    Some(*sum)
                }))
                .collect()
        };
        Case {
            cu_q: cumulate(lengths.iter().map(|l| l.0).collect()),
            cu_k: cumulate(lengths.iter().map(|l| l.1).collect()),
            bias: normals(9, n_heads * (2 * REACH - 1)),
        }
    }

    fn shape(&self, n_heads: usize, d_head: usize, mask: Mask) -> AttentionShape<'_> {
        AttentionShape::new(&self.cu_q, &self.cu_k, n_heads, d_head, mask)
    }

    fn bias(&self) -> Option<Bias<'_>> {
        Some(Bias {
            data: &self.bias,
            reach: REACH,
        })
    }
}

/// Compares the forward pass, its read-out and the backward pass with the naive ones.
fn check(what: &str, shape: &AttentionShape) {
    let (nq, nk) = (shape.n_queries(), shape.n_keys());
    let (wide, narrow) = (
        shape.n_heads * shape.d_head,
        shape.n_kv_heads * shape.d_head,
    );
    let q = normals(1, nq * shape.q_stride);
    let k = normals(2, nk * shape.k_stride);
    let v = normals(3, nk * shape.v_stride);
    let dout = normals(4, nq * wide);
    let run = |fast: bool| {
        let mut out = vec![9.0; nq * wide];
        let mut lse = vec![9.0; shape.n_heads * nq];
        let (mut dq, mut dk, mut dv) =
            (out.clone(), vec![9.0; nk * narrow], vec![9.0; nk * narrow]);
        let mut dbias = vec![9.0; shape.bias.map_or(0, |b| b.data.len())];
        if fast {
            attention_forward(shape, &q, &k, &v, &mut out, &mut lse);
        } else {
            naive::attention_forward(shape, &q, &k, &v, &mut out, &mut lse);
        }
        let saved = Saved {
            q: &q,
            k: &k,
            v: &v,
            out: &out,
            lse: &lse,
        };
        let gradients = Gradients {
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
            dbias: shape.bias.is_some().then_some(&mut dbias[..]),
        };
        if fast {
            attention_backward(shape, &saved, &dout, gradients);
        } else {
            naive::attention_backward(shape, &saved, &dout, gradients);
        }
        if fast && nq == nk {
            let mut dqkv = vec![9.0; nq * (wide + 2 * narrow)];
            attention_backward_fused(shape, &saved, &dout, &mut dqkv, None);
            for (i, row) in dqkv.chunks_exact(wide + 2 * narrow).enumerate() {
                assert_eq!(&row[..wide], &dq[i * wide..][..wide], "{what}: fused dq");
                assert_eq!(
                    &row[wide..wide + narrow],
                    &dk[i * narrow..][..narrow],
                    "{what}: fused dk"
                );
                assert_eq!(
                    &row[wide + narrow..],
                    &dv[i * narrow..][..narrow],
                    "{what}: fused dv"
                );
            }
        }
        [out, lse, dq, dk, dv, dbias]
    };
    let (got, expected) = (run(true), run(false));
    for (name, (got, expected)) in ["out", "lse", "dq", "dk", "dv", "dbias"]
        .iter()
        .zip(got.iter().zip(&expected))
    {
        assert_close(&format!("{name} of {what}"), got, expected, ATOL, RTOL);
    }
    check_bf16(what, shape);
}

fn rounded(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

fn widened(x: &[bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// The same for values in bf16. Probabilities and score gradients are rounded before they are summed, and so are results:
/// a few times 2^-9 of the size of what is summed, so that deviations are measured against the whole array. The gradient of a
/// score is a difference that the rounding of the output touches too.
fn check_bf16(what: &str, shape: &AttentionShape) {
    let (nq, nk) = (shape.n_queries(), shape.n_keys());
    let (wide, narrow) = (
        shape.n_heads * shape.d_head,
        shape.n_kv_heads * shape.d_head,
    );
    let q = rounded(&normals(1, nq * shape.q_stride));
    let k = rounded(&normals(2, nk * shape.k_stride));
    let v = rounded(&normals(3, nk * shape.v_stride));
    let dout = rounded(&normals(4, nq * wide));
    let none = bf16::from_f32(9.0);
    let mut out = vec![none; nq * wide];
    let mut lse = vec![9.0; shape.n_heads * nq];
    mixed::attention_forward(shape, &q, &k, &v, &mut out, &mut lse);
    let (mut dq, mut dk, mut dv) = (
        out.clone(),
        vec![none; nk * narrow],
        vec![none; nk * narrow],
    );
    let mut dbias = vec![9.0; shape.bias.map_or(0, |b| b.data.len())];
    mixed::attention_backward(
        shape,
        &Saved {
            q: &q,
            k: &k,
            v: &v,
            out: &out,
            lse: &lse,
        },
        &dout,
        Gradients {
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
            dbias: shape.bias.is_some().then_some(&mut dbias[..]),
        },
    );
    let got = [
        widened(&out),
        lse,
        widened(&dq),
        widened(&dk),
        widened(&dv),
        dbias,
    ];

    let [q, k, v, dout] = [&q, &k, &v, &dout].map(|x| widened(x));
    let mut out = vec![9.0; nq * wide];
    let mut lse = vec![9.0; shape.n_heads * nq];
    naive::attention_forward(shape, &q, &k, &v, &mut out, &mut lse);
    let (mut dq, mut dk, mut dv) = (out.clone(), vec![9.0; nk * narrow], vec![9.0; nk * narrow]);
    let mut dbias = vec![9.0; shape.bias.map_or(0, |b| b.data.len())];
    naive::attention_backward(
        shape,
        &Saved {
            q: &q,
            k: &k,
            v: &v,
            out: &out,
            lse: &lse,
        },
        &dout,
        Gradients {
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
            dbias: shape.bias.is_some().then_some(&mut dbias[..]),
        },
    );
    let expected = [out, lse, dq, dk, dv, dbias];
    for (name, (got, expected)) in ["out", "lse", "dq", "dk", "dv", "dbias"]
        .iter()
        .zip(got.iter().zip(&expected))
    {
        let what = format!("{name} of {what} in bf16");
        if *name == "lse" {
            assert_close(&what, got, expected, 1e-4, 1e-5);
            continue;
        }
        let size = |x: &mut dyn Iterator<Item = f32>| {
            let squares = x.map(|x| f64::from(x) * f64::from(x));
            squares.sum::<f64>().sqrt()
        };
        // Four roundings of 2^-9 each. In narrow heads nothing averages out, and the gradient of a score can be a difference several times
        // smaller than its terms.
        let allowed = if shape.d_head < 16 { 32.0 } else { 128.0 };
        let deviation = size(&mut got.iter().zip(expected).map(|(x, y)| x - y));
        let whole = size(&mut expected.iter().copied());
        assert!(
            deviation <= whole / allowed + 1e-6,
            "{what}: deviates by {deviation:e} of {whole:e}"
        );
    }
}

#[test]
fn attention_equals_the_naive_one_on_every_isa() {
    for_each_isa(|isa| {
        let s = sizes();
        let lengths = [
            (1, 1),
            (0, 0),
            (s.mr - 1, s.mr - 1),
            (s.nr, s.nr),
            (s.nr + 1, s.nr + 1),
            (2, 0),
            (0, 3),
            (129, 131),
        ];
        let case = Case::new(&lengths, 2);
        for mask in [
            Mask::Full,
            Mask::Causal,
            Mask::Window { left: 3, right: 1 },
            Mask::Window { left: 40, right: 0 },
            Mask::Strided { stride: 3 },
        ] {
            for d_head in [1, 5, 16, 33, 64] {
                check(
                    &format!("{mask:?} d_head {d_head} on {isa}"),
                    &case.shape(2, d_head, mask),
                );
            }
        }
    });
}

#[test]
fn fewer_queries_than_keys_and_the_reverse_are_aligned_to_the_end() {
    for_each_isa(|isa| {
        let case = Case::new(&[(1, 50), (40, 45), (45, 40), (3, 1)], 2);
        for mask in [
            Mask::Causal,
            Mask::Window { left: 7, right: 2 },
            Mask::Strided { stride: 4 },
        ] {
            check(&format!("{mask:?} on {isa}"), &case.shape(2, 8, mask));
        }
        // A bias that reaches no further than the longest sequence, and queries before the first key.
        let bias = normals(7, 2 * 99);
        let shape = AttentionShape {
            bias: Some(Bias {
                data: &bias,
                reach: 50,
            }),
            ..case.shape(2, 8, Mask::Full)
        };
        check(&format!("tight bias on {isa}"), &shape);
    });
}

#[test]
fn visible_pairs_are_those_that_a_query_sees() {
    for mask in [
        Mask::Full,
        Mask::Causal,
        Mask::Window { left: 2, right: 1 },
        Mask::Strided { stride: 3 },
    ] {
        for (nq, nk) in [(0, 0), (5, 5), (3, 8), (8, 3)] {
            let sees = |i: usize| {
                let keys = mask.keys_of(i, nq, nk);
                keys.filter(|&j| mask.sees(i, j, nq, nk)).count() as u64
            };
            let counted: u64 = (0..nq).map(sees).sum();
            assert_eq!(mask.visible(nq, nk), counted, "{mask:?} {nq} of {nk}");
        }
    }
}

#[test]
fn strides_shared_heads_dropout_and_bias_work_together() {
    for_each_isa(|isa| {
        let case = Case::new(&[(37, 37), (5, 5), (70, 70)], 4);
        let plain = case.shape(4, 16, Mask::Causal);
        let dropout = Some(Dropout {
            p: 0.25,
            key: Key::new(3, Purpose::Dropout, 1),
        });
        let fused = AttentionShape {
            q_stride: 192,
            k_stride: 192,
            v_stride: 200,
            ..plain
        };
        check(&format!("strides on {isa}"), &fused);
        check(
            &format!("shared heads on {isa}"),
            &AttentionShape {
                n_kv_heads: 2,
                ..fused
            },
        );
        check(
            &format!("one key head on {isa}"),
            &AttentionShape {
                n_kv_heads: 1,
                ..plain
            },
        );
        check(
            &format!("dropout on {isa}"),
            &AttentionShape { dropout, ..plain },
        );
        check(
            &format!("bias on {isa}"),
            &AttentionShape {
                bias: case.bias(),
                ..plain
            },
        );
        let all = AttentionShape {
            n_kv_heads: 2,
            dropout,
            bias: case.bias(),
            mask: Mask::Full,
            scale: 1.0,
            ..fused
        };
        check(&format!("everything on {isa}"), &all);
    });
}

#[test]
fn gradients_agree_with_differences() {
    for_each_isa(|_| {
        let case = Case::new(&[(3, 4)], 2);
        let shape = AttentionShape {
            dropout: Some(Dropout {
                p: 0.3,
                key: Key::new(1, Purpose::Dropout, 0),
            }),
            ..case.shape(2, 3, Mask::Causal)
        };
        let (q, k, v, dout) = (
            normals(1, 18),
            normals(2, 24),
            normals(3, 24),
            normals(4, 18),
        );
        // The loss is the dot product of the naive output (double precision inside, rounded to f32) and `dout`.
        let loss = |q: &[f32], k: &[f32], v: &[f32]| {
            let (mut out, mut lse) = (vec![0.0; 18], vec![0.0; 6]);
            naive::attention_forward(&shape, q, k, v, &mut out, &mut lse);
            crate::reduce::dot(&out, &dout)
        };
        let (mut out, mut lse) = (vec![0.0; 18], vec![0.0; 6]);
        attention_forward(&shape, &q, &k, &v, &mut out, &mut lse);
        let (mut dq, mut dk, mut dv) = (vec![0.0; 18], vec![0.0; 24], vec![0.0; 24]);
        let saved = Saved {
            q: &q,
            k: &k,
            v: &v,
            out: &out,
            lse: &lse,
        };
        let gradients = Gradients {
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
            dbias: None,
        };
        attention_backward(&shape, &saved, &dout, gradients);
        let h = 1e-2_f32;
        for (which, gradient) in [(0, &dq), (1, &dk), (2, &dv)] {
            for i in 0..gradient.len() {
                let mut inputs = [q.clone(), k.clone(), v.clone()];
                inputs[which][i] += h;
                let above = loss(&inputs[0], &inputs[1], &inputs[2]);
                inputs[which][i] -= 2.0 * h;
                let below = loss(&inputs[0], &inputs[1], &inputs[2]);
                let difference = (above - below) / (2.0 * f64::from(h));
                // h² times third derivatives of order 1, and f32 rounding of 1e-7 divided by h.
                assert!(
                    (difference - f64::from(gradient[i])).abs() < 1e-3,
                    "input {which} element {i}: {difference} {}",
                    gradient[i]
                );
            }
        }
    });
}

#[test]
fn probabilities_are_those_of_the_forward_pass() {
    for_each_isa(|_| {
        let case = Case::new(&[(4, 6), (9, 9)], 2);
        let shape = case.shape(2, 5, Mask::Causal);
        let (q, k, v) = (
            normals(1, 13 * 10),
            normals(2, 15 * 10),
            normals(3, 15 * 10),
        );
        let mut probs = vec![0.0; shape.probabilities_len()];
        attention_probabilities(&shape, &q, &k, &mut probs);
        let (mut out, mut lse) = (vec![0.0; 130], vec![0.0; 26]);
        attention_forward(&shape, &q, &k, &v, &mut out, &mut lse);
        let mut at = 0;
        for s in 0..2 {
            let (nq, nk) = (shape.queries_of(s).len(), shape.keys_of(s).len());
            for head in 0..2 {
                for i in 0..nq {
                    let p = &probs[at..at + nk];
                    at += nk;
                    for c in 0..5 {
                        let sum: f32 = (0..nk)
                            .map(|j| p[j] * v[(shape.keys_of(s).start + j) * 10 + head * 5 + c])
                            .sum();
                        let got = out[(shape.queries_of(s).start + i) * 10 + head * 5 + c];
                        assert!((sum - got).abs() < ATOL, "{sum} {got}");
                    }
                }
            }
        }
    });
}

#[test]
fn cached_attention_equals_the_naive_one_on_every_isa() {
    for_each_isa(|isa| {
        for (n_heads, n_kv_heads, d_head) in [(2, 2, 5), (4, 2, 16), (3, 1, 33), (2, 2, 64)] {
            for mask in [
                Mask::Causal,
                Mask::Full,
                Mask::Window { left: 4, right: 0 },
                Mask::Strided { stride: 5 },
            ] {
                let (wide, narrow) = (n_heads * d_head, n_kv_heads * d_head);
                let lens = [1, 17, 100, 33, 2];
                let cu_q = [0_u32, 1, 2, 4, 24, 24];
                let stores: Vec<_> = lens
                    .iter()
                    .map(|&n| {
                        (
                            normals(n as u64, (n + 3) * narrow),
                            normals(50 + n as u64, (n + 3) * narrow),
                        )
                    })
                    .collect();
                let halves: Vec<_> = (stores.iter())
                    .map(|(k, v)| (rounded(k), rounded(v)))
                    .collect();
                let wide_caches = (lens.iter().zip(&stores)).map(|(&len, (k, v))| KvSlices {
                    k: Values::F32(k),
                    v: Values::F32(v),
                    len,
                });
                let narrow_caches = (lens.iter().zip(&halves)).map(|(&len, (k, v))| KvSlices {
                    k: Values::Bf16(k),
                    v: Values::Bf16(v),
                    len,
                });
                let formats: [Vec<_>; 2] = [wide_caches.collect(), narrow_caches.collect()];
                // The longest sequence reaches exactly as far as the bias.
                let bias = normals(9, n_heads * 199);
                for bias in [
                    None,
                    Some(Bias {
                        data: &bias,
                        reach: 100,
                    }),
                ] {
                    let shape = CachedShape {
                        cu_q: &cu_q,
                        n_heads,
                        n_kv_heads,
                        d_head,
                        scale: 0.3,
                        mask,
                        q_stride: wide + 2,
                        bias,
                    };
                    let q = normals(1, 24 * (wide + 2));
                    let (mut got, mut expected) = (vec![9.0; 24 * wide], vec![9.0; 24 * wide]);
                    for caches in &formats {
                        attention_cached(&shape, &q, caches, &mut got);
                        naive::attention_cached(&shape, &q, caches, &mut expected);
                        let what = format!("cached {n_heads}/{n_kv_heads}x{d_head} {mask:?}");
                        assert_close(&format!("{what} on {isa}"), &got, &expected, ATOL, RTOL);
                    }
                }
            }
        }
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        // Long enough for one and three threads to cut the queries differently.
        let case = Case::new(&[(290, 290), (33, 33)], 3);
        let shape = case.shape(3, 32, Mask::Causal);
        let n = shape.n_queries();
        let (q, k, v, dout) = (
            normals(1, n * 96),
            normals(2, n * 96),
            normals(3, n * 96),
            normals(4, n * 96),
        );
        for bias in [None, case.bias()] {
            let shape = AttentionShape { bias, ..shape };
            assert_same_bits_on_any_threads("attention", || {
                let (mut out, mut lse) = (vec![0.0; n * 96], vec![0.0; 3 * n]);
                attention_forward(&shape, &q, &k, &v, &mut out, &mut lse);
                let (mut dq, mut dk, mut dv) =
                    (vec![0.0; n * 96], vec![0.0; n * 96], vec![0.0; n * 96]);
                let mut dbias = vec![0.0; case.bias.len()];
                let saved = Saved {
                    q: &q,
                    k: &k,
                    v: &v,
                    out: &out,
                    lse: &lse,
                };
                let dbias_slot = bias.is_some().then_some(&mut dbias[..]);
                let gradients = Gradients {
                    dq: &mut dq,
                    dk: &mut dk,
                    dv: &mut dv,
                    dbias: dbias_slot,
                };
                attention_backward(&shape, &saved, &dout, gradients);
                [out, lse, dq, dk, dv, dbias].concat()
            });
            let [q, k, v, dout] = [&q, &k, &v, &dout].map(|x| rounded(x));
            assert_same_bits_on_any_threads("attention in bf16", || {
                let zeros = vec![bf16::ZERO; n * 96];
                let (mut out, mut lse) = (zeros.clone(), vec![0.0; 3 * n]);
                mixed::attention_forward(&shape, &q, &k, &v, &mut out, &mut lse);
                let (mut dq, mut dk, mut dv) = (zeros.clone(), zeros.clone(), zeros);
                let mut dbias = vec![0.0; case.bias.len()];
                let saved = Saved {
                    q: &q,
                    k: &k,
                    v: &v,
                    out: &out,
                    lse: &lse,
                };
                let gradients = Gradients {
                    dq: &mut dq,
                    dk: &mut dk,
                    dv: &mut dv,
                    dbias: bias.is_some().then_some(&mut dbias[..]),
                };
                mixed::attention_backward(&shape, &saved, &dout, gradients);
                let [out, dq, dk, dv] = [out, dq, dk, dv].map(|x| widened(&x));
                [out, lse, dq, dk, dv, dbias].concat()
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_lengths_equal_the_naive_ones(
        lengths in prop::collection::vec((0_usize..70, 0_usize..70), 0..4),
        d_head in 1_usize..40,
        left in 0_usize..80,
        right in 0_usize..10,
    ) {
        for_each_isa(|isa| {
            let case = Case::new(&lengths, 2);
            let what = format!("{lengths:?} d_head {d_head} window {left} {right} on {isa}");
            check(&what, &case.shape(2, d_head, Mask::Window { left, right }));
        });
    }
}
