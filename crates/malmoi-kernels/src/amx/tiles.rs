//! The tile instructions and what goes in and out of them, for products and attention.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::{BLOCK, STEP, STEP_VALUES, pack};
use crate::mixed::{Matrix, Values, bf16};
use crate::scratch::{Scratch, scratch};
use crate::simd::{Nearness, prefetch};

/// Sums of one block: rows of 32.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [f32; BLOCK * BLOCK]);

/// Bytes from one row of [`Sums`] to the next.
pub(super) const SUMS_ROW: usize = BLOCK * 4;

/// Brings 32 rows of the left operand to the tiles, a span of steps at a time.
pub(super) struct LeftRows<'a> {
    a: Matrix<'a>,
    /// The values, when tiles can be read where they lie.
    in_place: Option<&'a [bf16]>,
    /// Packed rows in use.
    buffer: Scratch,
    /// Room for those that come next, once some are packed ahead.
    next: Option<Scratch>,
    /// The first row of those that were packed ahead, and their steps.
    ahead: Option<(usize, Range<usize>)>,
}

/// Values before the packed rows in their buffer: half a page, because runs of the right operand start on page boundaries and would
/// claim the same sets of the cache.
const OFFSET: usize = 1024;

impl<'a> LeftRows<'a> {
    /// For spans of up to `steps` steps of `a`.
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
            next: None,
            ahead: None,
        }
    }

    /// Rows `i .. i + count` of the steps in `span`, from the first of them on.
    ///
    /// # Safety
    /// The processor has the features.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    pub(super) unsafe fn rows(&mut self, i: usize, count: usize, span: Range<usize>) -> Left {
        let a = self.a;
        debug_assert!(
            count > 0 && i + count <= a.rows && span.end <= a.cols.div_ceil(STEP),
            "{count} rows from {i} of {}, steps {span:?} of {} columns",
            a.rows,
            a.cols
        );
        if let (Some(values), 16 | 32) = (self.in_place, count) {
            debug_assert!((i + count - 1) * a.row_stride + span.end * STEP <= values.len());
            return Left {
                at: values[i * a.row_stride + span.start * STEP..]
                    .as_ptr()
                    .cast(),
                row: a.row_stride * 2,
                lower: 16 * a.row_stride * 2,
                step: STEP * 2,
            };
        }
        match &mut self.next {
            Some(next) if self.ahead.take() == Some((i, span.clone())) => {
                std::mem::swap(&mut self.buffer, next);
            }
            // SAFETY: the features are there.
            _ => unsafe { pack_share(a, i, &span, 0, 1, &mut self.buffer) },
        }
        let packed: *const u16 = self.buffer[OFFSET / 2..].as_ptr().cast();
        Left {
            at: packed.cast(),
            row: 64,
            lower: 1024,
            step: 2048,
        }
    }

    /// Prepares a share of the rows from `i` on, which come next: asks for their lines where they are read in place, packs them
    /// where not. After all the shares the rows are ready.
    ///
    /// # Safety
    /// The processor has the features.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    pub(super) unsafe fn prepare(
        &mut self,
        i: usize,
        span: &Range<usize>,
        share: usize,
        shares: usize,
    ) {
        let count = BLOCK.min(self.a.rows - i);
        if let (Some(values), 16 | 32) = (self.in_place, count) {
            let lines = count * span.len();
            for line in lines * share / shares..lines * (share + 1) / shares {
                let (row, step) = (i + line / span.len(), span.start + line % span.len());
                let at = row * self.a.row_stride + step * STEP;
                prefetch(values.as_ptr().wrapping_add(at), Nearness::Second);
            }
            return;
        }
        let next = self.next.get_or_insert_with(|| scratch(self.buffer.len()));
        // SAFETY: the features are there.
        unsafe { pack_share(self.a, i, span, share, shares, next) };
        if share + 1 == shares {
            self.ahead = Some((i, span.clone()));
        }
    }
}

/// Packs a share of the tiles of the rows from `i` on.
///
/// # Safety
/// The processor has the features, and the buffer has room for the span.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn pack_share(
    a: Matrix,
    i: usize,
    span: &Range<usize>,
    share: usize,
    shares: usize,
    buffer: &mut Scratch,
) {
    let tiles = 2 * span.len();
    debug_assert!(
        share < shares && OFFSET + tiles * STEP_VALUES / 2 <= 2 * buffer.len(),
        "share {share} of {shares}, {} steps in {} values",
        span.len(),
        buffer.len()
    );
    let to: *mut u16 = buffer[OFFSET / 2..].as_mut_ptr().cast();
    let range = tiles * share / shares..tiles * (share + 1) / shares;
    // What the next share turns lies on many pages, which the processor does not follow by itself.
    let ahead = if a.col_stride == 1 {
        0
    } else {
        range.len() + 1
    };
    for tile in range.end..(range.end + ahead).min(tiles) {
        let first = (span.start + tile / 2) * STEP + STEP / 2 * (tile % 2);
        for k in first..(first + STEP / 2).min(a.cols) {
            let at = k * a.col_stride + i * a.row_stride;
            match a.values {
                Values::Bf16(x) => prefetch(x.as_ptr().wrapping_add(at), Nearness::Second),
                Values::F32(x) => {
                    prefetch(x.as_ptr().wrapping_add(at), Nearness::Second);
                    prefetch(x.as_ptr().wrapping_add(at + 16), Nearness::Second);
                }
            }
        }
    }
    for tile in range {
        let (step, half) = (span.start + tile / 2, tile % 2);
        // SAFETY: promised by the caller.
        unsafe {
            pack::left_tile(
                a,
                i + 16 * half,
                step * STEP,
                to.add(tile * STEP_VALUES / 2),
            );
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

/// A block whose sums are being computed: 32 x 32, or 16 x 32 without the lower tiles. The operands of one step are in the tiles
/// when its turn comes, because a processor that shares its core with another thread cannot load a tile that is still in use.
pub(super) struct Running {
    left: Left,
    right: *const u8,
    lower: bool,
}

impl Running {
    /// Loads the operands of the first step.
    ///
    /// # Safety
    /// Tiles are configured; both operands hold a step.
    #[inline(always)]
    pub(super) unsafe fn start(left: Left, right: *const u8, lower: bool) -> Running {
        debug_assert!(left.row >= STEP * 2, "rows of {} bytes", left.row);
        // SAFETY: promised by the caller.
        unsafe {
            asm!(
                "tileloadd tmm4, [{a} + {row}*1]",
                "tileloadd tmm6, [{b} + {s}*1]",
                "tileloadd tmm7, [{b} + {s}*1 + 1024]",
                a = in(reg) left.at,
                row = in(reg) left.row,
                b = in(reg) right,
                s = in(reg) 64_usize,
                options(nostack, readonly)
            );
            if lower {
                asm!(
                    "tileloadd tmm5, [{a} + {row}*1]",
                    a = in(reg) left.at.add(left.lower),
                    row = in(reg) left.row,
                    options(nostack, readonly)
                );
            }
        }
        Running { left, right, lower }
    }

    /// Adds `steps` steps and loads the one that follows.
    ///
    /// # Safety
    /// Tiles are configured; the operands hold `steps` steps after the one that is loaded.
    #[inline(always)]
    pub(super) unsafe fn advance(&mut self, steps: usize) {
        if steps == 0 {
            return;
        }
        let Left {
            at,
            row,
            lower,
            step,
        } = self.left;
        // SAFETY: promised by the caller.
        unsafe {
            if self.lower {
                asm!(
                    "2:",
                    "add {a}, {step}",
                    "add {a2}, {step}",
                    "add {b}, 2048",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm4, [{a} + {row}*1]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tileloadd tmm6, [{b} + {s}*1]",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm5, [{a2} + {row}*1]",
                    "tileloadd tmm7, [{b} + {s}*1 + 1024]",
                    "dec {k}",
                    "jnz 2b",
                    a = inout(reg) at => _,
                    a2 = inout(reg) at.add(lower) => _,
                    row = in(reg) row,
                    step = in(reg) step,
                    b = inout(reg) self.right => _,
                    k = inout(reg) steps => _,
                    s = in(reg) 64_usize,
                    options(nostack, readonly)
                );
            } else {
                asm!(
                    "2:",
                    "add {a}, {step}",
                    "add {b}, 2048",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm4, [{a} + {row}*1]",
                    "tileloadd tmm6, [{b} + {s}*1]",
                    "tileloadd tmm7, [{b} + {s}*1 + 1024]",
                    "dec {k}",
                    "jnz 2b",
                    a = inout(reg) at => _,
                    row = in(reg) row,
                    step = in(reg) step,
                    b = inout(reg) self.right => _,
                    k = inout(reg) steps => _,
                    s = in(reg) 64_usize,
                    options(nostack, readonly)
                );
            }
        }
        self.left = self.left.skip(steps);
        self.right = self.right.wrapping_add(steps * STEP_VALUES * 2);
    }

    /// Adds the step that is loaded, the last one, and stores each tile of sums as soon as it is complete: rows `row` bytes apart.
    ///
    /// # Safety
    /// Tiles are configured; `to` has room for the sums of a block.
    #[inline(always)]
    pub(super) unsafe fn finish(self, to: *mut f32, row: usize) {
        debug_assert!(row >= SUMS_ROW, "rows of {row} bytes");
        // SAFETY: promised by the caller.
        unsafe {
            if self.lower {
                asm!(
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tilestored [{c} + {s}*1], tmm0",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tilestored [{c} + {s}*1 + 64], tmm1",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tilestored [{c2} + {s}*1], tmm2",
                    "tilestored [{c2} + {s}*1 + 64], tmm3",
                    c = in(reg) to,
                    c2 = in(reg) to.byte_add(16 * row),
                    s = in(reg) row,
                    options(nostack)
                );
            } else {
                asm!(
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tilestored [{c} + {s}*1], tmm0",
                    "tilestored [{c} + {s}*1 + 64], tmm1",
                    c = in(reg) to,
                    s = in(reg) row,
                    options(nostack)
                );
            }
        }
    }
}

/// Adds `steps` steps to the sums in the tiles and stores them as rows `row` bytes apart.
///
/// # Safety
/// Tiles are configured; both operands hold `steps` steps; `to` has room for the sums of a block.
#[inline(always)]
pub(super) unsafe fn add_and_store(
    left: Left,
    right: *const u8,
    steps: usize,
    lower: bool,
    to: *mut f32,
    row: usize,
) {
    // SAFETY: promised by the caller.
    unsafe {
        if steps == 0 {
            store_tiles(to, row, lower);
            return;
        }
        let mut running = Running::start(left, right, lower);
        running.advance(steps - 1);
        running.finish(to, row);
    }
}

/// Stores the product of operands with `steps` steps as rows `row` bytes apart.
///
/// # Safety
/// As [`add_and_store`].
#[inline(always)]
pub(super) unsafe fn store_product(
    left: Left,
    right: *const u8,
    steps: usize,
    lower: bool,
    to: *mut f32,
    row: usize,
) {
    // SAFETY: promised by the caller.
    unsafe {
        clear_tiles();
        add_and_store(left, right, steps, lower, to, row);
    }
}

/// Brings sums back into the tiles: rows `row` bytes apart.
///
/// # Safety
/// Tiles are configured; `sums` points to those of a block.
#[inline(always)]
pub(super) unsafe fn load_tiles(sums: *const f32, row: usize, lower: bool) {
    debug_assert!(row >= SUMS_ROW, "rows of {row} bytes");
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
unsafe fn store_tiles(to: *mut f32, row: usize, lower: bool) {
    debug_assert!(row >= SUMS_ROW, "rows of {row} bytes");
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
    debug_assert!(cols <= BLOCK, "{cols} columns");
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
    debug_assert!(cols <= BLOCK, "{cols} columns");
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
