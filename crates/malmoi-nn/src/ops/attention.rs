//! Scaled dot-product attention (Vaswani et al., 2017) over packed sequences, without a materialised score matrix.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use malmoi_kernels::attention as kernel;
use malmoi_kernels::attention::{
    AttentionShape, Bias, CachedShape, Dropout, Gradients, KvSlices, Mask, Saved,
};
use malmoi_kernels::mixed::{self, Values};

use malmoi_kernels::profile::{Cost, Direction, Label, span};

use crate::bridge::{
    BackwardPass, Data, Forward, FusedOp, Keep, MixedBackward, MixedForward, MixedOperand, Operand,
    apply, narrowed, primitive,
};
use crate::buffers;
use crate::{host, profile};

/// Everything about an attention call that is not a tensor.
#[derive(Clone, Debug)]
pub struct AttentionLayout {
    /// Boundaries of the query sequences, `[B + 1]`.
    pub cu_q: Arc<[u32]>,
    /// Boundaries of the key sequences, `[B + 1]`.
    pub cu_k: Arc<[u32]>,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; a divisor of `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Dropout on the probabilities.
    pub dropout: Option<Dropout>,
}

impl AttentionLayout {
    fn cost(&self, cu_k: &[u32], direction: Direction) -> Cost {
        let widths = (self.n_heads * self.d_head, self.n_kv_heads * self.d_head);
        profile::attention(&self.cu_q, cu_k, self.mask, widths, direction)
    }

    fn shape<'a>(&'a self, bias: Option<&'a [f32]>) -> AttentionShape<'a> {
        let narrow = self.n_kv_heads * self.d_head;
        AttentionShape {
            n_kv_heads: self.n_kv_heads,
            scale: self.scale,
            k_stride: narrow,
            v_stride: narrow,
            dropout: self.dropout,
            bias: self.bias(bias),
            ..AttentionShape::new(&self.cu_q, &self.cu_k, self.n_heads, self.d_head, self.mask)
        }
    }

    fn bias<'a>(&self, data: Option<&'a [f32]>) -> Option<Bias<'a>> {
        data.map(|data| Bias {
            data,
            reach: (data.len() / self.n_heads).div_ceil(2),
        })
    }
}

/// `softmax(scale · q kᵀ + bias) v` per sequence and head: `q [Nq, n_heads·d_head]`, `k`, `v [Nk, n_kv_heads·d_head]` →
/// `[Nq, n_heads·d_head]`. `bias [n_heads, 2·reach - 1]` is by distance, see [`Bias`].
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    bias: Option<Tensor<2>>,
    layout: AttentionLayout,
) -> Tensor<2> {
    let op = Attention(layout);
    match bias {
        Some(bias) => apply(
            op,
            [primitive(q), primitive(k), primitive(v), primitive(bias)],
        ),
        None => apply(op, [primitive(q), primitive(k), primitive(v)]),
    }
}

/// Probabilities of each sequence, `[n_heads, nq, nk]` one after another; a read-out, not part of the fused path.
pub fn attention_probabilities(
    q: Tensor<2>,
    k: Tensor<2>,
    bias: Option<Tensor<2>>,
    layout: &AttentionLayout,
) -> Vec<f32> {
    let bias = bias.map(host::values);
    let lengths = layout.cu_q.windows(2).zip(layout.cu_k.windows(2));
    let total: usize = lengths
        .map(|(q, k)| layout.n_heads * (q[1] - q[0]) as usize * (k[1] - k[0]) as usize)
        .sum();
    let mut probabilities = vec![0.0; total];
    kernel::attention_probabilities(
        &layout.shape(bias.as_deref()),
        &host::values(q),
        &host::values(k),
        &mut probabilities,
    );
    probabilities
}

/// Attention of new queries over cached keys and values, one cache a sequence; inference only.
pub fn attention_cached(
    q: Tensor<2>,
    caches: &[KvSlices<'_>],
    bias: Option<Tensor<2>>,
    layout: &AttentionLayout,
) -> Tensor<2> {
    let shape = q.dims();
    let narrow = q.dtype() == DType::BF16;
    let bias = bias.map(host::values);
    let q = host::values(q);
    let mut out = buffers::take(q.len());
    let sizes = CachedShape {
        cu_q: &layout.cu_q,
        n_heads: layout.n_heads,
        n_kv_heads: layout.n_kv_heads,
        d_head: layout.d_head,
        scale: layout.scale,
        mask: layout.mask,
        q_stride: shape[1],
        bias: layout.bias(bias.as_deref()),
    };
    let span = span(|| {
        let mut cu_k = vec![0];
        cu_k.extend(caches.iter().scan(0, |end, cache| {
            *end += cache.len as u32;
            Some(*end)
        }));
        let cost = layout.cost(&cu_k, Direction::Forward);
        // The queries and what becomes of them are fresh, the cache is not.
        let fresh = 2 * profile::len(&shape) * profile::WIDTH;
        let width = match caches.first().map(|cache| cache.k) {
            Some(Values::Bf16(_)) => 2,
            _ => profile::WIDTH,
        };
        let far_bytes = (cost.bytes - fresh) / profile::WIDTH * width;
        Label {
            name: "CachedAttention",
            direction: Direction::Forward,
            shape: profile::describe(&[&shape]),
            cost: Cost {
                bytes: fresh + far_bytes,
                far_bytes,
                ..cost
            },
        }
    });
    kernel::attention_cached(&sizes, &q, caches, &mut out);
    drop(span);
    let out = host::tensor(out, shape);
    if narrow { narrowed(out) } else { out }
}

#[derive(Debug)]
struct Attention(AttentionLayout);

impl FusedOp for Attention {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        let shape = self.0.shape(inputs.get(3).map(|bias| bias.data));
        let mut out = buffers::take(q.data.len());
        let mut lse = buffers::take(self.0.n_heads * q.shape[0]);
        kernel::attention_forward(&shape, q.data, k.data, v.data, &mut out, &mut lse);
        Forward {
            data: out,
            shape: q.shape.to_vec(),
            saved: if track { vec![lse] } else { Vec::new() },
        }
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[0, 1, 2, 3],
            output: true,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let [q, k, v] = [
            pass.inputs[0].data,
            pass.inputs[1].data,
            pass.inputs[2].data,
        ];
        let (mut dq, mut dk, mut dv) = (
            buffers::take(q.len()),
            buffers::take(k.len()),
            buffers::take(v.len()),
        );
        let saved = Saved {
            q,
            k,
            v,
            out: pass.output,
            lse: &pass.saved[0],
        };
        let bias = pass.inputs.get(3).map(|bias| bias.data);
        let mut dbias = bias
            .filter(|_| pass.needs[3])
            .map(|bias| vec![0.0; bias.len()]);
        let gradients = Gradients {
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
            dbias: dbias.as_deref_mut(),
        };
        kernel::attention_backward(&self.0.shape(bias), &saved, pass.grad, gradients);
        let mut all = vec![Some(dq), Some(dk), Some(dv)];
        if bias.is_some() {
            all.push(dbias);
        }
        all
    }

    fn forward_mixed(&self, inputs: &[MixedOperand<'_>], track: bool) -> Option<MixedForward> {
        let (Values::Bf16(q), Values::Bf16(k), Values::Bf16(v)) =
            (inputs[0].values, inputs[1].values, inputs[2].values)
        else {
            return None;
        };
        let shape = self.0.shape(inputs.get(3).map(MixedOperand::f32));
        let mut out = buffers::take(q.len());
        let mut lse = buffers::take(self.0.n_heads * inputs[0].shape[0]);
        mixed::attention_forward(&shape, q, k, v, &mut out, &mut lse);
        Some(MixedForward {
            data: Data::Bf16(out),
            shape: inputs[0].shape.to_vec(),
            saved: if track {
                vec![Data::F32(lse)]
            } else {
                Vec::new()
            },
        })
    }

    fn backward_mixed(&self, pass: MixedBackward<'_>) -> Vec<Option<Data>> {
        let [q, k, v, out, dout] = [
            pass.inputs[0].values,
            pass.inputs[1].values,
            pass.inputs[2].values,
            pass.output,
            pass.grad,
        ]
        .map(|values| match values {
            Values::Bf16(values) => values,
            Values::F32(_) => unreachable!("the forward pass took bf16 only"),
        });
        let Some(Data::F32(lse)) = pass.saved.first() else {
            unreachable!("the forward pass saved the log-sum-exps")
        };
        let (mut dq, mut dk, mut dv) = (
            buffers::take(q.len()),
            buffers::take(k.len()),
            buffers::take(v.len()),
        );
        let saved = Saved { q, k, v, out, lse };
        let bias = pass.inputs.get(3).map(MixedOperand::f32);
        let mut dbias = bias
            .filter(|_| pass.needs[3])
            .map(|bias| vec![0.0; bias.len()]);
        let gradients = Gradients {
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
            dbias: dbias.as_deref_mut(),
        };
        mixed::attention_backward(&self.0.shape(bias), &saved, dout, gradients);
        let mut all = vec![
            Some(Data::Bf16(dq)),
            Some(Data::Bf16(dk)),
            Some(Data::Bf16(dv)),
        ];
        if bias.is_some() {
            all.push(dbias.map(Data::F32));
        }
        all
    }

    fn cost(&self, _shapes: &[&[usize]], direction: Direction, _track: bool) -> Cost {
        self.0.cost(&self.0.cu_k, direction)
    }
}
