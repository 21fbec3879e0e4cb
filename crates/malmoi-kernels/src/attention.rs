//! Scaled dot-product attention over packed sequences of different lengths.
//!
//! Sequence `s` owns query rows `cu_q[s] .. cu_q[s + 1]` and key rows `cu_k[s] .. cu_k[s + 1]`; no row is padding.
//! Query heads share key/value heads in groups of `n_heads / n_kv_heads` (1 when they are equal in number).

mod backward;
mod block;
mod cached;
mod forward;

use crate::mixed::Values;
use crate::naive;
use crate::random::Key;
use crate::threads::SharedMut;
use backward::{Backward, Rows};

#[cfg(test)]
mod tests;

/// Which keys a query sees. Query `i` of a sequence with `nq` queries and `nk` keys sits at position
/// `i + nk - nq` of the keys, so that the last query is at the last key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All keys of its sequence.
    Full,
    /// Keys up to its own position.
    Causal,
    /// Keys from `left` before its position to `right` after it, its own included.
    Window {
        /// Keys before the position.
        left: usize,
        /// Keys after the position.
        right: usize,
    },
    /// Every `stride`-th key up to its own position, that one included (Child et al., 2019, "Sparse Transformers").
    Strided {
        /// From one key seen to the next; at least 1.
        stride: usize,
    },
}

impl Mask {
    /// The first and the last key that query `i` sees and all between them, as a range that may be empty; of a stride, from key 0.
    #[must_use]
    pub fn keys_of(self, i: usize, nq: usize, nk: usize) -> std::ops::Range<usize> {
        // Positions can be negative when there are more queries than keys.
        let position = i as i64 + nk as i64 - nq as i64;
        let clamp = |x: i64| x.clamp(0, nk as i64) as usize;
        let (first, end) = match self {
            Mask::Full => (0, nk),
            Mask::Causal | Mask::Strided { .. } => (0, clamp(position + 1)),
            Mask::Window { left, right } => (
                clamp(position.saturating_sub_unsigned(left as u64)),
                clamp(
                    position
                        .saturating_add_unsigned(right as u64)
                        .saturating_add(1),
                ),
            ),
        };
        first..end.max(first)
    }

    /// Whether query `i` sees key `j` of [`Mask::keys_of`].
    #[must_use]
    pub fn sees(self, i: usize, j: usize, nq: usize, nk: usize) -> bool {
        match self {
            // Within the range the key is not behind the query.
            Mask::Strided { stride } => (i + nk - nq - j).is_multiple_of(stride.max(1)),
            _ => true,
        }
    }

    /// Pairs of a query and a key that it sees, among `nq` queries at the end of `nk` keys.
    #[must_use]
    pub fn visible(self, nq: usize, nk: usize) -> u64 {
        let seen = |i: usize| {
            let keys = self.keys_of(i, nq, nk).len();
            match self {
                // The last key of the range and every stride before it.
                Mask::Strided { stride } => keys.div_ceil(stride.max(1)),
                _ => keys,
            }
        };
        (0..nq).map(|i| seen(i) as u64).sum()
    }
}

/// Dropout of attention probabilities. The draw for (sequence, head, query, key) is word `key % 4` of
/// `philox([key / 4, query, head, sequence])` under the words of the key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of dropping, in `[0, 1)`.
    pub p: f32,
    /// The stream.
    pub key: Key,
}

/// A value added to every scaled score that depends on the head and on how far the key lies from the query: relative
/// position biases (T5) and linear biases (ALiBi). A row of distances a head instead of a matrix of scores: it is read in order and
/// stays in the cache.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// [n_heads, 2 · reach - 1]: the value for a key `d` positions before the query (after it, when negative) stands at
    /// `reach - 1 + d`. The position of a query is that of [`Mask`].
    pub data: &'a [f32],
    /// One more than the largest distance: at least the longest sequence of queries or keys.
    pub reach: usize,
}

impl<'a> Bias<'a> {
    /// Values a head.
    pub(crate) fn width(&self) -> usize {
        (2 * self.reach).saturating_sub(1)
    }

    /// The values of a head.
    pub(crate) fn of_head(&self, head: usize) -> &'a [f32] {
        &self.data[head * self.width()..][..self.width()]
    }

    /// Where the value of query `i` and key `j` stands in the row of a head; the next query's is one further, the next key's one before.
    pub(crate) fn at(&self, i: usize, j: usize, nq: usize, nk: usize) -> usize {
        self.reach - 1 + i + nk - nq - j
    }

    fn check(&self, n_heads: usize, longest: usize) {
        assert_eq!(
            self.data.len(),
            n_heads * self.width(),
            "attention: bias is [n_heads, 2 * reach - 1]"
        );
        assert!(
            longest <= self.reach,
            "attention: a sequence of {longest} reaches further than the bias ({})",
            self.reach
        );
    }
}

/// Everything about an attention but its data.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape<'a> {
    /// Starts of the sequences among the query rows, and their total at the end [b + 1].
    pub cu_q: &'a [u32],
    /// Starts of the sequences among the key rows, and their total at the end [b + 1].
    pub cu_k: &'a [u32],
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Multiplies every score, usually 1 / sqrt(d_head).
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Elements from one query row to the next, at least `n_heads * d_head`.
    pub q_stride: usize,
    /// Elements from one key row to the next, at least `n_kv_heads * d_head`.
    pub k_stride: usize,
    /// Elements from one value row to the next, at least `n_kv_heads * d_head`.
    pub v_stride: usize,
    /// Dropout of the probabilities.
    pub dropout: Option<Dropout>,
    /// Added to the scaled scores.
    pub bias: Option<Bias<'a>>,
}

impl<'a> AttentionShape<'a> {
    /// Self-attention or cross-attention with as many key heads as query heads, dense rows, the usual scale, no dropout and
    /// no bias. Change the fields for anything else.
    #[must_use]
    pub fn new(
        cu_q: &'a [u32],
        cu_k: &'a [u32],
        n_heads: usize,
        d_head: usize,
        mask: Mask,
    ) -> AttentionShape<'a> {
        let width = n_heads * d_head;
        AttentionShape {
            cu_q,
            cu_k,
            n_heads,
            n_kv_heads: n_heads,
            d_head,
            scale: (1.0 / (d_head.max(1) as f64).sqrt()) as f32,
            mask,
            q_stride: width,
            k_stride: width,
            v_stride: width,
            dropout: None,
            bias: None,
        }
    }

    /// Query rows.
    #[must_use]
    pub fn n_queries(&self) -> usize {
        self.cu_q.last().map_or(0, |&n| n as usize)
    }

    /// Key rows.
    #[must_use]
    pub fn n_keys(&self) -> usize {
        self.cu_k.last().map_or(0, |&n| n as usize)
    }

    /// Number of sequences.
    #[must_use]
    pub fn n_sequences(&self) -> usize {
        self.cu_q.len().saturating_sub(1)
    }

    /// Elements that [`attention_probabilities`] writes: Σ_sequences n_heads · nq · nk.
    #[must_use]
    pub fn probabilities_len(&self) -> usize {
        (0..self.n_sequences())
            .map(|s| self.n_heads * self.queries_of(s).len() * self.keys_of(s).len())
            .sum()
    }

    /// Query rows of sequence `s`.
    #[must_use]
    pub fn queries_of(&self, s: usize) -> std::ops::Range<usize> {
        self.cu_q[s] as usize..self.cu_q[s + 1] as usize
    }

    /// Key rows of sequence `s`.
    #[must_use]
    pub fn keys_of(&self, s: usize) -> std::ops::Range<usize> {
        self.cu_k[s] as usize..self.cu_k[s + 1] as usize
    }

    /// Checks the sizes, and that `q`, `k` and `v` hold so many elements.
    fn check(&self, [q, k, v]: [usize; 3]) {
        assert_eq!(
            self.cu_q.len(),
            self.cu_k.len(),
            "attention: as many query sequences as key sequences"
        );
        assert!(
            self.cu_q.is_sorted() && self.cu_k.is_sorted(),
            "attention: cumulative lengths do not decrease"
        );
        assert!(
            self.cu_q.first().is_none_or(|&first| first == 0),
            "attention: cu_q starts at 0"
        );
        assert!(
            self.cu_k.first().is_none_or(|&first| first == 0),
            "attention: cu_k starts at 0"
        );
        assert!(
            self.n_kv_heads > 0 && self.n_heads.is_multiple_of(self.n_kv_heads),
            "attention: {} query heads cannot share {} key heads evenly",
            self.n_heads,
            self.n_kv_heads
        );
        let check_rows = |name: &str, len: usize, rows: usize, width: usize, stride: usize| {
            assert!(
                stride >= width,
                "attention: the stride of {name} is {stride}, its rows are {width} wide"
            );
            assert!(
                rows == 0 || len >= (rows - 1) * stride + width,
                "attention: {name} holds {len} elements, too few for {rows} rows"
            );
        };
        check_rows(
            "q",
            q,
            self.n_queries(),
            self.n_heads * self.d_head,
            self.q_stride,
        );
        check_rows(
            "k",
            k,
            self.n_keys(),
            self.n_kv_heads * self.d_head,
            self.k_stride,
        );
        check_rows(
            "v",
            v,
            self.n_keys(),
            self.n_kv_heads * self.d_head,
            self.v_stride,
        );
        if let Some(dropout) = self.dropout {
            crate::dropout::check_probability(dropout.p);
        }
        if let Some(bias) = self.bias {
            let longest = (0..self.n_sequences())
                .map(|s| self.queries_of(s).len().max(self.keys_of(s).len()));
            bias.check(self.n_heads, longest.max().unwrap_or(0));
        }
    }
}

impl AttentionShape<'_> {
    /// Checks the lengths of all that a forward pass is given.
    pub(crate) fn check_forward(&self, inputs: [usize; 3], out: usize, lse: usize) {
        self.check(inputs);
        assert_eq!(
            out,
            self.n_queries() * self.n_heads * self.d_head,
            "attention_forward: out is [Nq, n_heads * d_head]"
        );
        assert_eq!(
            lse,
            self.n_heads * self.n_queries(),
            "attention_forward: lse is [n_heads, Nq]"
        );
    }

    /// Checks the lengths of all that a backward pass is given.
    pub(crate) fn check_backward<T>(&self, saved: &Saved<T>, dout: &[T], gradients: &Gradients<T>) {
        check_saved(self, saved, dout, gradients.dbias.as_deref());
        let (queries, keys) = (
            self.n_queries() * self.n_heads * self.d_head,
            self.n_keys() * self.n_kv_heads * self.d_head,
        );
        assert_eq!(
            gradients.dq.len(),
            queries,
            "attention_backward: dq is [Nq, n_heads * d_head]"
        );
        assert_eq!(
            gradients.dk.len(),
            keys,
            "attention_backward: dk is [Nk, n_kv_heads * d_head]"
        );
        assert_eq!(
            gradients.dv.len(),
            keys,
            "attention_backward: dv is [Nk, n_kv_heads * d_head]"
        );
    }
}

/// `out = dropout(softmax(scale · q kᵀ + bias)) · v`, per sequence and head.
///
/// Shapes: `q` [Nq, n_heads · d_head] with rows `q_stride` apart, `k` and `v` [Nk, n_kv_heads · d_head] with rows `k_stride` and
/// `v_stride` apart, `out` [Nq, n_heads · d_head] dense, `lse` [n_heads, Nq]: the logarithm of the sum of exponentials
/// of each query's scores, which the backward pass needs. A query that sees no key gets zeros and an `lse` of minus infinity.
///
/// # Panics
/// When lengths disagree.
pub fn attention_forward(
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
) {
    shape.check_forward([q.len(), k.len(), v.len()], out.len(), lse.len());
    let (out, lse) = (SharedMut::new(out), SharedMut::new(lse));
    forward::run(forward::Forward {
        shape,
        q,
        k,
        v,
        out,
        lse,
    });
}

/// What the forward pass leaves for the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a, T = f32> {
    /// As given to [`attention_forward`].
    pub q: &'a [T],
    /// As given to [`attention_forward`].
    pub k: &'a [T],
    /// As given to [`attention_forward`].
    pub v: &'a [T],
    /// As written by [`attention_forward`].
    pub out: &'a [T],
    /// As written by [`attention_forward`].
    pub lse: &'a [f32],
}

/// Where [`attention_backward`] puts its gradients; all are overwritten.
#[derive(Debug)]
pub struct Gradients<'a, T = f32> {
    /// [Nq, n_heads · d_head], dense.
    pub dq: &'a mut [T],
    /// [Nk, n_kv_heads · d_head], dense.
    pub dk: &'a mut [T],
    /// [Nk, n_kv_heads · d_head], dense.
    pub dv: &'a mut [T],
    /// As the bias [n_heads, 2 · reach - 1], when there is one and it is trained.
    pub dbias: Option<&'a mut [f32]>,
}

/// The gradients of [`attention_forward`] for `dout` [Nq, n_heads · d_head].
///
/// # Panics
/// When lengths disagree.
pub fn attention_backward(
    shape: &AttentionShape,
    saved: &Saved,
    dout: &[f32],
    gradients: Gradients,
) {
    shape.check_backward(saved, dout, &gradients);
    let rows = |data: &mut [f32], heads: usize| Rows {
        data: SharedMut::new(data),
        offset: 0,
        stride: heads * shape.d_head,
    };
    let work = Backward {
        shape,
        saved,
        dout,
        dq: rows(gradients.dq, shape.n_heads),
        dk: rows(gradients.dk, shape.n_kv_heads),
        dv: rows(gradients.dv, shape.n_kv_heads),
        dbias: gradients.dbias.map(zeroed),
    };
    backward::run(work);
}

fn zeroed(data: &mut [f32]) -> SharedMut {
    data.fill(0.0);
    SharedMut::new(data)
}

/// [`attention_backward`] into one buffer `dqkv` [N, (n_heads + 2 n_kv_heads) · d_head] whose rows hold the gradients of
/// query, key and value next to each other, for self-attention on a fused projection.
///
/// # Panics
/// When lengths disagree, or there are not as many queries as keys.
pub fn attention_backward_fused(
    shape: &AttentionShape,
    saved: &Saved,
    dout: &[f32],
    dqkv: &mut [f32],
    dbias: Option<&mut [f32]>,
) {
    assert_eq!(
        shape.n_queries(),
        shape.n_keys(),
        "attention_backward_fused: self-attention has as many queries as keys"
    );
    let (wide, narrow) = (
        shape.n_heads * shape.d_head,
        shape.n_kv_heads * shape.d_head,
    );
    assert_eq!(
        dqkv.len(),
        shape.n_queries() * (wide + 2 * narrow),
        "attention_backward_fused: dqkv is [N, (n_heads + 2 n_kv_heads) * d_head]"
    );
    check_saved(shape, saved, dout, dbias.as_deref());
    let data = SharedMut::new(dqkv);
    let rows = |offset: usize| Rows {
        data,
        offset,
        stride: wide + 2 * narrow,
    };
    let work = Backward {
        shape,
        saved,
        dout,
        dq: rows(0),
        dk: rows(wide),
        dv: rows(wide + narrow),
        dbias: dbias.map(zeroed),
    };
    backward::run(work);
}

fn check_saved<T>(shape: &AttentionShape, saved: &Saved<T>, dout: &[T], dbias: Option<&[f32]>) {
    shape.check([saved.q.len(), saved.k.len(), saved.v.len()]);
    let queries = shape.n_queries() * shape.n_heads * shape.d_head;
    assert_eq!(
        saved.out.len(),
        queries,
        "attention_backward: out is [Nq, n_heads * d_head]"
    );
    assert_eq!(
        dout.len(),
        queries,
        "attention_backward: dout is [Nq, n_heads * d_head]"
    );
    assert_eq!(
        saved.lse.len(),
        shape.n_heads * shape.n_queries(),
        "attention_backward: lse is [n_heads, Nq]"
    );
    if let Some(dbias) = dbias {
        let bias = shape
            .bias
            .expect("attention_backward: dbias is given, so the shape has a bias");
        assert_eq!(
            dbias.len(),
            bias.data.len(),
            "attention_backward: dbias is as long as the bias"
        );
    }
}

/// The probabilities that [`attention_forward`] multiplies values with, before dropout: for each sequence
/// [n_heads, nq, nk], one after the other. For read-outs; the fused kernels never hold them.
///
/// # Panics
/// When lengths disagree.
pub fn attention_probabilities(shape: &AttentionShape, q: &[f32], k: &[f32], probs: &mut [f32]) {
    shape.check([q.len(), k.len(), k.len()]);
    assert_eq!(
        probs.len(),
        shape.probabilities_len(),
        "attention_probabilities: [n_heads, nq, nk] for each sequence"
    );
    naive::attention::attention_probabilities(shape, q, k, probs);
}

/// The cached keys and values of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct KvSlices<'a> {
    /// Keys [at least len, n_kv_heads · d_head], dense rows.
    pub k: Values<'a>,
    /// Values [at least len, n_kv_heads · d_head], dense rows, in the format of the keys.
    pub v: Values<'a>,
    /// Keys in use, those of the new queries included.
    pub len: usize,
}

/// The sizes of [`attention_cached`].
#[derive(Clone, Copy, Debug)]
pub struct CachedShape<'a> {
    /// Starts of the sequences among the query rows, and their total at the end [b + 1].
    pub cu_q: &'a [u32],
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Multiplies every score.
    pub scale: f32,
    /// Which keys a query sees: `Causal` for a decoder over its own past, `Full` for cross-attention.
    pub mask: Mask,
    /// Elements from one query row to the next.
    pub q_stride: usize,
    /// Added to the scaled scores.
    pub bias: Option<Bias<'a>>,
}

/// Attention of new queries over cached keys and values, one cache a sequence.
///
/// Shapes: `q` [Nq, n_heads · d_head] with rows `q_stride` apart, `out` [Nq, n_heads · d_head] dense.
///
/// # Panics
/// When lengths disagree.
pub fn attention_cached(shape: &CachedShape, q: &[f32], caches: &[KvSlices], out: &mut [f32]) {
    check_cached(shape, q, caches, out);
    cached::run(shape, q, caches, out);
}

fn check_cached(shape: &CachedShape, q: &[f32], caches: &[KvSlices], out: &[f32]) {
    assert_eq!(
        shape.cu_q.len(),
        caches.len() + 1,
        "attention_cached: one cache a sequence"
    );
    assert!(
        shape.cu_q.is_sorted() && shape.cu_q[0] == 0,
        "attention_cached: cu_q starts at 0 and does not decrease"
    );
    assert!(
        shape.n_kv_heads > 0 && shape.n_heads.is_multiple_of(shape.n_kv_heads),
        "attention_cached: heads share evenly"
    );
    let n = shape.cu_q[caches.len()] as usize;
    let (wide, narrow) = (
        shape.n_heads * shape.d_head,
        shape.n_kv_heads * shape.d_head,
    );
    assert!(
        shape.q_stride >= wide,
        "attention_cached: q_stride is at least n_heads * d_head"
    );
    assert!(
        n == 0 || q.len() >= (n - 1) * shape.q_stride + wide,
        "attention_cached: q is [Nq, n_heads * d_head]"
    );
    assert_eq!(
        out.len(),
        n * wide,
        "attention_cached: out is [Nq, n_heads * d_head]"
    );
    for (s, cache) in caches.iter().enumerate() {
        assert_eq!(
            std::mem::discriminant(&cache.k),
            std::mem::discriminant(&cache.v),
            "attention_cached: keys and values of sequence {s} are of one format"
        );
        assert!(
            cache.k.len() >= cache.len * narrow && cache.v.len() >= cache.len * narrow,
            "attention_cached: the cache of sequence {s} is shorter than its {} keys",
            cache.len
        );
        if let Some(bias) = shape.bias {
            let nq = (shape.cu_q[s + 1] - shape.cu_q[s]) as usize;
            bias.check(shape.n_heads, nq.max(cache.len));
        }
    }
}
