//! A few new queries over cached keys and values, limited by the memory's bandwidth.
//!
//! A piece of work is a run of cache rows with all their heads, so that memory is read in order; each piece leaves a partial
//! softmax and output, and the pieces of a sequence are put together in order. (A head at a time would read 256 bytes of
//! every row, which ran at half the speed.)

use super::{AttentionShape, CachedShape, KvSlices};
use crate::mixed::{Values, bf16};
use crate::scratch::scratch;
use crate::simd::{Element, Simd, dispatched, math, read, vectors, write};
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
    let mut pieces = Vec::new();
    for (s, cache) in caches.iter().enumerate() {
        let (first, end) = (shape.cu_q[s] as usize, shape.cu_q[s + 1] as usize);
        if (end - first) * group < FEW {
            few.push(s);
            pieces.extend((0..cache.len).step_by(KEYS).map(|first_key| (s, first_key)));
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
            &cache.k.to_f32(),
            &cache.v.to_f32(),
            out,
            &mut lse,
        );
    }
    // One partial result a piece: for each query and head, the maximum, the sum of exponentials and the output.
    let rows = few
        .iter()
        .map(|&s| (shape.cu_q[s + 1] - shape.cu_q[s]) as usize)
        .max()
        .unwrap_or(0)
        * shape.n_heads;
    let size = rows * (shape.d_head + 2);
    let mut partial = scratch(pieces.len() * size);
    let shared_partial = SharedMut::new(&mut partial);
    for_each(pieces.len(), KEYS * narrow * 2, |index| {
        let (sequence, first_key) = pieces[index];
        // SAFETY: every piece has its own part.
        let partial = unsafe { shared_partial.slice(index * size, size) };
        let KvSlices { k, v, len } = caches[sequence];
        let work = Work {
            shape,
            q,
            len,
            sequence,
            first_key,
        };
        match (k, v) {
            (Values::F32(k), Values::F32(v)) => piece(work, k, v, partial),
            (Values::Bf16(k), Values::Bf16(v)) => piece_bf16(work, k, v, partial),
            _ => unreachable!("keys and values are of one format"),
        }
    });
    let mut at = 0;
    for s in few {
        let (first, end) = (shape.cu_q[s] as usize, shape.cu_q[s + 1] as usize);
        let n = caches[s].len.div_ceil(KEYS);
        // SAFETY: each sequence has its own rows, and the pieces are done.
        let out = unsafe { shared.slice(first * wide, (end - first) * wide) };
        combine(
            &partial[at * size..(at + n) * size],
            size,
            shape.d_head,
            out,
        );
        at += n;
    }
}

/// Cache rows in a piece of work.
const KEYS: usize = 64;

/// Keys from `first_key` on of one sequence.
#[derive(Clone, Copy)]
struct Work<'a> {
    shape: &'a CachedShape<'a>,
    q: &'a [f32],
    /// Keys of the sequence.
    len: usize,
    sequence: usize,
    first_key: usize,
}

dispatched!(fn piece = piece_on(work: Work, k: &[f32], v: &[f32], partial: &mut [f32]));
dispatched!(fn piece_bf16 = piece_on(work: Work, k: &[bf16], v: &[bf16], partial: &mut [f32]));
dispatched!(fn combine = combine_on(partial: &[f32], size: usize, d: usize, out: &mut [f32]));

#[inline(always)]
fn piece_on<S: Simd, E: Element>(s: S, work: Work, k: &[E], v: &[E], partial: &mut [f32]) {
    let Work {
        shape,
        len,
        first_key,
        ..
    } = work;
    let (d, heads) = (shape.d_head, shape.n_heads);
    let narrow = shape.n_kv_heads * d;
    let group = heads / shape.n_kv_heads;
    let (first, end) = (
        shape.cu_q[work.sequence] as usize,
        shape.cu_q[work.sequence + 1] as usize,
    );
    let (nq, nk) = (end - first, KEYS.min(len - first_key));
    let mut scores = scratch(nq * heads * KEYS);
    // Scores of (query, head) row `r`: scores[r * KEYS ..].
    for j in 0..nk {
        let row = &k[(first_key + j) * narrow..][..narrow];
        for i in 0..nq {
            let query = &work.q[(first + i) * shape.q_stride..][..heads * d];
            for head in 0..heads {
                let (query, key) = (&query[head * d..][..d], &row[head / group * d..][..d]);
                let mut sum = s.zero();
                vectors!(s, d, |c| sum =
                    s.fma(read(s, query, c), E::read(s, key, c), sum));
                scores[(i * heads + head) * KEYS + j] = s.sum(sum) * shape.scale;
            }
        }
    }
    for i in 0..nq {
        let seen = shape.mask.keys_of(i, nq, len);
        let seen = seen.start.clamp(first_key, first_key + nk) - first_key
            ..seen.end.clamp(first_key, first_key + nk) - first_key;
        for head in 0..heads {
            let r = i * heads + head;
            let row = &mut scores[r * KEYS..][..nk];
            if let Some(bias) = shape.bias {
                // The next key's value stands one before.
                let end = bias.at(i, first_key, nq, len) + 1;
                let values = bias.of_head(head)[..end].iter().rev();
                for (score, bias) in row.iter_mut().zip(values) {
                    *score += bias;
                }
            }
            row[..seen.start].fill(0.0);
            row[seen.end.max(seen.start)..].fill(0.0);
            for j in seen.clone() {
                if !shape.mask.sees(i, first_key + j, nq, len) {
                    row[j] = f32::NEG_INFINITY;
                }
            }
            let (max, sum) = exponentials_on(s, &mut row[seen.start..seen.end.max(seen.start)]);
            let partial = &mut partial[r * (d + 2)..][..d + 2];
            partial.fill(0.0);
            partial[d] = max;
            partial[d + 1] = sum;
        }
    }
    for j in 0..nk {
        let row = &v[(first_key + j) * narrow..][..narrow];
        for r in 0..nq * heads {
            let value = &row[r % heads / group * d..][..d];
            let out = &mut partial[r * (d + 2)..][..d];
            let p = s.splat(scores[r * KEYS + j]);
            vectors!(s, d, |c| {
                let sum = s.fma(p, E::read(s, value, c), read(s, out, c));
                write(s, out, c, sum);
            });
        }
    }
}

/// Replaces the row by exponentials relative to its maximum; gives the maximum and their sum.
#[inline(always)]
fn exponentials_on<S: Simd>(s: S, row: &mut [f32]) -> (f32, f32) {
    let mut max = f32::MIN;
    for &x in row.iter() {
        max = if x > max { x } else { max };
    }
    let shift = s.splat(max);
    vectors!(s, row.len(), |i| {
        let e = math::exp_finite(s, s.sub(read(s, row, i), shift));
        write(s, row, i, e);
    });
    (max, row.iter().sum())
}

/// Puts the partial results of a sequence together: out [rows, d].
#[inline(always)]
fn combine_on<S: Simd>(s: S, partial: &[f32], size: usize, d: usize, out: &mut [f32]) {
    out.fill(0.0);
    for (r, out) in out.chunks_exact_mut(d.max(1)).enumerate() {
        let mut max = f32::MIN;
        for part in partial.chunks_exact(size) {
            max = max.max(part[r * (d + 2) + d]);
        }
        let mut total = 0.0;
        for part in partial.chunks_exact(size) {
            let part = &part[r * (d + 2)..][..d + 2];
            let weight = (part[d] - max).exp();
            total += weight * part[d + 1];
            let weight = s.splat(weight);
            vectors!(s, d, |c| {
                let sum = s.fma(weight, read(s, &part[..d], c), read(s, out, c));
                write(s, out, c, sum);
            });
        }
        // A query that sees no key has a sum of 0; not-a-number passes on.
        let factor = s.splat(if total == 0.0 { 0.0 } else { 1.0 / total });
        vectors!(s, d, |c| {
            let scaled = s.mul(read(s, out, c), factor);
            write(s, out, c, scaled);
        });
    }
}
