//! Rotary positions (Su et al., 2021, "RoFormer"): pairs of elements of a head are turned by an angle that grows with the position,
//! so that the product of a query and a key depends on how far apart they stand.

use crate::simd::{Simd, dispatched, read, vectors, write};
use crate::threads::{SharedMut, for_each};

#[cfg(test)]
mod tests;

/// Which elements of a head turn together. Elements behind the first `d_rotary` stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairs {
    /// Element `i` with `i + d_rotary / 2` (GPT-NeoX, LLaMA).
    Halves,
    /// Element `2i` with `2i + 1` (RoFormer, GPT-J).
    Neighbours,
}

/// Which way to turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The forward pass.
    Forward,
    /// The backward pass: the gradient turns back.
    Back,
}

/// A rotation of every head of every row.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// Position of each row `[n]`.
    pub positions: &'a [u32],
    /// Cosines of each position's angles [positions, d_rotary / 2].
    pub cos: &'a [f32],
    /// Sines of each position's angles [positions, d_rotary / 2].
    pub sin: &'a [f32],
    /// Elements of a head that turn; even, at most `d_head`.
    pub d_rotary: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Which elements turn together.
    pub pairs: Pairs,
}

/// Rows in a piece of work.
const ROWS: usize = 32;

/// `y = x` with its heads turned: `x` and `y` are [n, heads · d_head].
///
/// # Panics
/// When lengths disagree or a position has no angles.
pub fn rotary(shape: &Rotary, turn: Turn, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "rotary: x and y have the same length");
    assert_eq!(
        shape.cos.len(),
        shape.sin.len(),
        "rotary: as many sines as cosines"
    );
    assert!(
        shape.d_rotary.is_multiple_of(2) && shape.d_rotary <= shape.d_head,
        "rotary: {} of {} elements cannot turn in pairs",
        shape.d_rotary,
        shape.d_head
    );
    let n = shape.positions.len();
    if n == 0 {
        assert!(x.is_empty(), "rotary: one position a row");
        return;
    }
    let width = x.len() / n;
    assert!(
        width * n == x.len() && shape.d_head > 0 && width.is_multiple_of(shape.d_head),
        "rotary: {} elements are not {n} rows of heads of {}",
        x.len(),
        shape.d_head
    );
    let largest = shape.positions.iter().max().map_or(0, |&p| p as usize);
    assert!(
        shape.cos.len() >= (largest + 1) * (shape.d_rotary / 2),
        "rotary: position {largest} has no angles"
    );
    let out = SharedMut::new(y);
    for_each(n.div_ceil(ROWS), ROWS * width / 2, |index| {
        let rows = index * ROWS..((index + 1) * ROWS).min(n);
        // SAFETY: every piece has its own rows.
        let y = unsafe { out.slice(rows.start * width, rows.len() * width) };
        let x = &x[rows.start * width..rows.end * width];
        turn_rows(shape, turn, rows.start, x, y);
    });
}

dispatched!(fn turn_rows = turn_rows_on(shape: &Rotary, turn: Turn, first: usize, x: &[f32], y: &mut [f32]));

#[inline(always)]
fn turn_rows_on<S: Simd>(s: S, shape: &Rotary, turn: Turn, first: usize, x: &[f32], y: &mut [f32]) {
    let (half, d) = (shape.d_rotary / 2, shape.d_head);
    let sign = match turn {
        Turn::Forward => 1.0,
        Turn::Back => -1.0,
    };
    let rows = shape.positions[first..].len().min(ROWS);
    let width = x.len() / rows;
    for ((x, y), &position) in x
        .chunks_exact(width)
        .zip(y.chunks_exact_mut(width))
        .zip(&shape.positions[first..])
    {
        let at = position as usize * half;
        let (cos, sin) = (&shape.cos[at..][..half], &shape.sin[at..][..half]);
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            y[2 * half..].copy_from_slice(&x[2 * half..]);
            let (x, y) = (&x[..2 * half], &mut y[..2 * half]);
            match shape.pairs {
                Pairs::Halves => {
                    let ((a, b), (to_a, to_b)) = (x.split_at(half), y.split_at_mut(half));
                    let sign = s.splat(sign);
                    vectors!(s, half, |i| {
                        let (a, b) = (read(s, a, i), read(s, b, i));
                        let (c, t) = (read(s, cos, i), s.mul(sign, read(s, sin, i)));
                        write(s, to_a, i, s.fnma(b, t, s.mul(a, c)));
                        write(s, to_b, i, s.fma(a, t, s.mul(b, c)));
                    });
                }
                Pairs::Neighbours => {
                    let pairs = x.chunks_exact(2).zip(y.chunks_exact_mut(2));
                    for ((x, y), (&c, &t)) in pairs.zip(cos.iter().zip(sin)) {
                        let t = sign * t;
                        y[0] = x[0] * c - x[1] * t;
                        y[1] = x[1] * c + x[0] * t;
                    }
                }
            }
        }
    }
}
