//! A few dozen rows: every panel of the right-hand side meets all of them as it comes from memory, while the next panel is asked
//! for, so that reading and computing go on together; a product of this shape takes about as long for the one as for the other.
//! Transposed weights are brought into the tile's order panel by panel, in the second-level cache.
//!
//! Sums are made in the order of the product in blocks, so the bits are the same whether the right-hand side was packed before or
//! not.

use super::blocked::{Blocks, Right};
use super::{Ending, Operand, rows_alike};
use crate::scratch::scratch;
use crate::simd::{Left, Simd, Tile, dispatched, sizes};
use crate::threads::{self, SharedMut, for_each};
use std::ops::Range;

/// Rows that one panel serves at most; for more, packing the weights ahead by all threads is as good.
const ROWS: usize = 128;
/// The same where they are packed already: the product in blocks keeps more of the rows in the first-level cache.
const ROWS_PACKED: usize = 56;
/// Floats of `a` at most (1 MB): they stay in the second-level cache beside two panels.
const FLOATS: usize = 262_144;
/// Panels of a piece of work, where there are more than one for each thread.
const PANELS: usize = 12;

/// Whether a product of this shape goes this way.
pub(super) fn suits(a: Operand, b: Right) -> bool {
    let (rows, k) = (a.rows(), a.cols());
    let few = match b {
        Right::Plain(b) => b.has_contiguous_columns() && rows > rows_alike(k) && rows <= ROWS,
        Right::Packed(_) => rows <= ROWS_PACKED,
    };
    few && rows * k <= FLOATS
}

/// `c = ending(a · b)` or `c = ending(c + a · b)`, `b` with `n` columns; `k` and both sides of `c` are at least 1.
pub(super) fn multiply(
    a: Operand,
    b: Right,
    n: usize,
    c: &mut [f32],
    accumulate: bool,
    ending: Ending,
) {
    debug_assert!(suits(a, b) && c.len() == a.rows() * n);
    let (m, k) = (a.rows(), a.cols());
    let blocks = Blocks::new(k, n);
    let sizes = sizes();
    let tiles = m.div_ceil(sizes.mr);
    // Whole vectors are written, so that there is room for one behind each tile.
    let room = k * sizes.mr + sizes.nr;
    let mut rows = scratch(tiles * room);
    let rows = Rows {
        m,
        tiles,
        room,
        data: SharedMut::new(&mut rows),
    };
    for_each(tiles, sizes.mr * k, |tile| pack(a, blocks, rows, tile));
    let product = Product {
        rows,
        b,
        n,
        blocks,
        c: SharedMut::new(c),
        accumulate,
        ending,
    };
    // As many pieces for each thread, and several where there is enough: a thread whose core is busy with something else takes
    // fewer of them.
    let panels = n.div_ceil(blocks.nr);
    let threads = threads::count().max(1);
    let pieces = (panels / (threads * PANELS)).max(1) * threads;
    let columns = panels.div_ceil(pieces) * blocks.nr;
    for_each(n.div_ceil(columns), m * columns * k / 8, |index| {
        let first = index * columns;
        compute(product, first, (first + columns).min(n));
    });
}

/// All rows of the left operand, tile by tile, each [k, rows of the tile]: packed once, read by all threads.
#[derive(Clone, Copy)]
struct Rows {
    m: usize,
    tiles: usize,
    /// Floats from one tile to the next.
    room: usize,
    data: SharedMut,
}

impl Rows {
    /// The rows of a tile. Even tiles: 32 rows are 11 + 11 + 10, not 14 + 14 + 4.
    fn of(self, tile: usize) -> Range<usize> {
        tile * self.m / self.tiles..(tile + 1) * self.m / self.tiles
    }
}

dispatched!(fn pack = pack_on(a: Operand, blocks: Blocks, rows: Rows, tile: usize));

#[inline(always)]
fn pack_on<S: Simd>(s: S, a: Operand, blocks: Blocks, rows: Rows, tile: usize) {
    let Range { start, end } = rows.of(tile);
    // SAFETY: every tile has its own room.
    let to = unsafe { rows.data.slice(tile * rows.room, rows.room) };
    for p in blocks.rows() {
        let to = &mut to[p * (end - start)..];
        a.pack_a_on(s, start, end - start, p, blocks.depth(p), to);
    }
}

#[derive(Clone, Copy)]
struct Product<'a> {
    rows: Rows,
    b: Right<'a>,
    n: usize,
    blocks: Blocks,
    c: SharedMut,
    accumulate: bool,
    ending: Ending<'a>,
}

dispatched!(fn compute = compute_on(product: Product, first: usize, last: usize));

/// Columns `first .. last`.
#[inline(always)]
fn compute_on<S: Simd>(s: S, product: Product, first: usize, last: usize) {
    let Product {
        rows,
        b,
        n,
        blocks,
        c,
        accumulate,
        ending,
    } = product;
    let Rows { m, tiles, .. } = rows;
    let mut buffer = match b {
        Right::Plain(_) => scratch(blocks.depth(0) * S::NR),
        Right::Packed(_) => scratch(0),
    };
    let mut sums = scratch(m * S::NR);
    // What a tile asks for of the next panel: its share, a little at each of the k steps.
    let share = S::NR.div_ceil(tiles);
    for j in (first..last).step_by(S::NR) {
        let cols = S::NR.min(last - j);
        for p in blocks.rows() {
            let depth = blocks.depth(p);
            let (panel, next): (&[f32], _) = match b {
                Right::Plain(b) => {
                    b.pack_b_on(s, p, depth, j, cols, &mut buffer);
                    // The next panel's columns lie one behind the other; each block asks for a part of them.
                    let next = b.place(0, j + cols).wrapping_add(p * S::NR);
                    (&buffer, next)
                }
                Right::Packed(packed) => {
                    let at = blocks.panel(j, p);
                    let panel = &packed[at..][..depth * S::NR];
                    (panel, packed.as_ptr().wrapping_add(at + depth * S::NR))
                }
            };
            let (mut ahead, ahead_step) = match j + cols < n {
                true => (next, share),
                false => (panel.as_ptr(), 0),
            };
            for tile in 0..tiles {
                let Range { start, end } = rows.of(tile);
                // SAFETY: the tile's rows were packed there, all columns before `p` in front.
                let a = unsafe { rows.data.at(tile * rows.room + p * (end - start)) };
                let tile = Tile {
                    k: depth,
                    a: Left::Panel(a),
                    b: panel.as_ptr(),
                    c: sums[start * S::NR..].as_mut_ptr(),
                    c_step: S::NR,
                    accumulate: p > 0,
                    ahead,
                    ahead_step,
                };
                // SAFETY: the tile's rows were packed there as [depth, end - start], the panel is [depth, NR], `sums` is [m, NR].
                unsafe { s.tile(end - start, tile) };
                ahead = ahead.wrapping_add(ahead_step * depth);
            }
        }
        for i in 0..m {
            // SAFETY: these columns of `c` belong to this piece alone.
            let c = unsafe { c.slice(i * n + j, cols) };
            let sums = &sums[i * S::NR..][..cols];
            if accumulate {
                for (c, sum) in c.iter_mut().zip(sums) {
                    *c += sum;
                }
            } else {
                c.copy_from_slice(sums);
            }
        }
    }
    for i in 0..m {
        // SAFETY: these columns of `c` belong to this piece alone.
        let c = unsafe { c.slice(i * n + first, last - first) };
        ending.apply_on(s, c, i * n + first, first);
    }
}
