//! What an engine is asked, and what it tells.

use crate::InferError;
use crate::beam::{BeamOptions, Hypothesis};
use crate::constraint::Constraint;
use crate::fill_mask::Candidate;
use crate::generate::{FinishReason, Flow};
use crate::sampling::SamplingSettings;

use super::Drafting;

/// How a text is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Writing {
    /// Token by token.
    Tokens(SamplingSettings),
    /// By beam search; its `max_new_tokens` and end tokens count, not the request's.
    Beams(BeamOptions),
}

/// A text to write.
#[derive(Debug)]
pub struct Request {
    /// The ids to continue, or the source of an encoder-decoder.
    pub prompt: Vec<u32>,
    /// Tokens at most.
    pub max_new_tokens: usize,
    /// Tokens that end it.
    pub end_ids: Vec<u32>,
    /// How.
    pub writing: Writing,
    /// Seed of its draws.
    pub seed: u64,
    /// Which of several texts of one seed this is.
    pub stream: u64,
    /// Tell the log-probability of each token, and of so many of the best at its place.
    pub top: Option<usize>,
    /// Guessing ahead, for greedy choice.
    pub drafting: Drafting,
    /// What the text must look like.
    pub constraint: Option<Constraint>,
    /// Who hears of it.
    pub sink: Box<dyn Sink>,
}

/// Hears what becomes of a text.
pub trait Sink: Send + std::fmt::Debug {
    /// Something happened. What is returned counts after a token only.
    fn event(&mut self, event: Event) -> Flow;

    /// Whether anyone still waits for the text.
    fn is_wanted(&self) -> bool {
        true
    }
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability under the model, before any rule; when asked for.
    pub log_probability: Option<f64>,
    /// The most probable tokens at its place.
    pub top: Vec<Candidate>,
}

/// What happened to a text. Every text ends with exactly one event other than [`Event::Token`].
#[derive(Debug)]
pub enum Event {
    /// A token was chosen.
    Token(Choice),
    /// It ended.
    Finished(FinishReason),
    /// A beam search found these, best first.
    Found(Vec<Hypothesis>),
    /// It cannot be written.
    Failed(InferError),
    /// The engine broke down while it was at work.
    Lost,
}
