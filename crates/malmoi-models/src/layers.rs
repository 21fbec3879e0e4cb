//! Small parts that several architectures have in common.

use std::sync::Arc;

use burn::tensor::Tensor;
use malmoi_nn::ops::Projection;
use malmoi_nn::{Embedding, Linear, Norm, PackedBatch};

use crate::common::Common;
use crate::head::Head;

/// `x` under a norm, where there is one.
pub(crate) fn normed(norm: Option<&Norm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

/// Rows of the last token of each sequence that is not padding (of the very last one, where all are).
pub(crate) fn last_rows(batch: &PackedBatch, padding: Option<u32>) -> Arc<[u32]> {
    let rows = batch.sequences().map(|rows| {
        let last = rows
            .clone()
            .rev()
            .find(|row| Some(batch.ids[*row]) != padding);
        last.unwrap_or(rows.end - 1) as u32
    });
    rows.collect()
}

/// A projection to the vocabulary for a head that has one, unless it is the token embedding.
pub(crate) fn own_projection(common: &Common, head: Head, biases: bool) -> Option<Linear> {
    let own = head.has_vocabulary() && !common.tied;
    own.then(|| Linear::new(common.sizes.d_model, common.sizes.vocab_size, biases))
}

/// The projection to the vocabulary: one of its own where there is one, else the token embedding once more.
pub(crate) fn projection(own: &Option<Linear>, token: &Embedding) -> Projection {
    match own {
        Some(own) => Projection {
            weight: own.weight.clone(),
            bias: own.bias.as_ref().map(burn::module::Param::val),
        },
        None => Projection {
            weight: token.weight.clone(),
            bias: None,
        },
    }
}
