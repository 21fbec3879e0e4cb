//! Rotary positions (Su et al., 2021) on the heads of queries and keys.

use std::sync::Arc;

use burn::tensor::Tensor;
use malmoi_kernels::rotary::{self as kernel, Pairs, Turn};

use crate::bridge::{BackwardPass, Forward, FusedOp, Keep, Operand, apply, primitive};
use crate::buffers;
use crate::positions::Angles;

/// The angles of all positions up to some length, and what turns by them.
#[derive(Clone, Debug)]
pub struct RotaryLayout {
    /// Position of each row, `[N]`.
    pub positions: Arc<[u32]>,
    /// Cosines and sines.
    pub angles: Arc<Angles>,
    /// Elements of a head that turn.
    pub d_rotary: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Which elements turn together.
    pub pairs: Pairs,
}

/// Turns every head of `x [N, heads · d_head]` by the angles of its position.
pub fn rotary(x: Tensor<2>, layout: RotaryLayout) -> Tensor<2> {
    apply(Rotary(layout), [primitive(x)])
}

#[derive(Debug)]
struct Rotary(RotaryLayout);

impl Rotary {
    fn turn(&self, turn: Turn, x: &[f32]) -> Vec<f32> {
        let layout = &self.0;
        let shape = kernel::Rotary {
            positions: &layout.positions,
            cos: &layout.angles.0,
            sin: &layout.angles.1,
            d_rotary: layout.d_rotary,
            d_head: layout.d_head,
            pairs: layout.pairs,
        };
        let mut y = buffers::take(x.len());
        kernel::rotary(&shape, turn, x, &mut y);
        y
    }
}

impl FusedOp for Rotary {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        Forward::new(self.turn(Turn::Forward, inputs[0].data), inputs[0].shape)
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        vec![Some(self.turn(Turn::Back, pass.grad))]
    }
}
