//! Arithmetic and traffic of every operation of a model, counted from its configuration.
//!
//! The formulae are those of `docs/guide/roofline.md`. A multiply-add counts as two operations. Traffic is the least that the
//! operation can do: every operand read once, every result written once, element-wise work done while its operand passes by.
//! Bytes are told apart by when they were touched last: *near* ones by the operation before (so they may still be in a cache
//! that holds both), *far* ones a whole pass ago (weights, cached keys and values, activations kept for the backward pass).

mod block;
#[cfg(test)]
mod tests;

use malmoi_kernels::probe::Arithmetic;
use malmoi_kernels::profile::Direction;
use malmoi_models::{Direction as Reads, Head, Mask, Model, ModelConfig, ModelShape, StackKind};
use serde::Serialize;

/// What a model is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// One step of training: forward, backward, AdamW.
    Train,
    /// Hidden states of whole texts.
    Encode,
    /// The prompt's keys and values and the logits of its last token.
    Prefill,
    /// One more token for every sequence.
    Decode,
}

impl Phase {
    /// Names on the command line.
    pub const NAMES: [&'static str; 4] = ["train", "encode", "prefill", "decode"];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The phase of that name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Train, Self::Encode, Self::Prefill, Self::Decode];
        all.into_iter().find(|phase| phase.name() == name)
    }
}

/// Why nothing could be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// The phase is not one of this model's.
    #[error("{model} has no {phase} phase: it {reason}")]
    Phase {
        /// The model.
        model: String,
        /// The phase asked for.
        phase: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// Sizes out of range.
    #[error("{what} is {found}: expected {expected}")]
    Size {
        /// The size.
        what: &'static str,
        /// Its value.
        found: usize,
        /// What is allowed.
        expected: String,
    },
}

/// An amount of work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Work {
    /// What the model is doing.
    pub phase: Phase,
    /// Sequences.
    pub batch: usize,
    /// Tokens of each: of the text, of the prompt, or (decoding) those before the new one. A model with an encoder and a
    /// decoder has as many on both sides.
    pub tokens: usize,
    /// Whether training computes the activations of a block again instead of keeping them.
    pub recompute: bool,
}

impl Work {
    /// Work without recomputation.
    pub fn new(phase: Phase, batch: usize, tokens: usize) -> Self {
        Self {
            phase,
            batch,
            tokens,
            recompute: false,
        }
    }

    /// Tokens that the work is counted by: all of the batch, or the new ones.
    pub fn counted_tokens(&self) -> u64 {
        match self.phase {
            Phase::Decode => self.batch as u64,
            _ => (self.batch * self.tokens) as u64,
        }
    }
}

/// Bytes of the numbers that a precision keeps in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Of a weight that a product reads.
    pub weight: u64,
    /// Of an activation, a cached key or value.
    pub activation: u64,
}

impl Widths {
    /// Those of training on this machine: products read the weights in f32, which the optimiser changes, whatever the arithmetic.
    pub fn in_training(arithmetic: Arithmetic) -> Self {
        Self {
            weight: WIDE,
            ..Self::of(arithmetic)
        }
    }

    /// Those of a phase on this machine.
    pub fn of_phase(phase: Phase, arithmetic: Arithmetic) -> Self {
        match phase {
            Phase::Train => Self::in_training(arithmetic),
            _ => Self::of(arithmetic),
        }
    }

    /// Everything in the format of the arithmetic; with 8-bit weights activations stay in 16 bits.
    pub fn of(arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::F32 => Self {
                weight: 4,
                activation: 4,
            },
            Arithmetic::Bf16 => Self {
                weight: 2,
                activation: 2,
            },
            Arithmetic::Int8 => Self {
                weight: 1,
                activation: 2,
            },
        }
    }
}

/// Bytes of sums, gradients, moments and logits, whatever the precision.
pub(crate) const WIDE: u64 = 4;

/// An operation that a phase runs `times` times. Numbers are those of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Op {
    /// What it is, such as `feed-forward up`.
    pub name: &'static str,
    /// Which way it runs.
    #[serde(serialize_with = "direction_name")]
    pub direction: Direction,
    /// How often a phase runs it.
    pub times: u64,
    /// Operations in matrix products, at the precision of the model.
    pub flops: u64,
    /// Other operations, in f32.
    pub vector_flops: u64,
    /// Bytes touched last a whole pass ago.
    pub far_bytes: u64,
    /// Bytes that the operation before has just touched.
    pub near_bytes: u64,
    /// Bytes that a training step keeps from here to the backward pass.
    pub kept_bytes: u64,
}

fn direction_name<S: serde::Serializer>(
    direction: &Direction,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(direction.name())
}

impl Op {
    pub(crate) fn new(name: &'static str, direction: Direction, times: u64) -> Self {
        Self {
            name,
            direction,
            times,
            flops: 0,
            vector_flops: 0,
            far_bytes: 0,
            near_bytes: 0,
            kept_bytes: 0,
        }
    }

    /// Bytes of one run.
    pub fn bytes(&self) -> u64 {
        self.far_bytes + self.near_bytes
    }
}

/// Everything that a phase does, in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// The work.
    pub work: Work,
    /// The operations.
    pub ops: Vec<Op>,
    /// Parameters of the model.
    pub parameters: u64,
}

impl Cost {
    /// Operations in matrix products.
    pub fn flops(&self) -> u64 {
        self.sum(|op| op.flops)
    }

    /// Operations outside of matrix products.
    pub fn vector_flops(&self) -> u64 {
        self.sum(|op| op.vector_flops)
    }

    /// Bytes that every operation reads and writes, wherever they lie.
    pub fn bytes(&self) -> u64 {
        self.sum(Op::bytes)
    }

    /// Bytes touched last a pass ago: what memory has to deliver when no cache holds the model.
    pub fn far_bytes(&self) -> u64 {
        self.sum(|op| op.far_bytes)
    }

    /// Bytes that training keeps for the backward pass.
    pub fn kept_bytes(&self) -> u64 {
        self.sum(|op| op.kept_bytes)
    }

    fn sum(&self, of: impl Fn(&Op) -> u64) -> u64 {
        self.ops.iter().map(|op| op.times * of(op)).sum()
    }
}

/// Share of the tokens that masked language modelling predicts (Devlin et al., 2018).
pub(crate) const MASKED: f64 = 0.15;

/// Rows that a training step projects to the vocabulary.
pub(crate) fn target_rows(shape: &ModelShape, work: &Work) -> u64 {
    let (batch, tokens) = (work.batch as u64, work.tokens as u64);
    match shape.stacks.last().map(|stack| stack.kind) {
        // The first token has nothing before it; an encoder's text does, so its decoder predicts every token.
        Some(StackKind::Decoder) if shape.stacks.len() == 1 => batch * (tokens - 1),
        Some(StackKind::Decoder) => batch * tokens,
        _ => (MASKED * (batch * tokens) as f64).round() as u64,
    }
}

/// The head that a model has in a phase: the bare encoder, or the projection that training and generation need.
pub fn head_for(config: &ModelConfig, phase: Phase) -> Head {
    match (phase, config.direction()) {
        (Phase::Train, Reads::Encoder) => Head::MaskedLm,
        _ => config.usual_head(),
    }
}

/// Counts a phase of a model whose numbers have these widths.
///
/// # Errors
/// A phase that the model does not have, or a size that does not fit it.
pub fn count(config: &ModelConfig, work: &Work, widths: Widths) -> Result<Cost, CostError> {
    let head = head_for(config, work.phase);
    let parameters = Model::blank(config.clone(), head)
        .parameters()
        .iter()
        .map(|info| info.len() as u64)
        .sum();
    let name = config.architecture_name(head);
    count_shape(
        &config.shape(head),
        name,
        config.position_limit(),
        parameters,
        work,
        widths,
    )
}

/// The same for a shape with `parameters` parameters.
pub(crate) fn count_shape(
    shape: &ModelShape,
    name: &str,
    max_len: usize,
    parameters: u64,
    work: &Work,
    widths: Widths,
) -> Result<Cost, CostError> {
    check(shape, name, max_len, work)?;
    let train = work.phase == Phase::Train;
    let mut forward = Vec::new();
    for (at, stack) in shape.stacks.iter().enumerate() {
        let skipped = match (work.phase, stack.kind) {
            (Phase::Encode, StackKind::Decoder) => true,
            // The source is read once, before the first token.
            (Phase::Decode, StackKind::Encoder) => true,
            _ => false,
        };
        if skipped {
            continue;
        }
        let generates = stack.kind == StackKind::Decoder && at > 0;
        let (new, keys) = match work.phase {
            // A prompt of a model with two stacks is the encoder's; its decoder starts from one token.
            Phase::Prefill if generates => (1, 1),
            Phase::Decode => (1, work.tokens + 1),
            _ => (work.tokens, work.tokens),
        };
        forward.extend(block::stack(
            stack,
            &block::Rows {
                batch: work.batch as u64,
                new,
                keys,
                source: work.tokens,
                projects_source: work.phase != Phase::Decode,
                cached: work.phase == Phase::Decode,
                train,
            },
            widths,
        ));
    }
    let rows = match work.phase {
        Phase::Encode => 0,
        Phase::Train => target_rows(shape, work),
        Phase::Prefill | Phase::Decode => work.batch as u64,
    };
    if let (Some(vocabulary), 1..) = (&shape.vocabulary, rows) {
        let d_model = shape.stacks.last().map_or(vocabulary.d, |s| s.d_model);
        forward.extend(block::vocabulary(vocabulary, d_model, rows, train, widths));
    }
    let mut ops = forward;
    if train {
        block::backward(&mut ops, shape, parameters, work, widths);
    }
    Ok(Cost {
        work: *work,
        ops,
        parameters,
    })
}

fn check(shape: &ModelShape, name: &str, max_len: usize, work: &Work) -> Result<(), CostError> {
    let has = |kind| shape.stacks.iter().any(|stack| stack.kind == kind);
    let refused = match work.phase {
        Phase::Encode if !has(StackKind::Encoder) => Some("has no encoder"),
        Phase::Prefill | Phase::Decode if !has(StackKind::Decoder) => Some("does not generate"),
        _ => None,
    };
    if let Some(reason) = refused {
        return Err(CostError::Phase {
            model: name.to_owned(),
            phase: work.phase.name(),
            reason,
        });
    }
    if work.batch == 0 {
        return Err(CostError::Size {
            what: "batch",
            found: 0,
            expected: "at least 1".into(),
        });
    }
    // A new token needs a position, and the first token of a text nothing to predict it from.
    let range = match work.phase {
        Phase::Decode => 1..=max_len.saturating_sub(1),
        Phase::Train => 2..=max_len,
        _ => 1..=max_len,
    };
    if !range.contains(&work.tokens) {
        return Err(CostError::Size {
            what: "tokens",
            found: work.tokens,
            expected: format!("{} to {} for {name}", range.start(), range.end()),
        });
    }
    Ok(())
}

/// Pairs of a new token and a key that it sees.
pub(crate) fn pairs(mask: Mask, new: usize, keys: usize) -> u64 {
    mask.visible(new, keys)
}
