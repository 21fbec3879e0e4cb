//! The product in blocks of 32 x 32 on tiles.
//!
//! The right operand lies packed: blocks of 32 columns, each a run of steps of 32 rows, each two tiles. The tile unit needs a
//! kilobyte of each operand every 32 cycles, which the first-level cache gives and the second-level cache does not give twice. So
//! the sum over k is cut into chunks of which 32 rows of the left operand stay in the first level, while the right operand
//! streams from the second. Sums of all but the last chunk wait in f32; a block whose last chunk is done is finished while
//! the tile unit works on the next: bias, activation, rounding. A long sum is first cut into spans, so that the columns of a
//! piece of work stay in the second level.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tiles::{
    LeftRows, Running, SUMS_ROW, Sums, clear_tiles, load_bf16, load_tiles, right_from_step,
    store_bf16,
};
use super::{Amx, BLOCK, STEP, STEP_VALUES, activate, pack};
use crate::activation::{Activation, with_constant};
use crate::mixed::{Finish, Matrix, SharedFinish, ValuesMut, bf16};
use crate::scratch::scratch;
use crate::simd::{Avx512, Nearness, Simd, prefetch};
use crate::threads::{SharedMut, for_each};

/// Bytes of the packed right operand that a piece of work sweeps: about half of a second-level cache.
const SWEPT: usize = 1 << 20;
/// Steps in a chunk of the sum at most: 32 rows of the left operand then fill a third of a first-level cache, as much as the right
/// operand brings in before the next block reads them again; with the sums of a block, that is what a set of lines holds.
const CHUNK: usize = 8;
/// Steps in a span at most.
const SPAN: usize = 24;
/// Steps in a span at most where all columns of a piece stay in the second-level cache for the whole sum.
const LONGEST: usize = 4 * SPAN;
/// Blocks whose sums wait for the next span, at most: 4 KB each, three eighths of a second-level cache.
const WAITING: usize = 192;
/// Columns of blocks for which it pays to bring 32 rows of the left operand into the first-level cache.
const WIDE: usize = 16;
/// Rows of blocks in a piece of work at most: beyond, reading the right operand into the second-level cache costs nothing.
const TALL: usize = 64;

/// A right operand [k, n] in tiles.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    lines: Vec<Line>,
    steps: usize,
}

/// A cache line of bf16 bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u16; 32]);

impl Packed {
    /// Packs all of `b`.
    pub(crate) fn new(amx: Amx, b: Matrix) -> Packed {
        let steps = b.rows.div_ceil(STEP);
        let mut lines = vec![Line([0; 32]); packed_values(b) / 32];
        pack_right(amx, b, SharedMut::new(&mut lines).cast());
        Packed { lines, steps }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.lines[..])
    }

    /// For a product.
    pub(crate) fn panels(&self) -> Panels<'_> {
        Panels {
            // SAFETY: lines are arrays of 32 values, one after the other.
            values: unsafe {
                std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 32)
            },
            steps: self.steps,
        }
    }
}

/// A packed right operand: [blocks of 32 columns][steps of 32 rows][2 tiles].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels<'a> {
    values: &'a [u16],
    steps: usize,
}

/// bf16 values that `b` [k, n] fills when packed.
fn packed_values(b: Matrix) -> usize {
    b.rows.div_ceil(STEP) * b.cols.div_ceil(BLOCK) * STEP_VALUES
}

/// Packs `b` [k, n] into a buffer of this thread and hands it to `f`.
pub(crate) fn with_packed<R>(amx: Amx, b: Matrix, f: impl FnOnce(Panels) -> R) -> R {
    let len = packed_values(b);
    // Two values to a float.
    let mut buffer = scratch(len / 2);
    pack_right(amx, b, SharedMut::new(&mut buffer).cast());
    f(Panels {
        // SAFETY: the buffer holds `len` values, all of them written.
        values: unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), len) },
        steps: b.rows.div_ceil(STEP),
    })
}

fn pack_right(_: Amx, b: Matrix, to: SharedMut<u16>) {
    let (steps, blocks) = (b.rows.div_ceil(STEP), b.cols.div_ceil(BLOCK));
    let tiles = |block: usize, step: usize| {
        // SAFETY: the token says that the processor has the features; each step of a block has its own room of two tiles.
        unsafe {
            let to = to.at((block * steps + step) * STEP_VALUES);
            pack::right(b, step * STEP, block * BLOCK, to);
        }
    };
    // Along what is contiguous, so that memory is read in long runs: a short piece of every row would be on a page of its own.
    if b.col_stride == 1 {
        for_each(steps, blocks * 600, |step| {
            (0..blocks).for_each(|block| tiles(block, step));
        });
    } else {
        for_each(blocks, steps * 600, |block| {
            (0..steps).for_each(|step| tiles(block, step));
        });
    }
}

/// A product to be computed: `c = finish(a · b)` or `finish(c + a · b)`.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    a: Matrix<'a>,
    b: Panels<'a>,
    n: usize,
    out: Out,
    accumulate: bool,
    finish: SharedFinish<'a>,
}

/// Where the result goes.
#[derive(Clone, Copy)]
enum Out {
    F32(SharedMut),
    Bf16(SharedMut<bf16>),
}

impl<'a> Work<'a> {
    /// Shapes were checked by [`crate::mixed::product`].
    pub(crate) fn new(
        a: Matrix<'a>,
        b: Panels<'a>,
        n: usize,
        out: ValuesMut,
        accumulate: bool,
        finish: Finish<'a>,
    ) -> Work<'a> {
        let out = match out {
            ValuesMut::F32(out) => Out::F32(SharedMut::new(out)),
            ValuesMut::Bf16(out) => Out::Bf16(SharedMut::new(out)),
        };
        Work {
            a,
            b,
            n,
            out,
            accumulate,
            finish: finish.into(),
        }
    }
}

/// Computes the product on all threads.
pub(crate) fn multiply(amx: Amx, work: Work) {
    let (row_blocks, col_blocks) = (work.a.rows.div_ceil(BLOCK), work.n.div_ceil(BLOCK));
    let steps = work.b.steps;
    // As many columns as stay in the second-level cache for the whole sum, so that rows pass one after the other; where those are too few
    // to make up for reading the left operand, a group of rows passes with each span, and columns and rows share the cache.
    let fitting = |steps: usize| SWEPT / (steps * STEP_VALUES * 2).max(1);
    let grouped = fitting(steps) < WIDE.min(col_blocks);
    let mut columns = if grouped { WIDE } else { fitting(steps) }.clamp(1, col_blocks);
    // As many pieces as threads at least, cut by columns as long as that goes evenly, else by rows too.
    let threads = crate::threads::count();
    let mut across = col_blocks.div_ceil(columns);
    if across > 1 || row_blocks < threads {
        across = across.next_multiple_of(threads).min(col_blocks);
    }
    columns = col_blocks.div_ceil(across);
    let across = col_blocks.div_ceil(columns);
    let down = row_blocks
        .div_ceil(TALL)
        .max((2 * threads).div_ceil(across))
        .min(row_blocks);
    let rows = row_blocks.div_ceil(down);
    let down = row_blocks.div_ceil(rows);
    let group = if grouped {
        (WAITING / columns).clamp(1, rows)
    } else {
        1
    };
    let cost = rows * columns * (steps * 400 + 500);
    for_each(down * across, cost, |index| {
        // Neighbours share their columns, so that a thread finds its part of `b` in its cache.
        let (i0, j0) = (index % down * rows, index / down * columns);
        let piece = Piece {
            rows: i0..(i0 + rows).min(row_blocks),
            columns: j0..(j0 + columns).min(col_blocks),
            group,
            spans: steps.div_ceil(if grouped { SPAN } else { LONGEST }).max(1),
        };
        // SAFETY: the token says that the processor has the features.
        amx.with_tiles(|| unsafe { compute(work, piece) });
    });
}

/// Blocks of the result that a piece of work computes.
struct Piece {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Rows of blocks that pass with each span.
    group: usize,
    /// Spans of the sum.
    spans: usize,
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn compute(work: Work, piece: Piece) {
    let steps = work.b.steps;
    let mut left = LeftRows::new(work.a, steps.div_ceil(piece.spans));
    let width = piece.columns.len();
    let slots = if steps > CHUNK {
        piece.group * width
    } else {
        0
    };
    // Sums that wait for their next chunk, a block after the other.
    let mut partial = scratch(slots * BLOCK * BLOCK);
    let partial = partial.as_mut_ptr();
    let mut finished = Sums([0.0; BLOCK * BLOCK]);
    // The block whose sums are stored but not finished.
    let mut waiting: Option<Place> = None;
    for group in piece.rows.clone().step_by(piece.group) {
        let rows = group..(group + piece.group).min(piece.rows.end);
        for span in cut(0..steps, piece.spans) {
            for block in rows.clone() {
                let i = block * BLOCK;
                let count = BLOCK.min(work.a.rows - i);
                // Of up to 16 rows the lower tiles would hold zeros only.
                let lower = count > 16;
                // SAFETY: the features are there.
                let operand = unsafe { left.rows(i, count, span.clone()) };
                let next = (block + 1 < rows.end).then_some(i + BLOCK);
                let chunks = span.len().div_ceil(CHUNK).max(1);
                for (turn, chunk) in cut(span.clone(), chunks).enumerate() {
                    let operand = operand.skip(chunk.start - span.start);
                    for (slot, column) in piece.columns.clone().enumerate() {
                        let share = turn * width + slot;
                        let right = work.b.values[column * steps * STEP_VALUES..]
                            .as_ptr()
                            .cast();
                        let right = right_from_step(right, chunk.start);
                        debug_assert!((column + 1) * steps * STEP_VALUES <= work.b.values.len());
                        let slot = (block - group) * width + slot;
                        debug_assert!(slot < slots || (chunk.start, chunk.end) == (0, steps));
                        let sums = partial.wrapping_add(slot * BLOCK * BLOCK);
                        let whole = chunk.end == steps;
                        // SAFETY: the left operand has the steps of this chunk, of one or two tiles, the right one of two tiles; the slot is
                        // one of `slots`, filled by the chunk before; the block before is this piece's, and finished before its sums are overwritten.
                        unsafe {
                            if chunk.start == 0 {
                                clear_tiles();
                            } else {
                                load_tiles(sums, SUMS_ROW, lower);
                            }
                            let to = if whole { finished.0.as_mut_ptr() } else { sums };
                            // Without a step all sums are the zeros that they began with.
                            let last = chunk.len().saturating_sub(1);
                            let mut running =
                                (!chunk.is_empty()).then(|| Running::start(operand, right, lower));
                            // The tile unit works on its own, so the finishing of the block before goes in between its instructions.
                            let before = waiting.take();
                            for part in 0..PARTS {
                                if let Some(running) = &mut running {
                                    let to = last * (part + 1) / PARTS;
                                    running.advance(to - last * part / PARTS);
                                }
                                if let Some(place) = &before {
                                    finish(work, place, &finished, part);
                                }
                                if whole && column + 1 < piece.columns.end {
                                    ask_for_place(work, i, count, (column + 1) * BLOCK, part);
                                }
                                if let (Some(i), true) = (next, part == PARTS / 2) {
                                    left.prepare(i, &span, share, chunks * width);
                                }
                            }
                            if let Some(running) = running {
                                running.finish(to, SUMS_ROW);
                            }
                        }
                        if whole {
                            waiting = Some(Place {
                                i,
                                count,
                                j: column * BLOCK,
                                cols: BLOCK.min(work.n - column * BLOCK),
                            });
                        }
                    }
                }
            }
        }
    }
    if let Some(place) = &waiting {
        for part in 0..PARTS {
            // SAFETY: the features are there, and the block is this piece's.
            unsafe { finish(work, place, &finished, part) };
        }
    }
}

/// Asks for the lines that a part of a block of the result will be written to, a block ahead: rows lie on as many pages, which the
/// processor does not follow by itself.
#[inline(always)]
fn ask_for_place(work: Work, i: usize, count: usize, j: usize, part: usize) {
    for r in part * (BLOCK / PARTS)..((part + 1) * (BLOCK / PARTS)).min(count) {
        let at = (i + r) * work.n + j;
        // SAFETY: the row and the first column are the result's; what may lie behind it is asked for, not touched.
        unsafe {
            match work.out {
                Out::F32(out) => {
                    prefetch(out.at(at), Nearness::Second);
                    prefetch(out.at(at).wrapping_add(16), Nearness::Second);
                }
                Out::Bf16(out) => prefetch(out.at(at), Nearness::Second),
            }
        }
    }
}

/// Cuts a range into so many parts of about the same length.
fn cut(range: Range<usize>, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let at = move |part| range.start + range.len() * part / parts;
    (0..parts).map(move |part| at(part)..at(part + 1))
}

/// Parts in which a block is finished: each is 4 rows.
const PARTS: usize = 8;

/// Finishes one part of a block.
///
/// # Safety
/// The processor has the features, and this block of the result belongs to the caller alone.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn finish(work: Work, place: &Place, sums: &Sums, part: usize) {
    let Some(s) = Avx512::new() else { return };
    let (j, cols) = (place.j, place.cols);
    debug_assert!(place.i + place.count <= work.a.rows && j + cols <= work.n && cols <= BLOCK);
    let rows = part * (BLOCK / PARTS)..((part + 1) * (BLOCK / PARTS)).min(place.count);
    let part = Part {
        work,
        place,
        sums,
        rows,
    };
    match work.finish {
        SharedFinish::Activate {
            bias,
            activation,
            input,
        } => {
            let mut shift = [0.0_f32; BLOCK];
            if let Some(bias) = bias {
                shift[..cols].copy_from_slice(&bias[j..j + cols]);
            }
            // SAFETY: an array of two vectors.
            let shift = unsafe { [s.load(shift.as_ptr()), s.load(shift[16..].as_ptr())] };
            with_constant!(activation, K => {
                part.each(s, #[inline(always)] |at, c| {
                    let c = [s.add(c[0], shift[0]), s.add(c[1], shift[1])];
                    if let Some(input) = input {
                        // SAFETY: as long as the result, and this block of it belongs to the caller.
                        unsafe { store_bf16(input.at(at), cols, c) };
                    }
                    [activate::value(s, K, c[0]), activate::value(s, K, c[1])]
                })
            });
        }
        SharedFinish::Derivative { activation, input } => {
            with_constant!(activation, K => {
                part.each(s, #[inline(always)] |at, c| {
                    debug_assert!(at + cols <= input.len());
                    // SAFETY: as long as the result.
                    let h = unsafe { load_bf16(input.as_ptr().add(at), cols) };
                    [s.mul(c[0], activate::derivative(s, K, h[0])), s.mul(c[1], activate::derivative(s, K, h[1]))]
                })
            });
        }
        SharedFinish::Add { residual } => part.each(
            s,
            #[inline(always)]
            |at, c| {
                debug_assert!(at + cols <= residual.len());
                // SAFETY: as long as the result.
                let r = unsafe { load_bf16(residual.as_ptr().add(at), cols) };
                [s.add(c[0], r[0]), s.add(c[1], r[1])]
            },
        ),
    }
}

/// A block of the result.
#[derive(Clone, Copy)]
struct Place {
    /// The first row.
    i: usize,
    /// Rows.
    count: usize,
    /// The first column.
    j: usize,
    /// Columns.
    cols: usize,
}

/// Some rows of a block.
struct Part<'a> {
    work: Work<'a>,
    place: &'a Place,
    sums: &'a Sums,
    rows: Range<usize>,
}

impl Part<'_> {
    /// Stores `f(offset, sums)` for each row.
    #[inline(always)]
    fn each(self, s: Avx512, f: impl Fn(usize, [__m512; 2]) -> [__m512; 2]) {
        let Part {
            work,
            place,
            sums,
            rows,
        } = self;
        for r in rows {
            let from = r * BLOCK;
            let at = (place.i + r) * work.n + place.j;
            // SAFETY: the sums are 32 rows of 32; row `i + r` of the result has `cols` elements from column `j` on.
            unsafe {
                let mut c = [
                    s.load(sums.0.as_ptr().add(from)),
                    s.load(sums.0.as_ptr().add(from + 16)),
                ];
                match work.out {
                    Out::F32(out) => {
                        let (to, left) = (out.at(at), place.cols.min(16));
                        let right = place.cols - left;
                        if work.accumulate {
                            c[0] = s.add(c[0], s.load_part(to, left));
                            c[1] = s.add(c[1], s.load_part(to.wrapping_add(16), right));
                        }
                        let c = f(at, c);
                        s.store_part(to, left, c[0]);
                        s.store_part(to.wrapping_add(16), right, c[1]);
                    }
                    Out::Bf16(out) => store_bf16(out.at(at), place.cols, f(at, c)),
                }
            }
        }
    }
}
