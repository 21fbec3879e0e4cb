//! The product in blocks of 32 x 32 on tiles.
//!
//! The right operand lies packed: blocks of 32 columns, each a run of steps of 32 rows, each two tiles. The left operand is
//! read where it lies when it is bf16 in rows of whole tiles; else 32 rows at a time are packed. A block of the result is
//! summed in four tiles, stored once to the first-level cache, and finished there: bias, activation, rounding. A piece of work
//! is a run of rows against as many columns as keep the packed operand in the second-level cache.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Amx, BLOCK, STEP, STEP_VALUES, pack};
use crate::activation::{Activation, derivative_on, value_on, with_constant};
use crate::mixed::{Finish, Matrix, Values, ValuesMut, bf16};
use crate::scratch::{Scratch, scratch};
use crate::simd::{Avx512, Simd};
use crate::threads::{SharedMut, for_each};

/// Bytes of the packed right operand that a piece of work sweeps: about half of a second-level cache.
const SWEPT: usize = 1 << 20;
/// Pieces that a product is cut into at least, when it is large enough.
const PIECES: usize = 8;

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
    let steps = b.rows.div_ceil(STEP);
    for_each(b.cols.div_ceil(BLOCK), steps * 600, |block| {
        for step in 0..steps {
            // SAFETY: the token says that the processor has the features; each step has its own room of two tiles.
            unsafe {
                let to = to.at((block * steps + step) * STEP_VALUES);
                pack::right(b, step * STEP, block * BLOCK, to);
            }
        }
    });
}

/// A product to be computed: `c = finish(a · b)` or `finish(c + a · b)`.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    a: Matrix<'a>,
    b: Panels<'a>,
    n: usize,
    out: Out,
    accumulate: bool,
    finish: Step<'a>,
}

/// Where the result goes.
#[derive(Clone, Copy)]
enum Out {
    F32(SharedMut),
    Bf16(SharedMut<bf16>),
}

/// [`Finish`] for several threads.
#[derive(Clone, Copy)]
enum Step<'a> {
    Activate {
        bias: Option<&'a [f32]>,
        activation: Activation,
        input: Option<SharedMut<bf16>>,
    },
    Derivative {
        activation: Activation,
        input: &'a [bf16],
    },
    Add {
        residual: &'a [bf16],
    },
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
        let finish = match finish {
            Finish::Activate {
                bias,
                activation,
                input,
            } => Step::Activate {
                bias,
                activation,
                input: input.map(SharedMut::new),
            },
            Finish::Derivative { activation, input } => Step::Derivative { activation, input },
            Finish::Add { residual } => Step::Add { residual },
        };
        Work {
            a,
            b,
            n,
            out,
            accumulate,
            finish,
        }
    }
}

/// Computes the product on all threads.
pub(crate) fn multiply(amx: Amx, work: Work) {
    let (row_blocks, col_blocks) = (work.a.rows.div_ceil(BLOCK), work.n.div_ceil(BLOCK));
    let panel = work.b.steps * STEP_VALUES * 2;
    // Columns first: as many as stay in the second-level cache; then rows, so that there are pieces enough.
    let mut columns = (SWEPT / panel.max(1)).clamp(1, col_blocks);
    while columns > 1 && col_blocks.div_ceil(columns) * row_blocks < PIECES {
        columns = columns.div_ceil(2);
    }
    let across = col_blocks.div_ceil(columns);
    let columns = col_blocks.div_ceil(across);
    let down = PIECES.div_ceil(across).min(row_blocks);
    let rows = row_blocks.div_ceil(down);
    let down = row_blocks.div_ceil(rows);
    let cost = rows * columns * (work.b.steps * 400 + 500);
    for_each(down * across, cost, |index| {
        // Neighbours share their columns, so that a thread finds its part of `b` in its cache.
        let (i0, j0) = (index % down * rows, index / down * columns);
        let piece = Piece {
            rows: i0..(i0 + rows).min(row_blocks),
            columns: j0..(j0 + columns).min(col_blocks),
        };
        // SAFETY: the token says that the processor has the features.
        amx.with_tiles(|| unsafe { compute(work, piece) });
    });
}

/// Blocks of the result that a piece of work computes.
struct Piece {
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

/// Sums of one block: four tiles of 16 x 16, left before right, upper before lower.
#[repr(C, align(64))]
struct Sums([f32; BLOCK * BLOCK]);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn compute(work: Work, piece: Piece) {
    let a = work.a;
    let steps = work.b.steps;
    // Tiles can be read where they lie when no part of one is missing.
    let in_place = match a.values {
        Values::Bf16(values) if a.col_stride == 1 && a.cols.is_multiple_of(STEP) => Some(values),
        _ => None,
    };
    let mut buffer: Option<Scratch> = None;
    let (mut even_sums, mut odd_sums) = (Sums([0.0; BLOCK * BLOCK]), Sums([0.0; BLOCK * BLOCK]));
    let mut odd = false;
    // The block whose sums are stored but not finished.
    let mut waiting: Option<Place> = None;
    for block in piece.rows {
        let i = block * BLOCK;
        let count = BLOCK.min(a.rows - i);
        // Of up to 16 rows the lower tiles would hold zeros only.
        let lower = count > 16;
        let left = match in_place {
            Some(values) if count == 32 || count == 16 => Left {
                at: values[i * a.row_stride..].as_ptr().cast(),
                row: a.row_stride * 2,
                lower: 16 * a.row_stride * 2,
                step: STEP * 2,
            },
            _ => {
                // Half a page off: blocks of the right operand start on page boundaries and would claim the same sets.
                let buffer = buffer.get_or_insert_with(|| scratch(steps * STEP_VALUES / 2 + 512));
                let to: *mut u16 = buffer[512..].as_mut_ptr().cast();
                for step in 0..steps {
                    // SAFETY: the features are there, and the buffer has room for all steps.
                    unsafe { pack::left(a, i, step * STEP, to.add(step * STEP_VALUES)) };
                }
                Left {
                    at: to.cast(),
                    row: 64,
                    lower: 1024,
                    step: 2048,
                }
            }
        };
        for column in piece.columns.clone() {
            let right = work.b.values[column * steps * STEP_VALUES..]
                .as_ptr()
                .cast();
            let (sums, before) = if odd {
                (&mut even_sums, &odd_sums)
            } else {
                (&mut odd_sums, &even_sums)
            };
            // The tile unit works on its own, so the finishing of the block before goes in between its instructions.
            // SAFETY: the left operand has `steps` steps of one or two tiles, the right one of two tiles; the block before is
            // this piece's.
            unsafe {
                clear_tiles();
                for part in 0..PARTS {
                    let (first, end) = (steps * part / PARTS, steps * (part + 1) / PARTS);
                    add_steps(
                        left.skip(first),
                        right_from_step(right, first),
                        end - first,
                        lower,
                    );
                    if let Some(place) = &waiting {
                        finish(work, place, before, part);
                    }
                }
                store_tiles(sums, lower);
            }
            waiting = Some(Place {
                i,
                count,
                j: column * BLOCK,
                cols: BLOCK.min(work.n - column * BLOCK),
            });
            odd = !odd;
        }
    }
    if let Some(place) = &waiting {
        let last = if odd { &odd_sums } else { &even_sums };
        for part in 0..PARTS {
            // SAFETY: the features are there, and the block is this piece's.
            unsafe { finish(work, place, last, part) };
        }
    }
}

/// Parts in which a block is finished: each is 4 rows.
const PARTS: usize = 8;

fn right_from_step(right: *const u8, step: usize) -> *const u8 {
    right.wrapping_add(step * STEP_VALUES * 2)
}

/// Where the left operand's tiles are: distances in bytes.
#[derive(Clone, Copy)]
struct Left {
    at: *const u8,
    /// From one row to the next.
    row: usize,
    /// From the upper to the lower tile.
    lower: usize,
    /// From one step to the next.
    step: usize,
}

impl Left {
    fn skip(self, step: usize) -> Left {
        Left {
            at: self.at.wrapping_add(step * self.step),
            ..self
        }
    }
}

/// Sets the four tiles of sums to zero.
///
/// # Safety
/// Tiles are configured.
#[inline(always)]
unsafe fn clear_tiles() {
    // SAFETY: promised by the caller. The compiler uses no tiles, so they keep their contents from one statement to the next.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem)
        );
    }
}

/// Adds `steps` steps to the sums: 32 x 32, or 16 x 32 without the lower tiles.
///
/// # Safety
/// Tiles are configured; both operands hold `steps` steps.
#[inline(always)]
unsafe fn add_steps(left: Left, right: *const u8, steps: usize, lower: bool) {
    if steps == 0 {
        return;
    }
    // SAFETY: promised by the caller.
    unsafe {
        if lower {
            asm!(
                "2:",
                "tileloadd tmm4, [{a} + {row}*1]",
                "tileloadd tmm6, [{b} + {s}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {s}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a2} + {row}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, {step}",
                "add {a2}, {step}",
                "add {b}, 2048",
                "dec {k}",
                "jnz 2b",
                a = inout(reg) left.at => _,
                a2 = inout(reg) left.at.add(left.lower) => _,
                row = in(reg) left.row,
                step = in(reg) left.step,
                b = inout(reg) right => _,
                k = inout(reg) steps => _,
                s = in(reg) 64_usize,
                options(nostack, readonly)
            );
        } else {
            asm!(
                "2:",
                "tileloadd tmm4, [{a} + {row}*1]",
                "tileloadd tmm6, [{b} + {s}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {s}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, {step}",
                "add {b}, 2048",
                "dec {k}",
                "jnz 2b",
                a = inout(reg) left.at => _,
                row = in(reg) left.row,
                step = in(reg) left.step,
                b = inout(reg) right => _,
                k = inout(reg) steps => _,
                s = in(reg) 64_usize,
                options(nostack, readonly)
            );
        }
    }
}

/// Stores the sums.
///
/// # Safety
/// Tiles are configured.
#[inline(always)]
unsafe fn store_tiles(sums: &mut Sums, lower: bool) {
    let to = sums.0.as_mut_ptr();
    // SAFETY: promised by the caller; the tiles fill `sums`.
    unsafe {
        asm!(
            "tilestored [{c} + {s}*1], tmm0",
            "tilestored [{c} + {s}*1 + 1024], tmm1",
            s = in(reg) 64_usize,
            c = in(reg) to,
            options(nostack)
        );
        if lower {
            asm!(
                "tilestored [{c} + {s}*1 + 2048], tmm2",
                "tilestored [{c} + {s}*1 + 3072], tmm3",
                s = in(reg) 64_usize,
                c = in(reg) to,
                options(nostack)
            );
        }
    }
}

/// Finishes one part of a block.
///
/// # Safety
/// The processor has the features, and this block of the result belongs to the caller alone.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn finish(work: Work, place: &Place, sums: &Sums, part: usize) {
    let Some(s) = Avx512::new() else { return };
    let (j, cols) = (place.j, place.cols);
    let rows = part * (BLOCK / PARTS)..((part + 1) * (BLOCK / PARTS)).min(place.count);
    let part = Part {
        work,
        place,
        sums,
        rows,
    };
    match work.finish {
        Step::Activate {
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
                    [value_on(s, K, c[0]), value_on(s, K, c[1])]
                })
            });
        }
        Step::Derivative { activation, input } => {
            with_constant!(activation, K => {
                part.each(s, #[inline(always)] |at, c| {
                    // SAFETY: as long as the result.
                    let h = unsafe { load_bf16(input.as_ptr().add(at), cols) };
                    [s.mul(c[0], derivative_on(s, K, h[0])), s.mul(c[1], derivative_on(s, K, h[1]))]
                })
            });
        }
        Step::Add { residual } => part.each(
            s,
            #[inline(always)]
            |at, c| {
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
    rows: std::ops::Range<usize>,
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
            let from = r / 16 * 512 + r % 16 * 16;
            let at = (place.i + r) * work.n + place.j;
            // SAFETY: the sums are four tiles; row `i + r` of the result has `cols` elements from column `j` on.
            unsafe {
                let mut c = [
                    s.load(sums.0.as_ptr().add(from)),
                    s.load(sums.0.as_ptr().add(from + 256)),
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

/// # Safety
/// The processor has the features, and `cols` values can be written at `to`.
#[inline(always)]
unsafe fn store_bf16(to: *mut bf16, cols: usize, c: [__m512; 2]) {
    // SAFETY: promised by the caller; masked lanes are not written.
    unsafe {
        let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(c[1], c[0]));
        if cols == BLOCK {
            _mm512_storeu_si512(to.cast(), both);
        } else {
            _mm512_mask_storeu_epi16(to.cast(), (1 << cols) - 1, both);
        }
    }
}

/// # Safety
/// The processor has the features, and `cols` values can be read at `from`.
#[inline(always)]
unsafe fn load_bf16(from: *const bf16, cols: usize) -> [__m512; 2] {
    // SAFETY: promised by the caller; masked lanes are not read.
    unsafe {
        let mask = if cols == BLOCK {
            u32::MAX
        } else {
            (1 << cols) - 1
        };
        let both = _mm512_maskz_loadu_epi16(mask, from.cast());
        let widen =
            |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
        [
            widen(_mm512_castsi512_si256(both)),
            widen(_mm512_extracti64x4_epi64::<1>(both)),
        ]
    }
}
