//! A few new queries over cached keys and values: reads each cache row once, limited by the memory's bandwidth.

use super::{AttentionShape, CachedShape, KvSlices};
use crate::scratch::scratch;
use crate::simd::{Simd, dispatched, math, read, vectors, write};
use crate::threads::{SharedMut, for_each};

/// With at least this many queries (times heads that share a key head) the blocked forward pass is the better way.
const FEW: usize = 8;

pub(super) fn run(shape: &CachedShape, q: &[f32], caches: &[KvSlices], out: &mut [f32]) {
    let (wide, narrow) = (
        shape.n_heads * shape.d_head,
        shape.n_kv_heads * shape.d_head,
    );
    let group = shape.n_heads / shape.n_kv_heads;
    let shared = SharedMut::new(out);
    let mut few = Vec::new();
    let mut cost = 0;
    for (s, cache) in caches.iter().enumerate() {
        let (first, end) = (shape.cu_q[s] as usize, shape.cu_q[s + 1] as usize);
        if (end - first) * group < FEW {
            few.push(s);
            cost += cache.len * narrow * 2;
            continue;
        }
        let (cu_q, cu_k) = ([0, (end - first) as u32], [0, cache.len as u32]);
        let inner = AttentionShape {
            n_kv_heads: shape.n_kv_heads,
            scale: shape.scale,
            q_stride: shape.q_stride,
            k_stride: narrow,
            v_stride: narrow,
            bias: shape.bias,
            ..AttentionShape::new(&cu_q, &cu_k, shape.n_heads, shape.d_head, shape.mask)
        };
        let mut lse = scratch(shape.n_heads * (end - first));
        // SAFETY: each sequence has its own rows, and no other piece of work is under way.
        let out = unsafe { shared.slice(first * wide, (end - first) * wide) };
        super::attention_forward(
            &inner,
            &q[first * shape.q_stride..],
            cache.k,
            cache.v,
            out,
            &mut lse,
        );
    }
    let heads = shape.n_kv_heads;
    let items = few.len() * heads;
    for_each(items, cost / items.max(1), |index| {
        let (sequence, kv_head) = (few[index / heads], index % heads);
        let work = Work {
            shape,
            q,
            cache: caches[sequence],
            out: shared,
            sequence,
            kv_head,
        };
        key_head(work);
    });
}

/// One key head of one sequence.
#[derive(Clone, Copy)]
struct Work<'a> {
    shape: &'a CachedShape<'a>,
    q: &'a [f32],
    cache: KvSlices<'a>,
    out: SharedMut,
    sequence: usize,
    kv_head: usize,
}

dispatched!(fn key_head = key_head_on(work: Work));

#[inline(always)]
fn key_head_on<S: Simd>(s: S, work: Work) {
    let Work { shape, cache, .. } = work;
    let (d, nk) = (shape.d_head, cache.len);
    let narrow = shape.n_kv_heads * d;
    let group = shape.n_heads / shape.n_kv_heads;
    let (first, end) = (
        shape.cu_q[work.sequence] as usize,
        shape.cu_q[work.sequence + 1] as usize,
    );
    let (nq, n) = (end - first, (end - first) * group);
    let mut scores = scratch(n * nk);
    // Row `r` is query `r / group`, head `r % group` of the group.
    let head_of = |r: usize| work.kv_head * group + r % group;
    let seen_by = |r: usize| shape.mask.keys_of(r / group, nq, nk);

    for j in 0..nk {
        let key = &cache.k[j * narrow + work.kv_head * d..][..d];
        for r in 0..n {
            let query = &work.q[(first + r / group) * shape.q_stride + head_of(r) * d..][..d];
            let mut sum = s.zero();
            vectors(s, d, |i| {
                sum = s.fma(read(s, query, i), read(s, key, i), sum)
            });
            scores[r * nk + j] = s.sum(sum);
        }
    }
    for r in 0..n {
        let seen = seen_by(r);
        let row = &mut scores[r * nk..][..nk];
        if let Some(bias) = shape.bias {
            let bias = &bias.data[(head_of(r) * bias.max_q + r / group) * bias.max_k..][..nk];
            for (score, bias) in row.iter_mut().zip(bias) {
                *score = *score * shape.scale + bias;
            }
        } else {
            let scale = s.splat(shape.scale);
            vectors(s, nk, |i| {
                let scaled = s.mul(read(s, row, i), scale);
                write(s, row, i, scaled);
            });
        }
        row[..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
        softmax_on(s, &mut row[seen]);
    }
    for r in 0..n {
        let at = (first + r / group) * shape.n_heads * d + head_of(r) * d;
        // SAFETY: this piece of work alone has these queries of this head.
        unsafe { work.out.slice(at, d) }.fill(0.0);
    }
    for j in 0..nk {
        let value = &cache.v[j * narrow + work.kv_head * d..][..d];
        for r in 0..n {
            let at = (first + r / group) * shape.n_heads * d + head_of(r) * d;
            // SAFETY: as above.
            let out = unsafe { work.out.slice(at, d) };
            let p = s.splat(scores[r * nk + j]);
            vectors(s, d, |i| {
                let sum = s.fma(p, read(s, value, i), read(s, out, i));
                write(s, out, i, sum);
            });
        }
    }
}

/// Softmax of one row in place.
#[inline(always)]
fn softmax_on<S: Simd>(s: S, row: &mut [f32]) {
    let max = s.splat(row.iter().copied().fold(f32::MIN, f32::max));
    let mut sum = 0.0_f64;
    let n = row.len();
    let whole = n - n % S::LANES;
    let mut lanes = s.zero();
    let mut i = 0;
    while i < whole {
        let e = math::exp(s, s.sub(read(s, row, i), max));
        lanes = s.add(lanes, e);
        write(s, row, i, e);
        i += S::LANES;
    }
    if whole < n {
        let e = math::exp(s, s.sub(read(s, row, whole), max));
        write(s, row, whole, e);
        sum += row[whole..].iter().map(|&e| f64::from(e)).sum::<f64>();
    }
    sum += f64::from(s.sum(lanes));
    let factor = s.splat((1.0 / sum) as f32);
    vectors(s, n, |i| {
        let p = s.mul(read(s, row, i), factor);
        write(s, row, i, p);
    });
}
