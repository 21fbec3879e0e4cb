//! Linear attention (Katharopoulos et al., 2020, "Transformers are RNNs"): the exponential of a score is replaced by a product of
//! features, so that keys and values are summed once into a matrix and the time grows with the length, not with its square.
//!
//! The features are `φ(x) = elu(x) + 1`; the output is `φ(q) · Σ φ(k) vᵀ / (φ(q) · Σ φ(k))`, the sums over the keys that a query sees.

use crate::scratch::scratch;
use crate::simd::{Simd, dispatched, math, read, vectors, write};
use crate::threads::{SharedMut, for_each};

#[cfg(test)]
mod tests;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// All keys of its sequence.
    Full,
    /// Keys up to its own place; as many queries as keys.
    Causal,
}

/// Everything about a linear attention but its data; rows are dense.
#[derive(Clone, Copy, Debug)]
pub struct LinearAttention<'a> {
    /// Starts of the sequences among the query rows, and their total at the end [b + 1].
    pub cu_q: &'a [u32],
    /// Starts of the sequences among the key rows, and their total at the end [b + 1].
    pub cu_k: &'a [u32],
    /// Heads.
    pub n_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Which keys a query sees.
    pub sight: Sight,
}

/// The output `[Nq, n_heads · d_head]` for `q` of the same shape, `k` and `v` `[Nk, n_heads · d_head]`. A query that sees no key gets
/// zeros.
///
/// # Panics
/// When lengths disagree.
pub fn linear_attention(shape: &LinearAttention, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let width = shape.n_heads * shape.d_head;
    let rows = |cu: &[u32]| cu.last().map_or(0, |n| *n as usize);
    assert_eq!(
        shape.cu_q.len(),
        shape.cu_k.len(),
        "linear_attention: as many query sequences as key sequences"
    );
    for (name, cu) in [("cu_q", shape.cu_q), ("cu_k", shape.cu_k)] {
        let starts = cu.first().is_none_or(|first| *first == 0);
        assert!(
            starts && cu.is_sorted(),
            "linear_attention: {name} starts at 0 and does not decrease"
        );
    }
    assert!(
        q.len() == rows(shape.cu_q) * width && out.len() == q.len(),
        "linear_attention: q and out are [Nq, n_heads * d_head]"
    );
    assert!(
        k.len() == rows(shape.cu_k) * width && v.len() == k.len(),
        "linear_attention: k and v are [Nk, n_heads * d_head]"
    );
    if shape.sight == Sight::Causal {
        assert_eq!(
            shape.cu_q, shape.cu_k,
            "linear_attention: as many queries as keys when causal"
        );
    }
    let items = shape.cu_q.len().saturating_sub(1) * shape.n_heads;
    let cost = (rows(shape.cu_q) + rows(shape.cu_k)) * width * shape.d_head / 4;
    let out = SharedMut::new(out);
    for_each(items, cost / items.max(1), |index| {
        let (sequence, head) = (index / shape.n_heads, index % shape.n_heads);
        one_head(
            Work {
                shape,
                q,
                k,
                v,
                out,
            },
            sequence,
            head,
        );
    });
}

/// What every piece of work reads and writes.
#[derive(Clone, Copy)]
struct Work<'a> {
    shape: &'a LinearAttention<'a>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: SharedMut,
}

dispatched!(fn one_head = one_head_on(work: Work, sequence: usize, head: usize));

/// `φ(x)` of a head's row.
#[inline(always)]
fn features_on<S: Simd>(s: S, x: &[f32], to: &mut [f32]) {
    vectors!(s, x.len(), |i| {
        let x = read(s, x, i);
        let below = math::exp_finite(s, s.min(s.zero(), x));
        let value = s.select_lt(s.zero(), x, s.add(x, s.splat(1.0)), below);
        write(s, to, i, value);
    });
}

#[inline(always)]
fn one_head_on<S: Simd>(s: S, work: Work, sequence: usize, head: usize) {
    let Work {
        shape,
        q,
        k,
        v,
        out,
    } = work;
    let (d, width) = (shape.d_head, shape.n_heads * shape.d_head);
    // Σ φ(k) vᵀ [d, d], and Σ φ(k) behind it.
    let mut sums = scratch(d * d + d);
    sums.fill(0.0);
    let mut features = scratch(d);
    let at = |row: usize| row * width + head * d;
    let queries = shape.cu_q[sequence] as usize..shape.cu_q[sequence + 1] as usize;
    let keys = shape.cu_k[sequence] as usize..shape.cu_k[sequence + 1] as usize;
    if shape.sight == Sight::Full {
        for row in keys {
            features_on(s, &k[at(row)..][..d], &mut features);
            add_key_on(s, &features, &v[at(row)..][..d], &mut sums);
        }
    }
    for row in queries {
        if shape.sight == Sight::Causal {
            features_on(s, &k[at(row)..][..d], &mut features);
            add_key_on(s, &features, &v[at(row)..][..d], &mut sums);
        }
        features_on(s, &q[at(row)..][..d], &mut features);
        let (products, totals) = sums.split_at(d * d);
        let mut weight = s.zero();
        vectors!(s, d, |c| {
            weight = s.fma(read(s, &features[..d], c), read(s, totals, c), weight);
        });
        let weight = s.sum(weight);
        // SAFETY: this piece of work alone has these rows of this head.
        let to = unsafe { out.slice(at(row), d) };
        to.fill(0.0);
        for (feature, products) in features.iter().zip(products.chunks_exact(d)) {
            let feature = s.splat(*feature);
            vectors!(s, d, |c| {
                let sum = s.fma(feature, read(s, products, c), read(s, to, c));
                write(s, to, c, sum);
            });
        }
        // A query that sees no key has a weight of 0; not-a-number passes on.
        let factor = s.splat(if weight == 0.0 { 0.0 } else { 1.0 / weight });
        vectors!(s, d, |c| {
            let scaled = s.mul(read(s, to, c), factor);
            write(s, to, c, scaled);
        });
    }
}

/// Adds `φ(k) vᵀ` and `φ(k)` to the sums.
#[inline(always)]
fn add_key_on<S: Simd>(s: S, features: &[f32], v: &[f32], sums: &mut [f32]) {
    let d = v.len();
    let (products, totals) = sums.split_at_mut(d * d);
    for (feature, products) in features.iter().zip(products.chunks_exact_mut(d)) {
        let feature = s.splat(*feature);
        vectors!(s, d, |c| {
            let sum = s.fma(feature, read(s, v, c), read(s, products, c));
            write(s, products, c, sum);
        });
    }
    for (total, feature) in totals.iter_mut().zip(features) {
        *total += feature;
    }
}
