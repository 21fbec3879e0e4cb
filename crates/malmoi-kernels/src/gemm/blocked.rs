//! The product in blocks, after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008), and
//! Van Zee and van de Geijn, "BLIS" (2015).
//!
//! `b` is packed once, by all threads, into panels of `NR` columns; then pieces of `c` are computed independently. A piece
//! packs `MR` rows of `a` at a time into the first-level cache and runs them along its panels of `b`, which stay in the second
//! level. Packing `a` again for each piece costs about 1 % of the product and spares a second round of synchronisation.

use super::operand::pack_b;
use super::{Ending, Operand};
use crate::scratch::scratch;
use crate::simd::{Left, Simd, Tile, dispatched, sizes};
use crate::threads::{SharedMut, for_each};

/// Products summed before `c` is touched again: `MR * KC` floats of `a` (43 KB) stay in the first-level cache or stream from the
/// second. Shorter sums read and write `c` more often: with 384, a product of 1024x768x3072 ran at 118 instead of 128 GFLOP/s
/// (one core of a busy Xeon).
const KC: usize = 768;
/// Columns packed at a time: `KC * NC` floats of `b` (9.4 MB).
const NC: usize = 3072;
/// Columns of a piece of work, with a tile of 14 rows: `KC * NB` floats of `b` (1.2 MB) stay in the second-level cache.
const NB: usize = 384;
/// The same with fewer rows: packing them for each piece costs more beside their products, and the second-level caches of
/// processors without wide vectors hold less in any case. 1024x768x3072 on two cores with AVX2: 171 GFLOP/s with 384, 176 with 768.
const NB_FEW_ROWS: usize = 768;
/// Panels of `a` in a piece of work.
const PANELS: usize = 4;
/// Pieces of work that a product is cut into at least, if it is large enough at all.
const PIECES: usize = 8;
/// `MR * NR` of the largest tile.
const TILE: usize = 14 * 32;

/// How `k` and `n` are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    k: usize,
    n: usize,
    kc: usize,
    /// Columns of a panel.
    pub(super) nr: usize,
}

impl Blocks {
    pub(super) fn new(k: usize, n: usize) -> Blocks {
        // Even blocks: 800 is cut into 2 x 400, not 768 + 32.
        let kc = k.div_ceil(k.div_ceil(KC).max(1)).max(1);
        let nr = sizes().nr;
        Blocks { k, n, kc, nr }
    }

    /// Floats of all of `b` packed.
    pub(super) fn packed_len(self) -> usize {
        self.n.next_multiple_of(self.nr) * self.k
    }

    /// Starts of the blocks of `n`.
    fn columns(self) -> impl Iterator<Item = usize> {
        (0..self.n).step_by(NC)
    }

    /// Starts of the blocks of `k`.
    pub(super) fn rows(self) -> impl Iterator<Item = usize> {
        (0..self.k).step_by(self.kc)
    }

    fn width(self, jc: usize) -> usize {
        NC.min(self.n - jc)
    }

    pub(super) fn depth(self, pc: usize) -> usize {
        self.kc.min(self.k - pc)
    }

    /// Where the packed block that starts at row `pc` and column `jc` begins in the packed whole.
    fn offset(self, jc: usize, pc: usize) -> usize {
        jc * self.k + self.width(jc).next_multiple_of(self.nr) * pc
    }

    /// Where the panel of column `j` (the first of a panel) begins that starts at row `pc`.
    pub(super) fn panel(self, j: usize, pc: usize) -> usize {
        let jc = j - j % NC;
        self.offset(jc, pc) + (j - jc) * self.depth(pc)
    }

    /// Packs one block of `b` [depth, width] panel by panel.
    fn pack(self, b: Operand, jc: usize, pc: usize, to: &mut [f32]) {
        let (width, depth) = (self.width(jc), self.depth(pc));
        let panels = width.div_ceil(self.nr);
        let panel = depth * self.nr;
        let out = SharedMut::new(&mut to[..panels * panel]);
        for_each(panels, panel, |index| {
            let j = index * self.nr;
            // SAFETY: every index has its own panel.
            let to = unsafe { out.slice(index * panel, panel) };
            pack_b(b, pc, depth, jc + j, self.nr.min(width - j), to);
        });
    }

    /// Packs all of `b`.
    pub(super) fn pack_all(self, b: Operand) -> Vec<f32> {
        let mut packed = vec![0.0; self.packed_len()];
        for jc in self.columns() {
            for pc in self.rows() {
                self.pack(b, jc, pc, &mut packed[self.offset(jc, pc)..]);
            }
        }
        packed
    }
}

/// `b`, as it is or packed beforehand.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    Plain(Operand<'a>),
    Packed(&'a [f32]),
}

/// `c = ending(a · b)` or `c = ending(c + a · b)`; `k` and both sides of `c` are at least 1.
pub(super) fn multiply(
    a: Operand,
    b: Right,
    n: usize,
    c: &mut [f32],
    accumulate: bool,
    ending: Ending,
) {
    let blocks = Blocks::new(a.cols(), n);
    let out = SharedMut::new(c);
    let buffer_len = match b {
        Right::Plain(_) => blocks.kc * n.min(NC).next_multiple_of(blocks.nr),
        Right::Packed(_) => 0,
    };
    let mut buffer = scratch(buffer_len);
    for jc in blocks.columns() {
        for pc in blocks.rows() {
            let panels: &[f32] = match b {
                Right::Plain(b) => {
                    blocks.pack(b, jc, pc, &mut buffer);
                    &buffer
                }
                Right::Packed(packed) => &packed[blocks.offset(jc, pc)..],
            };
            let last = pc + blocks.depth(pc) == blocks.k;
            let step = Step {
                a,
                panels,
                c: out,
                n,
                jc,
                pc,
                depth: blocks.depth(pc),
                accumulate: accumulate || pc > 0,
                ending: last.then_some(ending),
            };
            step.run(blocks.width(jc));
        }
    }
}

/// The part of a product that one packed block of `b` takes part in.
#[derive(Clone, Copy)]
struct Step<'a> {
    a: Operand<'a>,
    panels: &'a [f32],
    c: SharedMut,
    n: usize,
    jc: usize,
    pc: usize,
    depth: usize,
    accumulate: bool,
    /// Where these are the last sums.
    ending: Option<Ending<'a>>,
}

/// Rows `i0 .. i1` and columns `j0 .. j1` (counted from the block's first) of `c`.
#[derive(Clone, Copy)]
struct Piece {
    i0: usize,
    i1: usize,
    j0: usize,
    j1: usize,
}

impl Step<'_> {
    /// Cuts the block of `c` into pieces by its shape and computes them.
    fn run(self, width: usize) {
        let sizes = sizes();
        let m = self.a.rows();
        let mut columns = if sizes.mr < 14 { NB_FEW_ROWS } else { NB };
        let mut per_piece = PANELS;
        // Even panels: 128 rows are ten of 13, not nine of 14 and one of 2.
        let panels = m.div_ceil(sizes.mr);
        let panel = m.div_ceil(panels);
        while panels.div_ceil(per_piece) * width.div_ceil(columns) < PIECES
            && columns > 2 * sizes.nr
        {
            columns /= 2;
        }
        while panels.div_ceil(per_piece) * width.div_ceil(columns) < PIECES && per_piece > 1 {
            per_piece /= 2;
        }
        // Even pieces, too.
        let columns = width
            .div_ceil(width.div_ceil(columns))
            .next_multiple_of(sizes.nr);
        let rows = panels.div_ceil(panels.div_ceil(per_piece)) * panel;
        let down = m.div_ceil(rows);
        let pieces = down * width.div_ceil(columns);
        // Eight multiply-adds take about the time of one plain operation.
        let cost = rows.min(m) * columns.min(width) * self.depth / 8;
        for_each(pieces, cost, |index| {
            // Neighbours share their columns, so that a thread finds its panels of `b` in its cache.
            let (i0, j0) = (index % down * rows, index / down * columns);
            let piece = Piece {
                i0,
                i1: (i0 + rows).min(m),
                j0,
                j1: (j0 + columns).min(width),
            };
            compute(self, piece);
        });
    }
}

dispatched!(fn compute = compute_on(step: Step, piece: Piece));

#[inline(always)]
fn compute_on<S: Simd>(s: S, step: Step, piece: Piece) {
    let mut packed_a = scratch(step.depth * S::MR + S::LANES);
    // Even panels: 16 rows are 8 + 8, not 14 + 2.
    let panels = (piece.i1 - piece.i0).div_ceil(S::MR);
    let mut i = piece.i0;
    for panel in 0..panels {
        let rows = (piece.i1 - i).div_ceil(panels - panel);
        step.a
            .pack_a_on(s, i, rows, step.pc, step.depth, &mut packed_a);
        let mut j = piece.j0;
        while j < piece.j1 {
            let cols = S::NR.min(piece.j1 - j);
            tile_on(s, step, &packed_a, i, rows, j, cols);
            j += S::NR;
        }
        if let Some(ending) = step.ending {
            for row in i..i + rows {
                let (at, width) = (row * step.n + step.jc + piece.j0, piece.j1 - piece.j0);
                // SAFETY: these rows and columns of `c` belong to this piece alone.
                let c = unsafe { step.c.slice(at, width) };
                ending.apply_on(s, c, at, step.jc + piece.j0);
            }
        }
        i += rows;
    }
}

#[inline(always)]
fn tile_on<S: Simd>(
    s: S,
    step: Step,
    packed_a: &[f32],
    i: usize,
    rows: usize,
    j: usize,
    cols: usize,
) {
    let b = &step.panels[j * step.depth..][..step.depth * S::NR];
    let at = i * step.n + step.jc + j;
    let mut tile = Tile {
        k: step.depth,
        a: Left::Columns(packed_a.as_ptr(), rows),
        b: b.as_ptr(),
        c: std::ptr::null_mut(),
        c_step: step.n,
        accumulate: step.accumulate,
        ahead: packed_a.as_ptr(),
        ahead_step: 0,
    };
    if cols == S::NR {
        // SAFETY: `packed_a` is [depth, rows], the panel [depth, NR], and rows and columns of `c` belong to this piece alone.
        unsafe {
            tile.c = step.c.at(at);
            s.tile(rows, tile);
        }
        return;
    }
    // The last columns: through a whole tile on the side.
    let mut side = [0.0_f32; TILE];
    tile.c = side.as_mut_ptr();
    tile.c_step = S::NR;
    tile.accumulate = false;
    // SAFETY: as above, and `side` has room for MR * NR floats.
    unsafe { s.tile(rows, tile) };
    for r in 0..rows {
        // SAFETY: these rows and columns of `c` belong to this piece alone.
        let c = unsafe { step.c.slice(at + r * step.n, cols) };
        for (c, x) in c.iter_mut().zip(&side[r * S::NR..]) {
            *c = if step.accumulate { *c + x } else { *x };
        }
    }
}
