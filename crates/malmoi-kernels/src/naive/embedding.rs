//! Embeddings as loops.

/// See [`crate::embedding::gather_rows`].
pub fn gather_rows(table: &[f32], d: usize, ids: &[u32], out: &mut [f32]) {
    for (out, &id) in out.chunks_exact_mut(d).zip(ids) {
        out.copy_from_slice(&table[id as usize * d..][..d]);
    }
}

/// See [`crate::embedding::scatter_add_rows`].
pub fn scatter_add_rows(dy: &[f32], d: usize, ids: &[u32], dtable: &mut [f32]) {
    for (dy, &id) in dy.chunks_exact(d).zip(ids) {
        for (to, from) in dtable[id as usize * d..][..d].iter_mut().zip(dy) {
            *to += from;
        }
    }
}

/// See [`crate::embedding::embedding_sum`].
pub fn embedding_sum(tables: &[(&[f32], &[u32])], d: usize, out: &mut [f32]) {
    out.fill(0.0);
    for (i, out) in out.chunks_exact_mut(d).enumerate() {
        for (table, ids) in tables {
            for (out, x) in out.iter_mut().zip(&table[ids[i] as usize * d..][..d]) {
                *out += x;
            }
        }
    }
}
