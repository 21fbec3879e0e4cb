//! What a run tells whoever watches it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::evaluation::Evaluation;

/// Why a run ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// All steps are done.
    Finished,
    /// The validation has not improved for `train.early_stop` evaluations.
    EarlyStop,
    /// The caller asked for it (a signal).
    Interrupted,
    /// The time that the caller allowed is over.
    TimeLimit,
}

impl StopReason {
    /// A few words for people and files.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::EarlyStop => "stopped early: the validation no longer improves",
            Self::Interrupted => "interrupted; continue with --resume",
            Self::TimeLimit => "out of time; continue with --resume",
        }
    }
}

/// The facts of a run before its first step.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// The run directory.
    pub out: PathBuf,
    /// Published class name of the model ("GPT2LMHeadModel").
    pub architecture: &'static str,
    /// Number of parameters.
    pub parameters: u64,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Tokens of the training text.
    pub train_tokens: u64,
    /// Tokens of the validation text.
    pub valid_tokens: Option<u64>,
    /// Examples of one pass over the training text.
    pub examples_per_epoch: u64,
    /// Mean number of tokens of a step.
    pub tokens_per_step: f64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps done before (when resuming).
    pub done: u64,
    /// The seed.
    pub seed: u64,
    /// Threads that compute.
    pub threads: usize,
    /// Instruction set in use.
    pub instruction_set: &'static str,
}

/// One finished step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEvent {
    /// Steps done, from 1.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The loss of this step.
    pub loss: f64,
    /// Its terms, when there are several: name and value.
    pub parts: Vec<(&'static str, f64)>,
    /// Share of the targets that came out on top, where there is something to choose from.
    pub accuracy: Option<f64>,
    /// The learning rate of this step.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens of this step.
    pub tokens: u64,
    /// Tokens a second over the last steps, without evaluations and saving.
    pub tokens_per_second: f64,
    /// Milliseconds of this step.
    pub milliseconds: f64,
    /// Time that the remaining steps will take.
    pub eta: Duration,
}

/// What happens in a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Work before the first step: what is being done ("tokenizing train.txt").
    Preparing(&'a str),
    /// The first step comes next.
    Started(&'a Started),
    /// A step is done.
    Step(&'a StepEvent),
    /// An evaluation begins, at this step.
    Evaluating(u64),
    /// An evaluation is done.
    Evaluated {
        /// Steps done.
        step: u64,
        /// What came out.
        evaluation: &'a Evaluation,
        /// Whether it is the best so far.
        best: bool,
    },
    /// A checkpoint is complete.
    Checkpointed {
        /// Steps done.
        step: u64,
        /// Its directory.
        path: &'a Path,
    },
    /// Something the user should know.
    Warning(&'a str),
    /// The run is over; its last checkpoint is written.
    Stopped(StopReason),
}

/// Watches a run. A run calls it from one thread.
pub trait Observer {
    /// Is told what happens.
    fn event(&mut self, event: &Event<'_>);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event<'_>) {}
}

impl<F: FnMut(&Event<'_>)> Observer for F {
    fn event(&mut self, event: &Event<'_>) {
        self(event);
    }
}
