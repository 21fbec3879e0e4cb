//! What a model's thread is asked for.

use malmoi_infer::Pipeline;
use malmoi_infer::engine;
use malmoi_models::PackedBatch;
use tokio::sync::oneshot;

use super::Place;
use crate::error::ApiError;

/// Tokens of a text with their segments.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Segment of each, or empty for segment 0.
    pub segments: Vec<u32>,
}

/// What is wanted of sequences.
#[derive(Clone, Debug)]
pub enum Want {
    /// Last hidden states, `[N, D]`.
    Hidden,
    /// What the head says, a row a sequence or a token.
    Outputs,
    /// Logits of these rows (counted over the request's tokens), `[M, V]`.
    Logits(Vec<u32>),
}

impl Want {
    pub(super) fn same_run(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

pub(super) struct EncodeJob {
    pub(super) sequences: Vec<Sequence>,
    pub(super) want: Want,
    pub(super) reply: oneshot::Sender<Result<Vec<f32>, ApiError>>,
    pub(super) place: Place,
}

impl EncodeJob {
    pub(super) fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.ids.len()).sum()
    }

    /// Rows of logits.
    pub(super) fn rows(&self) -> usize {
        match &self.want {
            Want::Logits(rows) => rows.len(),
            _ => 0,
        }
    }
}

/// Logits that one pass makes at most, 256 MB of them.
pub(super) const MAX_LOGITS: usize = 1 << 26;

/// Work with the model that is none of the usual kinds.
pub(super) type Call = Box<dyn FnOnce(&Pipeline) + Send>;

pub(super) enum Job {
    Call(Call),
    Encode(EncodeJob),
    Generate(Box<engine::Request>, Place),
}

/// Sequences of several requests as one batch. Segments are left out where all are 0, which every model accepts.
pub(super) fn pack(parts: &[&Vec<Sequence>]) -> PackedBatch {
    let all = || parts.iter().flat_map(|part| part.iter());
    let ids: Vec<&[u32]> = all().map(|s| s.ids.as_slice()).collect();
    let batch = PackedBatch::from_sequences(&ids);
    if all().all(|s| s.segments.iter().all(|&segment| segment == 0)) {
        return batch;
    }
    let segments: Vec<u32> = all()
        .flat_map(|s| {
            let given = s.segments.iter().copied();
            given.chain(std::iter::repeat(0)).take(s.ids.len())
        })
        .collect();
    batch.with_segments(segments)
}
