//! What an operation of the bridge costs, as the recorder of `malmoi-kernels` wants to know it.

use malmoi_kernels::attention::Mask;
use malmoi_kernels::profile::{self, Cost, Direction, Label, Span};

use crate::bridge::FusedOp;

/// Bytes of a value.
pub(crate) const WIDTH: u64 = size_of::<f32>() as u64;

/// Values of an operand of that shape.
pub(crate) fn len(shape: &[usize]) -> u64 {
    shape.iter().product::<usize>() as u64
}

/// The cost of an operation on each element: inputs read once and a result like the first input written once; backward, the
/// gradient is read as well and each input's gradient written. Its arithmetic never counts beside that traffic.
pub(crate) fn elementwise(shapes: &[&[usize]], direction: Direction) -> Cost {
    let (inputs, output) = (
        shapes.iter().map(|shape| len(shape)).sum::<u64>(),
        shapes.first().map_or(0, |shape| len(shape)),
    );
    let (values, far) = match direction {
        Direction::Backward => (2 * inputs + output, inputs),
        Direction::Forward | Direction::Update => (inputs + output, 0),
    };
    Cost {
        flops: 0,
        bytes: values * WIDTH,
        far_bytes: far * WIDTH,
    }
}

/// Products of `n` rows with a matrix `[d_out, d_in]`: one forward; backward one for the input's gradient and one for the
/// weight's.
pub(crate) fn product(n: usize, d_in: usize, d_out: usize, direction: Direction) -> Cost {
    let (x, w, y) = (len(&[n, d_in]), len(&[d_out, d_in]), len(&[n, d_out]));
    let once = 2 * n as u64 * w;
    let (flops, values, far) = match direction {
        Direction::Backward => (2 * once, 2 * (x + w + y), x + 2 * w),
        Direction::Forward | Direction::Update => (once, x + w + y, w),
    };
    Cost {
        flops,
        bytes: values * WIDTH,
        far_bytes: far * WIDTH,
    }
}

/// Attention between sequences: two products a visible pair forward; backward five, because scores are computed again.
/// `widths` are the values of a query row and of a key row (keys and values each).
pub(crate) fn attention(
    cu_q: &[u32],
    cu_k: &[u32],
    mask: Mask,
    widths: (usize, usize),
    direction: Direction,
) -> Cost {
    let lengths = cu_q.windows(2).zip(cu_k.windows(2));
    let pairs: u64 = lengths
        .map(|(q, k)| mask.visible((q[1] - q[0]) as usize, (k[1] - k[0]) as usize))
        .sum();
    let total = |cu: &[u32]| u64::from(cu.last().copied().unwrap_or(0));
    let q = total(cu_q) * widths.0 as u64;
    let kv = total(cu_k) * widths.1 as u64;
    let once = 2 * pairs * widths.0 as u64;
    // Forward: q, k, v → out. Backward: q, k, v, out and its gradient → gradients of q, k, v.
    let (flops, values, far) = match direction {
        Direction::Backward => (5 * once, 4 * q + 4 * kv, 2 * q + 2 * kv),
        Direction::Forward | Direction::Update => (2 * once, 2 * q + 2 * kv, 0),
    };
    Cost {
        flops,
        bytes: values * WIDTH,
        far_bytes: far * WIDTH,
    }
}

/// A span of an operation of the bridge whose values take `width` bytes, while something records.
pub(crate) fn span<'a>(
    op: &dyn FusedOp,
    shapes: impl FnOnce() -> Vec<&'a [usize]>,
    direction: Direction,
    track: bool,
    width: u64,
) -> Option<Span> {
    profile::span(|| {
        let shapes = shapes();
        let cost = op.cost(&shapes, direction, track);
        Label {
            name: op.name(),
            direction,
            shape: describe(&shapes),
            cost: Cost {
                bytes: cost.bytes / WIDTH * width,
                far_bytes: cost.far_bytes / WIDTH * width,
                ..cost
            },
        }
    })
}

/// `1024x768, 3072x768`: the matrices among the operands, equal neighbours once; a single vector when there is nothing else.
pub(crate) fn describe(shapes: &[&[usize]]) -> String {
    let one = |shape: &[usize]| {
        let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
        sizes.join("x")
    };
    let mut matrices: Vec<String> = shapes
        .iter()
        .filter(|shape| shape.len() > 1)
        .map(|shape| one(shape))
        .collect();
    matrices.dedup();
    if matrices.is_empty() {
        return shapes.first().map_or_else(String::new, |shape| one(shape));
    }
    matrices.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_reads_and_writes_each_matrix_once() {
        let forward = product(2, 3, 5, Direction::Forward);
        assert_eq!(forward.flops, 2 * 2 * 3 * 5);
        assert_eq!(forward.bytes, 4 * (2 * 3 + 3 * 5 + 2 * 5));
        assert_eq!(forward.far_bytes, 4 * 3 * 5);
        let backward = product(2, 3, 5, Direction::Backward);
        assert_eq!(backward.flops, 2 * forward.flops);
    }

    #[test]
    fn attention_counts_visible_pairs_only() {
        // Two sequences of 3 and 2 tokens, one head of 4: 9 + 4 pairs seen from both sides, 6 + 3 when only the left is.
        let cu = [0, 3, 5];
        let flops = |mask, direction| attention(&cu, &cu, mask, (4, 4), direction).flops;
        assert_eq!(flops(Mask::Full, Direction::Forward), 2 * 2 * 13 * 4);
        assert_eq!(flops(Mask::Causal, Direction::Forward), 2 * 2 * 9 * 4);
        assert_eq!(flops(Mask::Causal, Direction::Backward), 5 * 2 * 9 * 4);
    }

    #[test]
    fn shapes_are_named_by_their_matrices() {
        assert_eq!(describe(&[&[4, 8], &[16, 8], &[16]]), "4x8, 16x8");
        assert_eq!(describe(&[&[4, 8], &[4, 8], &[4, 8]]), "4x8");
        assert_eq!(describe(&[&[2]]), "2");
    }
}
