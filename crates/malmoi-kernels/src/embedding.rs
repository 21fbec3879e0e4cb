//! Looking rows up in tables, and its gradient.

use crate::threads::{SharedMut, chunks_mut, for_each};

#[cfg(test)]
mod tests;

/// An id has no row in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("id {id} at position {position} has no row in a table of {rows} rows")]
pub struct IdOutOfRange {
    /// Where in the ids.
    pub position: usize,
    /// The id.
    pub id: u32,
    /// Rows of the table.
    pub rows: usize,
}

/// Checks that every id is below `rows`. Callers check outside data with this; the kernels below panic.
///
/// # Errors
/// Names the first id that is too large.
pub fn check_ids(ids: &[u32], rows: usize) -> Result<(), IdOutOfRange> {
    match ids.iter().position(|&id| id as usize >= rows) {
        None => Ok(()),
        Some(position) => Err(IdOutOfRange {
            position,
            id: ids[position],
            rows,
        }),
    }
}

/// `out[i] = table[ids[i]]`. Shapes: `table` [rows, d], `out` [ids.len(), d].
///
/// # Panics
/// When lengths disagree or an id has no row.
pub fn gather_rows(table: &[f32], d: usize, ids: &[u32], out: &mut [f32]) {
    check_table("gather_rows", table.len(), d, ids);
    assert_eq!(out.len(), ids.len() * d, "gather_rows: out is [ids, d]");
    embedding_sum(&[(table, ids)], d, out);
}

/// `dtable[ids[i]] += dy[i]`, in the order of `i`. Shapes: `dy` [ids.len(), d], `dtable` [rows, d].
///
/// # Panics
/// When lengths disagree or an id has no row.
pub fn scatter_add_rows(dy: &[f32], d: usize, ids: &[u32], dtable: &mut [f32]) {
    check_table("scatter_add_rows", dtable.len(), d, ids);
    assert_eq!(dy.len(), ids.len() * d, "scatter_add_rows: dy is [ids, d]");
    // Every piece has its own columns and goes through the ids in order, so the order of additions never changes.
    const COLUMNS: usize = 128;
    let table = SharedMut::new(dtable);
    for_each(d.div_ceil(COLUMNS), COLUMNS.min(d) * ids.len(), |piece| {
        let first = piece * COLUMNS;
        let n = COLUMNS.min(d - first);
        for (dy, &id) in dy.chunks_exact(d).zip(ids) {
            // SAFETY: ids were checked against the rows, and this piece alone has these columns.
            let to = unsafe { table.slice(id as usize * d + first, n) };
            for (to, from) in to.iter_mut().zip(&dy[first..]) {
                *to += from;
            }
        }
    });
}

/// `out[i] = Σ_tables table[ids[i]]`, added in the order of the tables: words, positions and segments at once.
///
/// # Panics
/// When lengths disagree or an id has no row.
pub fn embedding_sum(tables: &[(&[f32], &[u32])], d: usize, out: &mut [f32]) {
    for (table, ids) in tables {
        check_table("embedding_sum", table.len(), d, ids);
        assert_eq!(out.len(), ids.len() * d, "embedding_sum: out is [ids, d]");
    }
    let Some((&(first, first_ids), rest)) = tables.split_first() else {
        out.fill(0.0);
        return;
    };
    // Rows in a piece of work: about 16,384 elements.
    let rows = 16_384_usize.div_ceil(d);
    chunks_mut(out, rows * d, 2 * tables.len(), |offset, out| {
        for (i, out) in out.chunks_exact_mut(d).enumerate() {
            let i = i + offset / d;
            out.copy_from_slice(&first[first_ids[i] as usize * d..][..d]);
            for (table, ids) in rest {
                for (out, x) in out.iter_mut().zip(&table[ids[i] as usize * d..][..d]) {
                    *out += x;
                }
            }
        }
    });
}

fn check_table(name: &str, len: usize, d: usize, ids: &[u32]) {
    assert!(
        d > 0 && len.is_multiple_of(d),
        "{name}: {len} elements are not rows of {d}"
    );
    if let Err(error) = check_ids(ids, len / d) {
        panic!("{name}: {error}");
    }
}
