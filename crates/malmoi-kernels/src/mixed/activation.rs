//! Element-wise non-linearities on bf16: a piece is widened in the cache, goes through the f32 kernel, and is rounded on the way
//! out.

use std::ops::Range;

use super::bf16;
use super::convert::narrow;
use super::rows::{PIECE, widened};
use crate::activation::{self, Activation};
use crate::scratch::scratch;
use crate::threads::{SharedMut, for_each};

/// Calls `f` for pieces of `n` elements, each of which costs about `cost` plain operations.
fn for_each_piece(n: usize, cost: usize, f: impl Fn(Range<usize>) + Sync + Send) {
    for_each(n.div_ceil(PIECE), PIECE * cost, |piece| {
        f(piece * PIECE..((piece + 1) * PIECE).min(n));
    });
}

/// [`activation::activation_forward`] of widened values, rounded.
///
/// # Panics
/// When the lengths differ.
pub fn activation_forward(kind: Activation, x: &[bf16], y: &mut [bf16]) {
    assert_eq!(
        x.len(),
        y.len(),
        "activation_forward: x and y have the same length"
    );
    let out = SharedMut::new(y);
    for_each_piece(x.len(), 3, |at| {
        let mut result = scratch(at.len());
        activation::forward(kind, &widened(&x[at.clone()]), &mut result);
        // SAFETY: every piece has its own elements.
        narrow(&result, unsafe { out.slice(at.start, at.len()) });
    });
}

/// [`activation::activation_backward`] of widened values, rounded.
///
/// # Panics
/// When the lengths differ.
pub fn activation_backward(kind: Activation, x: &[bf16], dy: &[bf16], dx: &mut [bf16]) {
    assert!(
        x.len() == dy.len() && x.len() == dx.len(),
        "activation_backward: x, dy and dx have the same length"
    );
    let out = SharedMut::new(dx);
    for_each_piece(x.len(), 4, |at| {
        let mut result = scratch(at.len());
        let (x, dy) = (widened(&x[at.clone()]), widened(&dy[at.clone()]));
        activation::backward(kind, &x, &dy, &mut result);
        // SAFETY: every piece has its own elements.
        narrow(&result, unsafe { out.slice(at.start, at.len()) });
    });
}

/// [`activation::gated_forward`] of widened values, rounded.
///
/// # Panics
/// When the lengths differ.
pub fn gated_forward(kind: Activation, gate: &[bf16], up: &[bf16], y: &mut [bf16]) {
    assert!(
        gate.len() == y.len() && up.len() == y.len(),
        "gated_forward: gate, up and y have the same length"
    );
    let out = SharedMut::new(y);
    for_each_piece(gate.len(), 4, |at| {
        let mut result = scratch(at.len());
        let (gate, up) = (widened(&gate[at.clone()]), widened(&up[at.clone()]));
        activation::gate_chunk(kind, &gate, &up, &mut result);
        // SAFETY: every piece has its own elements.
        narrow(&result, unsafe { out.slice(at.start, at.len()) });
    });
}

/// [`activation::gated_backward`] of widened values, rounded.
///
/// # Panics
/// When the lengths differ.
pub fn gated_backward(
    kind: Activation,
    gate: &[bf16],
    up: &[bf16],
    dy: &[bf16],
    dgate: &mut [bf16],
    dup: &mut [bf16],
) {
    let n = gate.len();
    assert!(
        up.len() == n && dy.len() == n && dgate.len() == n && dup.len() == n,
        "gated_backward: all slices have the same length"
    );
    let (out_gate, out_up) = (SharedMut::new(dgate), SharedMut::new(dup));
    for_each_piece(n, 6, |at| {
        let [gate, up, dy] = [gate, up, dy].map(|x| widened(&x[at.clone()]));
        let (mut by_gate, mut by_up) = (scratch(at.len()), scratch(at.len()));
        activation::gate_back_chunk(kind, &gate, &up, &dy, &mut by_gate, &mut by_up);
        // SAFETY: every piece has its own elements.
        unsafe {
            narrow(&by_gate, out_gate.slice(at.start, at.len()));
            narrow(&by_up, out_up.slice(at.start, at.len()));
        }
    });
}
