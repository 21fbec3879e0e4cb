//! Attention with whole score matrices, in double precision.

use crate::attention::{AttentionShape, CachedShape, Dropout, Gradients, KvSlices, Saved};
use crate::dropout::{survivor_scale, threshold};
use crate::random::philox;

/// What a probability is multiplied by: 0 or 1 / (1 - p).
#[must_use]
pub fn dropout_factor(
    dropout: Dropout,
    sequence: usize,
    head: usize,
    query: usize,
    key: usize,
) -> f32 {
    let counter = [(key / 4) as u32, query as u32, head as u32, sequence as u32];
    let words = philox(counter, dropout.key.words);
    if words[key % 4] < threshold(dropout.p) {
        0.0
    } else {
        survivor_scale(dropout.p)
    }
}

struct Head<'a> {
    shape: &'a AttentionShape<'a>,
    sequence: usize,
    head: usize,
    nq: usize,
    nk: usize,
}

impl Head<'_> {
    fn q_at(&self, i: usize) -> usize {
        (self.shape.queries_of(self.sequence).start + i) * self.shape.q_stride
            + self.head * self.shape.d_head
    }

    fn kv_head(&self) -> usize {
        self.head / (self.shape.n_heads / self.shape.n_kv_heads)
    }

    fn kv_at(&self, j: usize, stride: usize) -> usize {
        (self.shape.keys_of(self.sequence).start + j) * stride + self.kv_head() * self.shape.d_head
    }

    fn out_at(&self, i: usize) -> usize {
        ((self.shape.queries_of(self.sequence).start + i) * self.shape.n_heads + self.head)
            * self.shape.d_head
    }

    fn lse_at(&self, i: usize) -> usize {
        self.head * self.shape.n_queries() + self.shape.queries_of(self.sequence).start + i
    }

    fn bias_at(&self, i: usize, j: usize) -> Option<usize> {
        // The query's distance from the key, from the smallest one on.
        self.shape
            .bias
            .map(|b| self.head * (2 * b.reach - 1) + b.reach - 1 + i + self.nk - self.nq - j)
    }

    fn score(&self, q: &[f32], k: &[f32], i: usize, j: usize) -> f64 {
        let d = self.shape.d_head;
        let dot = dot(
            &q[self.q_at(i)..][..d],
            &k[self.kv_at(j, self.shape.k_stride)..][..d],
        );
        let bias = self.bias_at(i, j).map_or(0.0, |at| {
            f64::from(self.shape.bias.expect("bias_at").data[at])
        });
        dot * f64::from(self.shape.scale) + bias
    }

    /// Log-sum-exp and probabilities of query `i`.
    fn row(&self, q: &[f32], k: &[f32], i: usize) -> (f64, Vec<f64>) {
        let seen = self.shape.mask.keys_of(i, self.nq, self.nk);
        let scores: Vec<f64> = (0..self.nk)
            .map(|j| {
                if seen.contains(&j) && self.shape.mask.sees(i, j, self.nq, self.nk) {
                    self.score(q, k, i, j)
                } else {
                    f64::NEG_INFINITY
                }
            })
            .collect();
        softmax(scores)
    }

    fn factor(&self, i: usize, j: usize) -> f64 {
        self.shape.dropout.map_or(1.0, |dropout| {
            f64::from(dropout_factor(dropout, self.sequence, self.head, i, j))
        })
    }
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(&x, &y)| f64::from(x) * f64::from(y))
        .sum()
}

fn softmax(mut scores: Vec<f64>) -> (f64, Vec<f64>) {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        scores.fill(0.0);
        return (max, scores);
    }
    let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
    for s in &mut scores {
        *s = (*s - lse).exp();
    }
    (lse, scores)
}

fn heads<'a>(shape: &'a AttentionShape<'a>) -> impl Iterator<Item = Head<'a>> {
    (0..shape.n_sequences()).flat_map(move |sequence| {
        (0..shape.n_heads).map(move |head| Head {
            shape,
            sequence,
            head,
            nq: shape.queries_of(sequence).len(),
            nk: shape.keys_of(sequence).len(),
        })
    })
}

/// See [`crate::attention::attention_forward`].
pub fn attention_forward(
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
) {
    for h in heads(shape) {
        for i in 0..h.nq {
            let (row_lse, p) = h.row(q, k, i);
            lse[h.lse_at(i)] = row_lse as f32;
            for c in 0..shape.d_head {
                let sum: f64 = (0..h.nk)
                    .map(|j| p[j] * h.factor(i, j) * f64::from(v[h.kv_at(j, shape.v_stride) + c]))
                    .sum();
                out[h.out_at(i) + c] = sum as f32;
            }
        }
    }
}

/// See [`crate::attention::attention_backward`].
pub fn attention_backward(
    shape: &AttentionShape,
    saved: &Saved,
    dout: &[f32],
    gradients: Gradients,
) {
    let Saved { q, k, v, .. } = *saved;
    let d = shape.d_head;
    let narrow = shape.n_kv_heads * d;
    let mut dq = vec![0.0; gradients.dq.len()];
    let mut dk = vec![0.0; gradients.dk.len()];
    let mut dv = vec![0.0; gradients.dv.len()];
    let mut dbias = vec![0.0; shape.bias.map_or(0, |b| b.data.len())];
    for h in heads(shape) {
        for i in 0..h.nq {
            let (_, p) = h.row(q, k, i);
            let dout = &dout[h.out_at(i)..][..d];
            // Gradient of each probability, then of each score.
            let dp: Vec<f64> = (0..h.nk)
                .map(|j| h.factor(i, j) * dot(dout, &v[h.kv_at(j, shape.v_stride)..][..d]))
                .collect();
            let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for j in 0..h.nk {
                let ds = p[j] * (dp[j] - mean);
                if let Some(at) = h.bias_at(i, j) {
                    dbias[at] += ds;
                }
                let ds = ds * f64::from(shape.scale);
                let key_row = h.kv_at(j, narrow);
                for c in 0..d {
                    dq[h.out_at(i) + c] += ds * f64::from(k[h.kv_at(j, shape.k_stride) + c]);
                    dk[key_row + c] += ds * f64::from(q[h.q_at(i) + c]);
                    dv[key_row + c] += p[j] * h.factor(i, j) * f64::from(dout[c]);
                }
            }
        }
    }
    let store = |from: &[f64], to: &mut [f32]| {
        to.iter_mut()
            .zip(from)
            .for_each(|(to, &from)| *to = from as f32)
    };
    store(&dq, gradients.dq);
    store(&dk, gradients.dk);
    store(&dv, gradients.dv);
    if let Some(to) = gradients.dbias {
        store(&dbias, to);
    }
}

/// See [`crate::attention::attention_probabilities`].
pub fn attention_probabilities(shape: &AttentionShape, q: &[f32], k: &[f32], probs: &mut [f32]) {
    let mut rows =
        heads(shape).flat_map(|h| (0..h.nq).map(move |i| h.row(q, k, i).1).collect::<Vec<_>>());
    let mut at = 0;
    for row in rows.by_ref() {
        for p in row {
            probs[at] = p as f32;
            at += 1;
        }
    }
}

/// See [`crate::attention::attention_cached`].
pub fn attention_cached(shape: &CachedShape, q: &[f32], caches: &[KvSlices], out: &mut [f32]) {
    let width = shape.n_heads * shape.d_head;
    let narrow = shape.n_kv_heads * shape.d_head;
    for (s, cache) in caches.iter().enumerate() {
        let (first, end) = (shape.cu_q[s] as usize, shape.cu_q[s + 1] as usize);
        let inner = AttentionShape {
            n_kv_heads: shape.n_kv_heads,
            scale: shape.scale,
            q_stride: shape.q_stride,
            k_stride: narrow,
            v_stride: narrow,
            bias: shape.bias,
            ..AttentionShape::new(&[], &[], shape.n_heads, shape.d_head, shape.mask)
        };
        let cu_q = [0, (end - first) as u32];
        let cu_k = [0, cache.len as u32];
        let inner = AttentionShape {
            cu_q: &cu_q,
            cu_k: &cu_k,
            ..inner
        };
        let mut lse = vec![0.0; shape.n_heads * (end - first)];
        let q = &q[(first * shape.q_stride).min(q.len())..];
        attention_forward(
            &inner,
            q,
            &cache.k.to_f32(),
            &cache.v.to_f32(),
            &mut out[first * width..end * width],
            &mut lse,
        );
    }
}
