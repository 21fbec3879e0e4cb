//! One row to a few dozen: every panel of the right-hand side meets all of them as it comes from memory, while what comes next is
//! asked for, so that reading and computing go on together; a product of a few dozen rows takes about as long for the one as for
//! the other. Transposed weights are brought into the tile's order panel by panel, in the second-level cache.
//!
//! Sums are made in the order of the product in blocks, so the bits are the same whether the right-hand side was packed before or
//! not.

use super::blocked::{Blocks, Right};
use super::{Ending, Operand, rows_alike};
use crate::scratch::scratch;
use crate::simd::{Left, Simd, Tile, dispatched, sizes};
use crate::threads::{self, SharedMut, for_each};

/// Rows that one panel serves at most; for more, packing the weights ahead by all threads is as good.
const ROWS: usize = 128;
/// The same where they are packed already, with a tile of 14 rows: the product in blocks keeps more of the rows in the first-level
/// cache. With fewer rows a tile asks the caches for more of each panel, which is nearer this way: all products of BERT-base's
/// blocks on two cores with AVX2 took 94 ms in blocks and 76 ms panel by panel with 64 rows, 122 and 109 with 96, 148 and 145 with
/// 128, 311 and 308 with 256, 424 and 438 with 384.
const ROWS_PACKED: usize = 56;
/// Floats of `a` at most (1 MB): they stay in the second-level cache beside two panels.
const FLOATS: usize = 262_144;
/// The same with a tile of fewer rows and a packed right-hand side: they may stream from the third level.
const FLOATS_FEW_ROWS: usize = 4 * FLOATS;

/// Rows up to which a panel is read so fast that the processor itself asks for what follows: asking for it, too, makes one row a
/// tenth slower.
const ROWS_UNASKED: usize = 2;
/// Floats of a panel between those that the only tile reads and those that it asks for. All products of GPT-2 with 3 to 6 rows took
/// 4 to 6 % longer with 1,024 and 2 to 5 % longer when the next panel was asked for instead.
const AHEAD: usize = 512;

/// Whether a product of this shape goes this way.
pub(super) fn suits(a: Operand, b: Right) -> bool {
    let (rows, k) = (a.rows(), a.cols());
    let (most, floats) = match b {
        Right::Plain(b) if !b.has_contiguous_columns() || rows <= rows_alike(k) => return false,
        Right::Packed(_) if sizes().mr < 14 => (ROWS, FLOATS_FEW_ROWS),
        Right::Packed(_) => (ROWS_PACKED, FLOATS),
        Right::Plain(_) => (ROWS, FLOATS),
    };
    rows <= most && rows * k <= floats
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
    let blocks = Blocks::new(a.cols(), n);
    // One piece a thread: its first panel alone comes unasked.
    let panels = n.div_ceil(blocks.nr);
    let columns = panels.div_ceil(threads::count().max(1)) * blocks.nr;
    let product = Product {
        a,
        b,
        n,
        blocks,
        c: SharedMut::new(c),
        accumulate,
        ending,
    };
    let cost = a.rows() * columns * a.cols() / 8;
    for_each(n.div_ceil(columns), cost, |index| {
        let first = index * columns;
        compute(product, first, (first + columns).min(n));
    });
}

#[derive(Clone, Copy)]
struct Product<'a> {
    a: Operand<'a>,
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
        a,
        b,
        n,
        blocks,
        c,
        accumulate,
        ending,
    } = product;
    let (m, k) = (a.rows(), a.cols());
    let tiles = m.div_ceil(S::MR);
    // Even tiles: 32 rows are 11 + 11 + 10, not 14 + 14 + 4.
    let start = |tile: usize| tile * m / tiles;
    let mut rows = scratch(m * k + S::LANES);
    for p in blocks.rows() {
        for tile in 0..tiles {
            let (i, end) = (start(tile), start(tile + 1));
            let to = &mut rows[p * m + i * blocks.depth(p)..];
            a.pack_a_on(s, i, end - i, p, blocks.depth(p), to);
        }
    }
    let mut buffer = match b {
        Right::Plain(_) => scratch(blocks.depth(0) * S::NR),
        Right::Packed(_) => scratch(0),
    };
    let mut sums = scratch(m * S::NR);
    // What a tile asks for, a little at each of the k steps: its share of the next panel, or alone, what it reads itself before long.
    let share = match tiles {
        1 if m <= ROWS_UNASKED => 0,
        _ => S::NR.div_ceil(tiles),
    };
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
            let (mut ahead, ahead_step) = match (j + cols < last, b) {
                (true, Right::Packed(_)) if tiles == 1 => {
                    (panel.as_ptr().wrapping_add(AHEAD), share)
                }
                (true, _) => (next, share),
                (false, _) => (panel.as_ptr(), 0),
            };
            for tile in 0..tiles {
                let (i, end) = (start(tile), start(tile + 1));
                let tile = Tile {
                    k: depth,
                    a: Left::Columns(rows[p * m + i * depth..].as_ptr(), end - i),
                    b: panel.as_ptr(),
                    c: sums[i * S::NR..].as_mut_ptr(),
                    c_step: S::NR,
                    accumulate: p > 0,
                    ahead,
                    ahead_step,
                };
                // SAFETY: the tile's rows were packed as [depth, end - i], the panel is [depth, NR], `sums` is [m, NR].
                unsafe { s.tile(end - i, tile) };
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
