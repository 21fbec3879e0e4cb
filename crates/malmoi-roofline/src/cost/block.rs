//! The operations of a stack of blocks, of the vocabulary projection, and of what training adds.

use malmoi_kernels::profile::Direction;
use malmoi_models::{AttentionShape, LayerShape, ModelShape, StackShape, VocabularyShape};

use super::{Op, Phase, WIDE, Widths, Work, pairs};

/// Operations of a norm on an element: mean, deviation, square, scale, gain, shift.
const NORM: u64 = 8;
/// Operations of a softmax on a score: scale, maximum, difference, exponential, sum, quotient.
const SOFTMAX: u64 = 6;
/// Operations of a GELU or SiLU on an element, as a polynomial.
const ACTIVATION: u64 = 12;
/// Operations of AdamW on a parameter.
const ADAMW: u64 = 14;

/// The tokens that meet in a stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    /// Sequences.
    pub batch: u64,
    /// New tokens of each.
    pub new: usize,
    /// Tokens of each that the new ones may see, themselves included.
    pub keys: usize,
    /// Tokens of each in the stack before.
    pub source: usize,
    /// Whether keys and values of the stack before are computed here, not taken from a cache.
    pub projects_source: bool,
    /// Whether older keys and values come from a cache.
    pub cached: bool,
    /// Whether a backward pass follows.
    pub train: bool,
}

impl Rows {
    /// New tokens of all sequences.
    fn n(&self) -> u64 {
        self.batch * self.new as u64
    }
}

/// A dense layer on `n` rows, bias included in its weights.
fn dense(name: &'static str, times: u64, n: u64, d_in: u64, d_out: u64, widths: Widths) -> Op {
    Op {
        flops: 2 * n * d_in * d_out,
        far_bytes: (d_in * d_out + d_out) * widths.weight,
        near_bytes: n * (d_in + d_out) * widths.activation,
        ..Op::new(name, Direction::Forward, times)
    }
}

/// The forward pass of a stack.
pub(super) fn stack(stack: &StackShape, rows: &Rows, widths: Widths) -> Vec<Op> {
    let (n, d) = (rows.n(), stack.d_model as u64);
    let hidden = n * d * widths.activation;
    let keep = |bytes: u64| if rows.train { bytes } else { 0 };
    let statistics = 2 * n * WIDE;
    let mut ops = vec![Op {
        vector_flops: (stack.lookups as u64 - 1) * n * d,
        far_bytes: stack.lookups as u64 * n * d * widths.weight,
        near_bytes: hidden,
        ..Op::new("embeddings", Direction::Forward, 1)
    }];
    // Pre-norm blocks read the residual stream once more: the norm of the first block has no sum before it.
    let norms = [
        (stack.embedding_norm, "embedding norm"),
        (stack.pre_norm, "first norm"),
    ];
    for (_, name) in norms.into_iter().filter(|norm| norm.0) {
        ops.push(Op {
            vector_flops: NORM * n * d,
            near_bytes: 2 * hidden,
            kept_bytes: keep(hidden + statistics),
            ..Op::new(name, Direction::Forward, 1)
        });
    }
    for shape in &stack.layers {
        ops.extend(layer(shape, stack, rows, widths));
    }
    ops
}

/// The forward pass of the blocks of one kind.
fn layer(shape: &LayerShape, stack: &StackShape, rows: &Rows, widths: Widths) -> Vec<Op> {
    let (n, d, times) = (rows.n(), stack.d_model as u64, shape.times as u64);
    let a = widths.activation;
    let hidden = n * d * a;
    let keep = |bytes: u64| if rows.train { bytes } else { 0 };
    let mut residuals = 2;
    let mut ops = attention(&shape.attention, false, d, times, rows, widths);
    if let Some(cross) = &shape.cross {
        residuals += 1;
        ops.extend(attention(cross, true, d, times, rows, widths));
    }
    let d_ff = shape.d_ff as u64;
    let inner = n * d_ff * a;
    let ups = if shape.gated { 2 } else { 1 };
    let up = dense("feed-forward up", times, n, d, ups * d_ff, widths);
    ops.push(Op {
        vector_flops: ACTIVATION * n * d_ff,
        // The activation is applied before the result is written; training writes its input as well.
        near_bytes: hidden + inner + keep(ups * inner),
        // Its input, its output and the activation's output.
        kept_bytes: keep(hidden + (ups + 1) * inner),
        ..up
    });
    ops.push(dense("feed-forward down", times, n, d_ff, d, widths));
    // Sum of branch and residual, and its norm: in pre-norm blocks the one before the next branch. Training keeps the sum.
    let sum = if stack.pre_norm || rows.train { 4 } else { 3 };
    ops.push(Op {
        vector_flops: (NORM + 1) * n * d,
        near_bytes: sum * hidden,
        kept_bytes: keep(hidden + 2 * n * WIDE),
        ..Op::new("residual and norm", Direction::Forward, residuals * times)
    });
    ops
}

/// Projections and attention of one layer; to the stack before when `cross`.
fn attention(
    shape: &AttentionShape,
    cross: bool,
    d: u64,
    times: u64,
    rows: &Rows,
    widths: Widths,
) -> Vec<Op> {
    let (n, a) = (rows.n(), widths.activation);
    let q = (shape.n_heads * shape.d_head) as u64;
    let kv = (shape.n_kv_heads * shape.d_head) as u64;
    let keep = |bytes: u64| if rows.train { bytes } else { 0 };
    let (keys, names) = if cross {
        (
            rows.source,
            ["cross q", "cross attention", "cross attention output"],
        )
    } else {
        (
            rows.keys,
            ["attention q, k, v", "attention", "attention output"],
        )
    };
    let mut ops = Vec::new();
    let projected = if cross { q } else { q + 2 * kv };
    ops.push(Op {
        kept_bytes: keep(n * (d + projected) * a),
        ..dense(names[0], times, n, d, projected, widths)
    });
    if cross && rows.projects_source {
        let n = rows.batch * rows.source as u64;
        ops.push(Op {
            kept_bytes: keep(n * 2 * kv * a),
            ..dense("cross k, v", times, n, d, 2 * kv, widths)
        });
    }
    let seen = rows.batch * pairs(shape.mask, rows.new, keys);
    let key_values = rows.batch * keys as u64 * 2 * kv * a;
    let cached = rows.cached || (cross && !rows.projects_source);
    ops.push(Op {
        flops: 4 * seen * q,
        vector_flops: SOFTMAX * seen * shape.n_heads as u64,
        far_bytes: if cached { key_values } else { 0 },
        near_bytes: 2 * n * q * a + if cached { 0 } else { key_values },
        // Its output, and the logarithm of each row's sum of exponentials.
        kept_bytes: keep(n * q * a + n * shape.n_heads as u64 * WIDE),
        ..Op::new(names[1], Direction::Forward, times)
    });
    ops.push(dense(names[2], times, n, q, d, widths));
    ops
}

/// The vocabulary projection of `rows` rows; in training fused with the loss.
pub(super) fn vocabulary(
    shape: &VocabularyShape,
    d_model: usize,
    rows: u64,
    train: bool,
    widths: Widths,
) -> Vec<Op> {
    let (d, v, a) = (shape.d as u64, shape.vocab_size as u64, widths.activation);
    let keep = |bytes: u64| if train { bytes } else { 0 };
    let mut ops = Vec::new();
    if let Some(inner) = shape.transform {
        let (d_model, inner) = (d_model as u64, inner as u64);
        ops.push(Op {
            vector_flops: (ACTIVATION + NORM) * rows * inner,
            kept_bytes: keep(rows * (d_model + 2 * inner) * a),
            ..dense("vocabulary transform", 1, rows, d_model, inner, widths)
        });
    }
    // Logits: written; in training written again as their own gradient, which two products of the backward pass read.
    let passes = if train { 2 } else { 1 };
    ops.push(Op {
        vector_flops: if train { SOFTMAX * rows * v } else { 0 },
        near_bytes: rows * d * a + passes * rows * v * WIDE,
        ..dense("vocabulary projection", 1, rows, d, v, widths)
    });
    ops
}

/// Appends what follows the forward pass of a training step.
pub(super) fn backward(
    ops: &mut Vec<Op>,
    shape: &ModelShape,
    parameters: u64,
    work: &Work,
    widths: Widths,
) {
    debug_assert_eq!(work.phase, Phase::Train);
    let forward = ops.clone();
    let in_block = |op: &Op| is_block(op.name);
    if work.recompute {
        // A block keeps its input and is computed again when its backward pass comes.
        for op in ops.iter_mut().filter(|op| in_block(op)) {
            op.kept_bytes = 0;
        }
        for stack in &shape.stacks {
            let n = (work.batch * work.tokens) as u64;
            ops.push(Op {
                kept_bytes: n * stack.d_model as u64 * widths.activation,
                ..Op::new(
                    "block inputs",
                    Direction::Forward,
                    stack.layers.iter().map(|layer| layer.times as u64).sum(),
                )
            });
        }
        ops.extend(forward.iter().filter(|op| in_block(op)).map(|op| Op {
            direction: Direction::Backward,
            kept_bytes: 0,
            ..op.clone()
        }));
    }
    for op in forward.iter().rev() {
        let gradient = op.far_bytes / widths.weight * WIDE;
        // What was kept is read back; gradients of the output come in, those of the input go out.
        let kept = if work.recompute { 0 } else { op.kept_bytes };
        let near = op.near_bytes + if work.recompute { op.kept_bytes } else { 0 };
        ops.push(match op.name {
            // The rows that were looked up get a gradient; the zeros of the others count with the optimiser.
            "embeddings" => Op {
                vector_flops: op.vector_flops,
                far_bytes: gradient,
                near_bytes: op.near_bytes,
                ..Op::new(op.name, Direction::Backward, 1)
            },
            // Scores are computed again: five products for two.
            "attention" | "cross attention" => Op {
                flops: op.flops / 2 * 5,
                vector_flops: 2 * op.vector_flops,
                far_bytes: kept,
                near_bytes: 2 * near,
                ..Op::new(op.name, Direction::Backward, op.times)
            },
            // One product for the input's gradient and one for the weight's, each weight's gradient written once.
            _ if op.flops > 0 => Op {
                flops: 2 * op.flops,
                vector_flops: op.vector_flops,
                far_bytes: op.far_bytes + gradient + kept,
                near_bytes: near,
                ..Op::new(op.name, Direction::Backward, op.times)
            },
            _ => Op {
                vector_flops: 2 * op.vector_flops,
                far_bytes: kept,
                near_bytes: near,
                ..Op::new(op.name, Direction::Backward, op.times)
            },
        });
    }
    ops.push(Op {
        vector_flops: 2 * parameters,
        far_bytes: parameters * WIDE,
        ..Op::new("gradient norm", Direction::Update, 1)
    });
    // Parameter and both moments are read and written, the gradient is read; a narrower copy of the weights is written.
    let copy = if widths.weight < WIDE {
        widths.weight
    } else {
        0
    };
    ops.push(Op {
        vector_flops: ADAMW * parameters,
        far_bytes: parameters * (7 * WIDE + copy),
        ..Op::new("AdamW", Direction::Update, 1)
    });
}

/// Whether an operation belongs to the blocks of a stack.
fn is_block(name: &str) -> bool {
    name.starts_with("attention")
        || name.starts_with("cross")
        || name.starts_with("feed-forward")
        || name == "residual and norm"
}
