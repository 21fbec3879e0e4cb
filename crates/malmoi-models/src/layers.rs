//! Small parts that several architectures have in common.

use std::sync::Arc;

use burn::tensor::Tensor;
use malmoi_nn::ops::Projection;
use malmoi_nn::{Embedding, Linear, PackedBatch, Pass, ops};

/// The embedding of the GPT line: token + position, and the embedding of a segment's token where segments are given; then dropout.
pub(crate) fn embed_with_positions(
    token: &Embedding,
    position: &Embedding,
    batch: &PackedBatch,
    dropout: f32,
    pass: &Pass,
) -> Tensor<2> {
    let mut tables = vec![token.at(&batch.ids), position.at(&batch.positions)];
    if let Some(segments) = &batch.segments {
        tables.push(token.at(segments));
    }
    ops::dropout(ops::sum_of_embeddings(tables, None), pass.dropout(dropout))
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

/// The projection to the vocabulary: one of its own where there is one, else the token embedding once more.
pub(crate) fn projection(own: &Option<Linear>, token: &Embedding) -> Projection {
    match own {
        Some(own) => Projection {
            weight: own.weight.val(),
            bias: own.bias.as_ref().map(burn::module::Param::val),
        },
        None => Projection {
            weight: token.weight.val(),
            bias: None,
        },
    }
}
