//! Every hand-written backward pass against finite differences: the derivative along a random direction.
//!
//! Central differences with step h have an error of h²/6 · f''' plus the rounding of two f32 losses divided by 2h. With
//! h = 1/64 and values of order one both stay below 2 % of the directional derivatives met here; a wrong term is wrong by
//! far more.

use std::sync::Arc;

use burn::module::{Param, ParamId};
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, AttentionLayout, Projection, RotaryLayout};
use malmoi_nn::{Activation, Key, Mask, NormConfig, NormKind, Pairs, Purpose, host};

const STEP: f32 = 1.0 / 64.0;
const TOLERANCE: f64 = 0.02;

fn random(shape: [usize; 2], stream: u64) -> Vec<f32> {
    let mut values = vec![0.0; shape[0] * shape[1]];
    Key::new(7, Purpose::Other(0), stream).fill_normal(0, &mut values);
    values
}

/// Checks `f`, which maps matrices of the given shapes to `[N, D]`, through the loss `Σ w · f` with random weights w.
fn check(name: &str, shapes: &[[usize; 2]], f: impl Fn(&[Tensor<2>]) -> Tensor<2>) {
    let values: Vec<Vec<f32>> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| random(*s, i as u64))
        .collect();
    let tensors = |shift: Option<(usize, &[f32], f32)>, track: bool| -> Vec<Tensor<2>> {
        let each = values
            .iter()
            .zip(shapes)
            .enumerate()
            .map(|(i, (values, shape))| {
                let mut values = values.clone();
                if let Some((at, direction, step)) = shift
                    && at == i
                {
                    values
                        .iter_mut()
                        .zip(direction)
                        .for_each(|(v, d)| *v += step * d);
                }
                let tensor = host::tensor(values, *shape);
                if track {
                    tensor.autodiff().require_grad()
                } else {
                    tensor
                }
            });
        each.collect()
    };
    let tracked = tensors(None, true);
    let output = f(&tracked);
    let weights = random(output.dims(), 99);
    let weighted = |output: Tensor<2>| -> f64 {
        let values = host::values(output);
        values
            .iter()
            .zip(&weights)
            .map(|(x, w)| f64::from(*x) * f64::from(*w))
            .sum()
    };
    let w = host::tensor(weights.clone(), output.dims()).autodiff();
    let mut gradients = (output * w).sum_dim(0).sum_dim(1).backward();
    for (i, tensor) in tracked.iter().enumerate() {
        let gradient = host::values(tensor.grad_remove(&mut gradients).expect("a gradient"));
        let direction = random(shapes[i], 1000 + i as u64);
        let analytic: f64 = gradient
            .iter()
            .zip(&direction)
            .map(|(g, d)| f64::from(*g) * f64::from(*d))
            .sum();
        let at = |step: f32| weighted(f(&tensors(Some((i, &direction, step)), false)));
        let numeric = (at(STEP) - at(-STEP)) / f64::from(2.0 * STEP);
        let scale = analytic.abs().max(numeric.abs()).max(0.1);
        assert!(
            (analytic - numeric).abs() <= TOLERANCE * scale,
            "{name}, input {i}: backward says {analytic}, differences say {numeric}"
        );
    }
}

fn vector(x: &Tensor<2>) -> Tensor<1> {
    let [n, d] = x.dims();
    x.clone().reshape([n * d])
}

fn scalar(x: Tensor<1>) -> Tensor<2> {
    let n = x.dims()[0];
    x.reshape([1, n])
}

fn layout(cu: &[u32], n_heads: usize, n_kv_heads: usize, mask: Mask) -> AttentionLayout {
    AttentionLayout {
        cu_q: cu.into(),
        cu_k: cu.into(),
        n_heads,
        n_kv_heads,
        d_head: 4,
        scale: 0.5,
        mask,
        dropout: None,
    }
}

#[test]
fn linear_with_and_without_bias() {
    check("linear", &[[5, 3], [4, 3], [1, 4]], |t| {
        ops::linear(t[0].clone(), t[1].clone(), Some(vector(&t[2])))
    });
    check("linear without bias", &[[5, 3], [4, 3]], |t| {
        ops::linear(t[0].clone(), t[1].clone(), None)
    });
}

#[test]
fn activations() {
    use Activation::{Gelu, GeluTanh, Mish, QuickGelu, ReluSquared, Sigmoid, Silu, Tanh};
    for kind in [
        Gelu,
        GeluTanh,
        QuickGelu,
        ReluSquared,
        Silu,
        Mish,
        Tanh,
        Sigmoid,
    ] {
        check(&format!("gated {kind:?}"), &[[6, 5], [6, 5]], |t| {
            ops::gated(t[0].clone(), t[1].clone(), kind)
        });
        check(&format!("{kind:?}"), &[[6, 5]], |t| {
            ops::activation(t[0].clone(), kind)
        });
    }
}

#[test]
fn norms() {
    let config = |kind| NormConfig { kind, eps: 1e-5 };
    check("layer norm", &[[5, 16], [1, 16], [1, 16]], |t| {
        let beta = Some(vector(&t[2]));
        ops::norm(t[0].clone(), vector(&t[1]), beta, config(NormKind::Layer))
    });
    for kind in [NormKind::LayerWithoutShift, NormKind::Rms] {
        check(&format!("{kind:?}"), &[[5, 16], [1, 16]], |t| {
            ops::norm(t[0].clone(), vector(&t[1]), None, config(kind))
        });
        check(
            &format!("residual {kind:?}"),
            &[[5, 16], [5, 16], [1, 16]],
            |t| {
                let gamma = vector(&t[2]);
                ops::residual_norm(t[0].clone(), t[1].clone(), gamma, None, config(kind))
            },
        );
    }
    check(
        "residual layer norm",
        &[[5, 16], [5, 16], [1, 16], [1, 16]],
        |t| {
            ops::residual_norm(
                t[0].clone(),
                t[1].clone(),
                vector(&t[2]),
                Some(vector(&t[3])),
                config(NormKind::Layer),
            )
        },
    );
}

#[test]
fn embeddings_with_repeated_ids() {
    let (a, b): (Arc<[u32]>, Arc<[u32]>) = ([0, 2, 2, 1].into(), [1, 1, 0, 1].into());
    check("embeddings", &[[3, 6], [2, 6]], |t| {
        ops::sum_of_embeddings(
            vec![
                (t[0].clone(), Arc::clone(&a)),
                (t[1].clone(), Arc::clone(&b)),
            ],
            None,
        )
    });
    check("gather", &[[4, 6]], |t| {
        ops::gather_rows(t[0].clone(), [3, 0, 3].into())
    });
}

#[test]
fn means_of_sequences() {
    check("means", &[[6, 4]], |t| {
        ops::sequence_means(t[0].clone(), [0, 4, 4, 6].into())
    });
}

#[test]
fn residuals_and_dropout_reuse_their_mask() {
    let key = Key::new(3, Purpose::Dropout, 0);
    check("add", &[[4, 5], [4, 5]], |t| {
        ops::add(t[0].clone(), t[1].clone())
    });
    check("add dropout", &[[4, 5], [4, 5]], |t| {
        ops::add_dropout(t[0].clone(), t[1].clone(), Some((0.4, key)))
    });
    check("dropout", &[[40, 5]], |t| {
        ops::dropout(t[0].clone(), Some((0.3, key)))
    });
}

#[test]
fn attention_of_every_mask() {
    for (mask, cu) in [(Mask::Full, [0, 3, 4, 9]), (Mask::Causal, [0, 3, 4, 9])] {
        check(
            &format!("attention {mask:?}"),
            &[[9, 8], [9, 8], [9, 8]],
            |t| {
                ops::attention(
                    t[0].clone(),
                    t[1].clone(),
                    t[2].clone(),
                    None,
                    layout(&cu, 2, 2, mask),
                )
            },
        );
    }
    check("grouped heads", &[[5, 8], [5, 4], [5, 4]], |t| {
        ops::attention(
            t[0].clone(),
            t[1].clone(),
            t[2].clone(),
            None,
            layout(&[0, 5], 2, 1, Mask::Causal),
        )
    });
}

#[test]
fn attention_with_dropout() {
    let dropout = Some(malmoi_kernels::attention::Dropout {
        p: 0.3,
        key: Key::new(5, Purpose::Dropout, 1),
    });
    check("attention with dropout", &[[6, 8], [6, 8], [6, 8]], |t| {
        let layout = AttentionLayout {
            dropout,
            ..layout(&[0, 4, 6], 2, 2, Mask::Full)
        };
        ops::attention(t[0].clone(), t[1].clone(), t[2].clone(), None, layout)
    });
}

#[test]
fn attention_with_a_bias_by_distance() {
    // Two sequences whose distances stay below 4, and a cross-attention with more keys than queries.
    for (cu_q, cu_k, mask) in [
        ([0, 4, 6], [0, 4, 6], Mask::Causal),
        ([0, 1, 3], [0, 4, 6], Mask::Full),
        ([0, 4, 6], [0, 4, 6], Mask::Window { left: 1, right: 1 }),
    ] {
        let (nq, nk) = (cu_q[2] as usize, cu_k[2] as usize);
        check(
            &format!("attention with a bias, {mask:?}"),
            &[[nq, 8], [nk, 8], [nk, 8], [2, 7]],
            |t| {
                let layout = AttentionLayout {
                    cu_k: cu_k.into(),
                    ..layout(&cu_q, 2, 2, mask)
                };
                let bias = Some(t[3].clone());
                ops::attention(t[0].clone(), t[1].clone(), t[2].clone(), bias, layout)
            },
        );
    }
    check("bias of buckets", &[[3, 2]], |t| {
        ops::bias_of_buckets(t[0].clone(), [2, 0, 0, 1, 2].into())
    });
}

#[test]
fn rotary_positions() {
    for pairs in [Pairs::Halves, Pairs::Neighbours] {
        check(&format!("rotary {pairs:?}"), &[[5, 12]], |t| {
            let angles: (Vec<f32>, Vec<f32>) = (0..8).map(|i| (i as f32).sin_cos()).unzip();
            let layout = RotaryLayout {
                positions: [0, 1, 2, 3, 1].into(),
                angles: angles.into(),
                d_rotary: 4,
                d_head: 6,
                pairs,
            };
            ops::rotary(t[0].clone(), layout)
        });
    }
}

#[test]
fn losses() {
    let (targets, weights): (Arc<[u32]>, Arc<[f32]>) =
        ([1, 0, 6, 3].into(), [0.5, 0.0, 0.3, 0.2].into());
    check("cross-entropy", &[[4, 7]], |t| {
        scalar(ops::cross_entropy(
            t[0].clone(),
            Arc::clone(&targets),
            Arc::clone(&weights),
        ))
    });
    check("linear cross-entropy", &[[4, 5], [7, 5], [1, 7]], |t| {
        let projection = Projection {
            weight: Param::initialized(ParamId::new(), t[1].clone()),
            bias: Some(vector(&t[2])),
        };
        let loss = ops::linear_cross_entropy(
            t[0].clone(),
            projection,
            Arc::clone(&targets),
            Arc::clone(&weights),
        );
        // The second element counts hits and has no gradient.
        scalar(ops::weighted_sum(loss.clone(), 3.0, loss, 0.0))
    });
    check("mean squared error", &[[4, 2]], |t| {
        scalar(ops::mean_squared_error(t[0].clone(), vec![0.3; 8].into()))
    });
    check("binary cross-entropy", &[[4, 2]], |t| {
        scalar(ops::binary_cross_entropy(
            t[0].clone(),
            vec![1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 1.0, 0.2].into(),
        ))
    });
}

#[test]
fn soft_losses() {
    let teacher: Arc<[f32]> = random([4, 7], 50).into();
    let (targets, weights): (Arc<[u32]>, Arc<[f32]>) =
        ([1, 0, 6, 3].into(), [0.5, 0.0, 0.3, 0.2].into());
    check("label smoothing", &[[4, 7]], |t| {
        let (targets, weights) = (Arc::clone(&targets), Arc::clone(&weights));
        scalar(ops::smoothed_cross_entropy(
            t[0].clone(),
            targets,
            weights,
            0.2,
        ))
    });
    check("distillation", &[[4, 7]], |t| {
        scalar(ops::distillation(t[0].clone(), Arc::clone(&teacher), 2.0))
    });
    check("smooth L1", &[[4, 7]], |t| {
        scalar(ops::smooth_l1(t[0].clone(), Arc::clone(&teacher)))
    });
    check("hinge", &[[4, 2]], |t| {
        scalar(ops::hinge(t[0].clone(), 0.5))
    });
    check("cosine", &[[4, 7]], |t| {
        scalar(ops::cosine_distance(t[0].clone(), Arc::clone(&teacher)))
    });
}

#[test]
fn an_untracked_input_costs_no_graph_and_gets_no_gradient() {
    let x = host::tensor(random([3, 4], 0), [3, 4]);
    let w = host::tensor(random([2, 4], 1), [2, 4])
        .autodiff()
        .require_grad();
    let y = ops::linear(x, w.clone(), None);
    let mut gradients = y.sum_dim(0).sum_dim(1).backward();
    assert_eq!(
        w.grad_remove(&mut gradients).expect("a gradient").dims(),
        [2, 4]
    );
}

#[test]
fn a_frozen_row_keeps_its_vector() {
    let table = host::tensor(random([3, 4], 0), [3, 4])
        .autodiff()
        .require_grad();
    let sum = ops::sum_of_embeddings(vec![(table.clone(), [0, 2, 1].into())], [Some(2)]);
    let mut gradients = sum.sum_dim(0).sum_dim(1).backward();
    let gradient = host::values(table.grad_remove(&mut gradients).expect("a gradient"));
    assert_eq!(
        gradient,
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    );
}
