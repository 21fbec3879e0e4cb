//! The tile instructions and what goes in and out of them, for products and attention.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::{BLOCK, STEP, STEP_VALUES, pack};
use crate::mixed::{Matrix, Values, bf16};
use crate::scratch::{Scratch, scratch};

/// Sums of one block: rows of 32.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [f32; BLOCK * BLOCK]);

/// Bytes from one row of [`Sums`] to the next.
pub(super) const SUMS_ROW: usize = BLOCK * 4;

/// Brings 32 rows of the left operand to the tiles, a chunk at a time.
pub(super) struct LeftRows<'a> {
    a: Matrix<'a>,
    /// The values, when tiles can be read where they lie.
    in_place: Option<&'a [bf16]>,
    buffer: Scratch,
}

/// Values before the packed rows in their buffer: half a page, because runs of the right operand start on page boundaries and would
/// claim the same sets of the cache.
const OFFSET: usize = 1024;

impl<'a> LeftRows<'a> {
    /// For chunks of up to `steps` steps of `a`.
    pub(super) fn new(a: Matrix<'a>, steps: usize) -> LeftRows<'a> {
        let in_place = match a.values {
            // No part of a tile may be missing.
            Values::Bf16(values)
                if a.col_stride == 1
                    && a.cols.is_multiple_of(STEP)
                    && spread(values.as_ptr() as usize, a.row_stride * 2) =>
            {
                Some(values)
            }
            _ => None,
        };
        LeftRows {
            a,
            in_place,
            buffer: scratch((steps * STEP_VALUES + OFFSET) / 2),
        }
    }

    /// Rows `i .. i + count` of the steps in `chunk`.
    ///
    /// # Safety
    /// The processor has the features.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    pub(super) unsafe fn chunk(&mut self, i: usize, count: usize, chunk: Range<usize>) -> Left {
        let a = self.a;
        if let (Some(values), 16 | 32) = (self.in_place, count) {
            return Left {
                at: values[i * a.row_stride + chunk.start * STEP..]
                    .as_ptr()
                    .cast(),
                row: a.row_stride * 2,
                lower: 16 * a.row_stride * 2,
                step: STEP * 2,
            };
        }
        let to: *mut u16 = self.buffer[OFFSET / 2..].as_mut_ptr().cast();
        for (place, step) in chunk.enumerate() {
            // SAFETY: the features are there, and the buffer has room for all steps of a chunk.
            unsafe { pack::left(a, i, step * STEP, to.add(place * STEP_VALUES)) };
        }
        Left {
            at: to.cast_const().cast(),
            row: 64,
            lower: 1024,
            step: 2048,
        }
    }
}

/// Whether rows at this address and so many bytes apart can be read in place: tile rows that are whole cache lines, and 32 of them that
/// don't crowd into a few sets of the first-level cache (64 sets; a set holds 12 lines, of which the right operand wants some).
fn spread(address: usize, row: usize) -> bool {
    let lines = row / 64;
    address.is_multiple_of(64) && row.is_multiple_of(64) && 1 << lines.trailing_zeros().min(6) <= 16
}

/// The right operand from a step on.
pub(super) fn right_from_step(right: *const u8, step: usize) -> *const u8 {
    right.wrapping_add(step * STEP_VALUES * 2)
}

/// Where the left operand's tiles are: distances in bytes.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub(super) at: *const u8,
    /// From one row to the next.
    pub(super) row: usize,
    /// From the upper to the lower tile.
    pub(super) lower: usize,
    /// From one step to the next.
    pub(super) step: usize,
}

impl Left {
    pub(super) fn skip(self, step: usize) -> Left {
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
pub(super) unsafe fn clear_tiles() {
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
pub(super) unsafe fn add_steps(left: Left, right: *const u8, steps: usize, lower: bool) {
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

/// Brings sums back into the tiles: rows `row` bytes apart.
///
/// # Safety
/// Tiles are configured; `sums` points to those of a block.
#[inline(always)]
pub(super) unsafe fn load_tiles(sums: *const f32, row: usize, lower: bool) {
    // SAFETY: promised by the caller.
    unsafe {
        asm!(
            "tileloadd tmm0, [{c} + {s}*1]",
            "tileloadd tmm1, [{c} + {s}*1 + 64]",
            s = in(reg) row,
            c = in(reg) sums,
            options(nostack, readonly)
        );
        if lower {
            asm!(
                "tileloadd tmm2, [{c} + {s}*1]",
                "tileloadd tmm3, [{c} + {s}*1 + 64]",
                s = in(reg) row,
                c = in(reg) sums.byte_add(16 * row),
                options(nostack, readonly)
            );
        } else {
            asm!("tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        }
    }
}

/// Stores the sums as rows `row` bytes apart.
///
/// # Safety
/// Tiles are configured; `to` has room for those of a block.
#[inline(always)]
pub(super) unsafe fn store_tiles(to: *mut f32, row: usize, lower: bool) {
    // SAFETY: promised by the caller.
    unsafe {
        asm!(
            "tilestored [{c} + {s}*1], tmm0",
            "tilestored [{c} + {s}*1 + 64], tmm1",
            s = in(reg) row,
            c = in(reg) to,
            options(nostack)
        );
        if lower {
            asm!(
                "tilestored [{c} + {s}*1], tmm2",
                "tilestored [{c} + {s}*1 + 64], tmm3",
                s = in(reg) row,
                c = in(reg) to.byte_add(16 * row),
                options(nostack)
            );
        }
    }
}

/// # Safety
/// The processor has the features, and `cols` values can be written at `to`.
#[inline(always)]
pub(super) unsafe fn store_bf16(to: *mut bf16, cols: usize, c: [__m512; 2]) {
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
pub(super) unsafe fn load_bf16(from: *const bf16, cols: usize) -> [__m512; 2] {
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
