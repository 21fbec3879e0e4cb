//! Row look-ups: embedding tables, and the selection of rows that a head or a loss needs.

use std::sync::Arc;

use burn::tensor::Tensor;
use malmoi_kernels::embedding::{embedding_sum, gather_rows as gather, scatter_add_rows};

use malmoi_kernels::profile::{Cost, Direction};

use crate::bridge::{BackwardPass, Forward, FusedOp, Keep, Operand, apply, primitive};
use crate::buffers;
use crate::profile::WIDTH;

/// Rows `ids` of `table [V, D]` → `[ids.len(), D]`.
///
/// # Panics
/// When an id is not below V; batches are validated before they get here.
pub fn gather_rows(table: Tensor<2>, ids: Arc<[u32]>) -> Tensor<2> {
    apply(
        Gather {
            ids: vec![ids],
            frozen: Vec::new(),
        },
        [primitive(table)],
    )
}

/// The sum of one row of each table: `Σ table_i[ids_i]` → `[N, D]`, for up to four tables (tokens, positions, segments, languages).
///
/// `frozen` names a row of each table, in order, that gets no gradient from here; tables without an entry have none. Published
/// encoders keep the padding token's vector as it is.
///
/// # Panics
/// When there are no or more than four tables, or an id is out of range.
pub fn sum_of_embeddings(
    tables: Vec<(Tensor<2>, Arc<[u32]>)>,
    frozen: impl IntoIterator<Item = Option<u32>>,
) -> Tensor<2> {
    let (tensors, ids): (Vec<_>, Vec<_>) = tables
        .into_iter()
        .map(|(table, ids)| (primitive(table), ids))
        .unzip();
    let op = Gather {
        ids,
        frozen: frozen.into_iter().collect(),
    };
    match tensors.len() {
        1 => apply::<1, 2>(op, tensors.try_into().expect("one table")),
        2 => apply::<2, 2>(op, tensors.try_into().expect("two tables")),
        3 => apply::<3, 2>(op, tensors.try_into().expect("three tables")),
        4 => apply::<4, 2>(op, tensors.try_into().expect("four tables")),
        n => panic!("sum_of_embeddings takes one to four tables, got {n}"),
    }
}

#[derive(Debug)]
struct Gather {
    ids: Vec<Arc<[u32]>>,
    frozen: Vec<Option<u32>>,
}

impl FusedOp for Gather {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let (n, d) = (self.ids[0].len(), inputs[0].shape[1]);
        let mut out = buffers::take(n * d);
        match inputs {
            [table] => gather(table.data, d, &self.ids[0], &mut out),
            tables => {
                let pairs: Vec<(&[f32], &[u32])> = tables
                    .iter()
                    .zip(&self.ids)
                    .map(|(table, ids)| (table.data, &ids[..]))
                    .collect();
                embedding_sum(&pairs, d, &mut out);
            }
        }
        Forward::new(out, [n, d])
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let tables = pass.inputs.iter().zip(&pass.needs).enumerate();
        tables
            .map(|(i, (table, needed))| {
                needed.then(|| {
                    let mut gradient = buffers::zeroed(table.shape[0] * table.shape[1]);
                    self.accumulate(i, table.shape, pass.grad, &mut gradient);
                    gradient
                })
            })
            .collect()
    }

    fn accumulates(&self, _i: usize) -> bool {
        true
    }

    fn accumulate(&self, i: usize, shape: &[usize], grad: &[f32], into: &mut [f32]) {
        let d = shape[1];
        let frozen = self.frozen.get(i).copied().flatten().map(|row| {
            let at = row as usize * d..(row as usize + 1) * d;
            (at.clone(), into.get(at).map(<[f32]>::to_vec))
        });
        scatter_add_rows(grad, d, &self.ids[i], into);
        // What others added to the frozen row stays.
        if let Some((at, Some(before))) = frozen {
            into[at].copy_from_slice(&before);
        }
    }

    fn cost(&self, shapes: &[&[usize]], direction: Direction, _track: bool) -> Cost {
        let rows: u64 = self.ids.iter().map(|ids| ids.len() as u64).sum();
        let (d, output) = (shapes[0][1] as u64, self.ids[0].len() as u64);
        let values = match direction {
            // The gradient of a table is as large as the table, whatever was looked up.
            Direction::Backward => {
                let tables: usize = shapes.iter().map(|shape| shape[0]).sum();
                (tables as u64 + 2 * rows + output) * d
            }
            Direction::Forward | Direction::Update => (rows + output) * d,
        };
        Cost {
            flops: rows * d,
            bytes: values * WIDTH,
            far_bytes: (values - output * d) * WIDTH,
        }
    }
}
