//! The innermost product: a tile of `c` stays in registers while columns of `a` meet rows of `b`.
//!
//! On a core that shares its front end with a neighbour, as virtual machines do, the loop is bound by the number of its
//! instructions and not by its multiply-adds, so it holds little else: distances are constants wherever they can be, several
//! products share one turn ([`Simd::UNROLL`]), and memory is asked for a whole line at a time.

use super::{Nearness, Simd, prefetch};

/// Floats of `b` between those in use and those asked for: ten rows of a panel, which the second-level cache takes about as long to
/// answer.
const AHEAD: usize = 320;
/// Floats of a cache line.
const LINE: usize = 16;

/// The left operand of a tile: the rows of `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Element (i, p) at `i + p * step`: the rows of one column are neighbours. Packed for a tile, they are as far apart as it has
    /// rows.
    Columns(*const f32, usize),
    /// Element (i, p) at `i * NR + p`: rows lie as far apart as a tile is wide.
    Rows(*const f32),
}

/// `c = a · b` or `c += a · b` for `rows` (at most `MR`) rows, `NR` columns and `k` products an element.
///
/// The caller promises that every element of `a` [rows, k] and `b` [k, NR] can be read and every element of `c` [rows, NR] be
/// written (and read, when accumulating), and that `c` overlaps neither.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    /// Products an element.
    pub(crate) k: usize,
    /// The rows of `a`.
    pub(crate) a: Left,
    /// The rows of `b`, one behind the other.
    pub(crate) b: *const f32,
    /// The rows of `c`.
    pub(crate) c: *mut f32,
    /// Floats from one row of `c` to the next.
    pub(crate) c_step: usize,
    /// Whether to add to what `c` holds.
    pub(crate) accumulate: bool,
    /// Memory that is asked for meanwhile, because it is needed next (a hint: any address will do), where `a` is packed for the tile.
    pub(crate) ahead: *const f32,
    /// Floats of it a product; 0 to ask for nothing.
    pub(crate) ahead_step: usize,
}

/// Runs a tile of exactly `ROWS` rows.
///
/// # Safety
/// See [`Tile`].
#[inline(always)]
pub(super) unsafe fn run<S: Simd, const ROWS: usize>(s: S, t: Tile) {
    // The distances are constants in most branches, so that addresses need no arithmetic.
    // SAFETY: promised by the caller.
    unsafe {
        match t.a {
            Left::Columns(a, step) if step == ROWS => {
                let steps = [1, ROWS];
                if t.ahead_step == 0 {
                    multiply::<S, ROWS, 0>(s, t, a, steps);
                } else if t.ahead_step * S::UNROLL <= LINE {
                    multiply::<S, ROWS, 1>(s, t, a, steps);
                } else {
                    multiply::<S, ROWS, { usize::MAX }>(s, t, a, steps);
                }
            }
            Left::Columns(a, step) if step == S::NR => {
                multiply::<S, ROWS, 0>(s, t, a, [1, S::NR]);
            }
            Left::Columns(a, step) => multiply::<S, ROWS, 0>(s, t, a, [1, step]),
            Left::Rows(a) => multiply::<S, ROWS, 0>(s, t, a, [S::NR, 1]),
        }
    }
}

/// `a_row` and `a_step` lie between the rows of `a` and between its columns. `ASKS`: how many products of a turn ask for
/// memory ahead.
#[inline(always)]
unsafe fn multiply<S: Simd, const ROWS: usize, const ASKS: usize>(
    s: S,
    t: Tile,
    mut a: *const f32,
    [a_row, a_step]: [usize; 2],
) {
    debug_assert!(
        t.k == 0 || !(a.is_null() || t.b.is_null()),
        "operands of {} products",
        t.k
    );
    debug_assert!(
        !t.c.is_null() && (ROWS < 2 || t.c_step >= S::NR),
        "rows of the result lie over each other"
    );
    let mut acc = [[s.zero(); 2]; ROWS];
    let (mut b, mut ahead) = (t.b, t.ahead);
    // The results' place, so that it is there when they are.
    for i in 0..ROWS {
        let c = t.c.wrapping_add(i * t.c_step);
        prefetch(c, Nearness::First);
        if S::NR > LINE {
            prefetch(c.wrapping_add(S::LANES), Nearness::First);
        }
    }
    for _ in 0..t.k / S::UNROLL {
        if ASKS == 1 {
            prefetch(ahead, Nearness::Second);
            ahead = ahead.wrapping_add(S::UNROLL * t.ahead_step);
        }
        for turn in 0..S::UNROLL {
            // SAFETY: the caller promises readable `a` and `b`.
            unsafe {
                product::<S, ROWS>(
                    s,
                    &mut acc,
                    a.add(turn * a_step),
                    a_row,
                    b.add(turn * S::NR),
                );
            }
            if ASKS > 1 {
                prefetch(ahead, Nearness::Second);
                ahead = ahead.wrapping_add(t.ahead_step);
            }
        }
        // The pointers may end one step behind, unread.
        a = a.wrapping_add(S::UNROLL * a_step);
        b = b.wrapping_add(S::UNROLL * S::NR);
    }
    for _ in 0..t.k % S::UNROLL {
        // SAFETY: as above.
        unsafe { product::<S, ROWS>(s, &mut acc, a, a_row, b) };
        a = a.wrapping_add(a_step);
        b = b.wrapping_add(S::NR);
    }
    for (i, acc) in acc.iter().enumerate() {
        // SAFETY: the caller promises writable rows of `c`.
        unsafe {
            let c = t.c.add(i * t.c_step);
            let c1 = c.add(S::LANES);
            if t.accumulate {
                s.store(c, s.add(s.load(c), acc[0]));
                s.store(c1, s.add(s.load(c1), acc[1]));
            } else {
                s.store(c, acc[0]);
                s.store(c1, acc[1]);
            }
        }
    }
}

/// Adds the product of one column of `a` and one row of `b`.
///
/// # Safety
/// Both can be read.
#[inline(always)]
unsafe fn product<S: Simd, const ROWS: usize>(
    s: S,
    acc: &mut [[S::V; 2]; ROWS],
    a: *const f32,
    a_row: usize,
    b: *const f32,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let b0 = s.load(b);
        let b1 = s.load(b.add(S::LANES));
        if S::ASKS_AHEAD {
            prefetch(b.wrapping_add(AHEAD), Nearness::First);
            if S::NR > LINE {
                prefetch(b.wrapping_add(AHEAD + S::LANES), Nearness::First);
            }
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let x = s.splat(*a.add(i * a_row));
            acc[0] = s.fma(x, b0, acc[0]);
            acc[1] = s.fma(x, b1, acc[1]);
        }
    }
}
