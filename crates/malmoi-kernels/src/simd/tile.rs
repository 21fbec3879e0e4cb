//! The innermost product: a tile of `c` stays in registers while columns of `a` meet rows of `b`.

use super::{Nearness, Simd, prefetch};

/// Floats of `b` between those in use and those asked for: ten rows of a panel, which the second-level cache takes about as long to
/// answer.
const AHEAD: usize = 320;

/// How the rows of `a` lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Element (i, p) at `i + p * a_step`: the rows of one column are neighbours.
    Columns,
    /// Element (i, p) at `i * NR + p * a_step`: rows lie as far apart as a tile is wide.
    Rows,
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
    pub(crate) a: *const f32,
    /// See [`Layout`].
    pub(crate) a_layout: Layout,
    /// Floats from one column of `a` to the next.
    pub(crate) a_step: usize,
    /// The rows of `b`.
    pub(crate) b: *const f32,
    /// Floats from one row of `b` to the next.
    pub(crate) b_step: usize,
    /// The rows of `c`.
    pub(crate) c: *mut f32,
    /// Floats from one row of `c` to the next.
    pub(crate) c_step: usize,
    /// Whether to add to what `c` holds.
    pub(crate) accumulate: bool,
    /// Memory that is asked for meanwhile, because it is needed next (a hint: any address will do).
    pub(crate) ahead: *const f32,
    /// Floats of it a product; 0 to ask for nothing new.
    pub(crate) ahead_step: usize,
}

/// Runs a tile of exactly `ROWS` rows.
///
/// # Safety
/// See [`Tile`].
#[inline(always)]
pub(super) unsafe fn run<S: Simd, const ROWS: usize>(s: S, t: Tile) {
    // The row distance is a constant in each branch, so that addresses need no arithmetic.
    // SAFETY: promised by the caller.
    unsafe {
        match t.a_layout {
            Layout::Columns => multiply::<S, ROWS>(s, t, 1),
            Layout::Rows => multiply::<S, ROWS>(s, t, S::NR),
        }
    }
}

#[inline(always)]
unsafe fn multiply<S: Simd, const ROWS: usize>(s: S, t: Tile, a_row: usize) {
    debug_assert!(
        t.k == 0 || !(t.a.is_null() || t.b.is_null()),
        "operands of {} products",
        t.k
    );
    debug_assert!(
        !t.c.is_null() && (ROWS < 2 || t.c_step >= S::NR),
        "rows of the result lie over each other"
    );
    let mut acc = [[s.zero(); 2]; ROWS];
    let (mut a, mut b, mut ahead) = (t.a, t.b, t.ahead);
    // The results' place, so that it is there when they are.
    for i in 0..ROWS {
        let c = t.c.wrapping_add(i * t.c_step);
        prefetch(c, Nearness::First);
        prefetch(c.wrapping_add(S::LANES), Nearness::First);
    }
    for _ in 0..t.k {
        // SAFETY: the caller promises readable `a` and `b`; the pointers may end one step behind, unread.
        unsafe {
            let b0 = s.load(b);
            let b1 = s.load(b.add(S::LANES));
            prefetch(b.wrapping_add(AHEAD), Nearness::First);
            prefetch(b.wrapping_add(AHEAD + S::LANES), Nearness::First);
            prefetch(ahead, Nearness::Second);
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = s.splat(*a.add(i * a_row));
                acc[0] = s.fma(x, b0, acc[0]);
                acc[1] = s.fma(x, b1, acc[1]);
            }
            a = a.wrapping_add(t.a_step);
            b = b.wrapping_add(t.b_step);
            ahead = ahead.wrapping_add(t.ahead_step);
        }
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
