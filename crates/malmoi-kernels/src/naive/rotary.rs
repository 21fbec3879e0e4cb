//! Rotary positions in double precision.

use crate::rotary::{Pairs, Rotary, Turn};

/// See [`crate::rotary::rotary`].
pub fn rotary(shape: &Rotary, turn: Turn, x: &[f32], y: &mut [f32]) {
    y.copy_from_slice(x);
    let half = shape.d_rotary / 2;
    let width = x.len() / shape.positions.len().max(1);
    for (row, &position) in shape.positions.iter().enumerate() {
        for head in (0..width).step_by(shape.d_head) {
            for i in 0..half {
                let (a, b) = match shape.pairs {
                    Pairs::Halves => (i, i + half),
                    Pairs::Neighbours => (2 * i, 2 * i + 1),
                };
                let (a, b) = (row * width + head + a, row * width + head + b);
                let angle = position as usize * half + i;
                let (cos, mut sin) = (f64::from(shape.cos[angle]), f64::from(shape.sin[angle]));
                if turn == Turn::Back {
                    sin = -sin;
                }
                let (xa, xb) = (f64::from(x[a]), f64::from(x[b]));
                y[a] = (xa * cos - xb * sin) as f32;
                y[b] = (xb * cos + xa * sin) as f32;
            }
        }
    }
}
