//! From tokenised text to batches.
//!
//! Training examples are numbered from 0 through the whole run. Which text example `n` holds, where it is cut, what is hidden in
//! it: all of that is a function of the seed and `n` alone. So a resumed run sees what an uninterrupted one sees, the number of
//! threads changes nothing, and four micro-batches of two are the same step as one of eight.

mod answer;
mod clm;
mod corpus;
mod denoising;
mod held;
mod hide;
mod mixed;
mod mlm;
#[cfg(test)]
mod objective_tests;
mod order;
mod parallel;
mod pieces;
mod sentences;
mod spans;
#[cfg(test)]
mod subword_tests;
mod subwords;
#[cfg(test)]
mod tests;

use malmoi_kernels::random::{Key, Purpose};
use malmoi_models::{ClassTargets, Labels, ReplacedTokens, VocabularyTargets};
use malmoi_nn::PackedBatch;

pub use answer::{Answer, Weighted};
pub use clm::{ClmData, ClmOptions};
pub use corpus::{Corpus, Tokens};
pub use denoising::{DenoisingData, DenoisingOptions};
pub(crate) use held::HeldExamples;
pub use hide::Units;
pub use mixed::Mixed;
pub use mlm::{MlmData, MlmOptions, PairKind, SpecialIds};
#[cfg(test)]
pub(crate) use order::EpochOrder;
pub use parallel::{TextPairs, TranslationData, TranslationOptions};
pub use sentences::SentenceRule;
pub use spans::{Sentinels, SpanData, SpanOptions, sentinel};
pub(crate) use subwords::SubwordDropout;

use crate::error::TrainError;

/// One training example as the model sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Example {
    /// Tokens, with hidden ones replaced.
    pub ids: Vec<u32>,
    /// Where its sequences start. Tokens of one sequence do not see those of another. The first is 0.
    pub starts: Vec<usize>,
    /// Position of each token.
    pub positions: Vec<u32>,
    /// Segment of each token, for models that have segments.
    pub segments: Option<Vec<u32>>,
    /// Language of each token, for models that tell languages apart.
    pub languages: Option<Vec<u32>>,
    /// What is predicted: place in the example and the token to predict there.
    pub targets: Vec<(usize, u32)>,
    /// 0: the second segment follows the first; 1: it comes from another document.
    pub next_sentence: Option<u32>,
    /// What the example is measured against in a task.
    pub answer: Option<Answer>,
    /// Weight of the loss of `targets` beside that of the answer; 0 without one.
    pub auxiliary: f32,
    /// For vectors of sentences: every sequence of the example is a sentence; what is learned, and the score of the first two.
    pub sentences: Option<(SentenceRule, f32)>,
    /// How the hidden tokens are filled and found, for replaced-token detection.
    pub detection: Option<Detection>,
    /// For an encoder with a decoder: the decoder's start token and what it writes, the end token included. Every token but the first
    /// is predicted, and the example's own tokens are the source.
    pub decoder: Option<Vec<u32>>,
}

/// Replaced-token detection (Clark et al. 2020): the hidden tokens of an example are filled by a generator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Factor on the loss of the discriminator.
    pub factor: f32,
    /// Decides which tokens the generator's distribution yields.
    pub sample: Key,
}

/// Whose draws an example is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draws {
    /// Those of a training run with this seed.
    Training(u64),
    /// Fixed ones, the same for every run, so that evaluations can be compared.
    Evaluation,
}

/// Number of the stream for evaluation draws.
const EVALUATION: u32 = 1;

impl Draws {
    /// The stream of example `n` for one purpose.
    fn key(self, purpose: Purpose, n: u64) -> Key {
        match self {
            Self::Training(seed) => Key::new(seed, purpose, n),
            // The purpose stays part of the key through its own stream below.
            Self::Evaluation => Key::new(0, purpose, n).fold(u64::from(EVALUATION)),
        }
    }
}

/// A source of examples.
pub trait Examples: Sync {
    /// Examples of one pass over the text.
    fn per_epoch(&self) -> u64;

    /// Mean number of tokens of an example.
    fn mean_tokens(&self) -> f64;

    /// Example `n` of a training run.
    ///
    /// # Errors
    /// [`TrainError`] when the objective cannot be applied.
    fn training(&self, seed: u64, n: u64) -> Result<Example, TrainError>;

    /// Number of examples of an evaluation: all, unless something else is said.
    fn evaluation_count(&self) -> u64 {
        self.per_epoch()
    }

    /// Example `n` of an evaluation, below [`Examples::evaluation_count`].
    ///
    /// # Errors
    /// As [`Examples::training`].
    fn evaluation(&self, n: u64) -> Result<Example, TrainError>;
}

/// Examples packed for one forward pass, not yet weighted.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    /// The tokens.
    pub batch: PackedBatch,
    /// Rows of the batch at which a token is predicted.
    pub rows: Vec<u32>,
    /// The tokens to predict there.
    pub targets: Vec<u32>,
    /// Next-sentence labels, one an example; empty without that objective.
    pub next_sentence: Vec<u32>,
    /// Answers, one an example, of one kind; empty unless examples have answers.
    pub answers: Vec<Answer>,
    /// Weight of the loss of `targets` beside that of the answers.
    pub auxiliary: f32,
    /// What is learned about sentences, with a score for each example.
    pub sentences: Option<(SentenceRule, Vec<f32>)>,
    /// How hidden tokens are filled and found; the draws of the first example stand for the batch.
    pub detection: Option<Detection>,
}

impl MicroBatch {
    /// Packs examples.
    pub fn pack(examples: &[Example]) -> Self {
        if examples.iter().any(|example| example.decoder.is_some()) {
            return Self::pack_targets(examples);
        }
        let mut sequences: Vec<&[u32]> = Vec::new();
        let (mut positions, mut segments) = (Vec::new(), Vec::new());
        let mut languages = Vec::new();
        let (mut rows, mut targets, mut next_sentence) = (Vec::new(), Vec::new(), Vec::new());
        let mut answers = Vec::new();
        let mut base = 0;
        for example in examples {
            let ends = example.starts[1..]
                .iter()
                .copied()
                .chain(std::iter::once(example.ids.len()));
            sequences.extend(
                example
                    .starts
                    .iter()
                    .zip(ends)
                    .map(|(&start, end)| &example.ids[start..end]),
            );
            positions.extend_from_slice(&example.positions);
            match &example.segments {
                Some(own) => segments.extend_from_slice(own),
                None => segments.resize(segments.len() + example.ids.len(), 0),
            }
            languages.extend(example.languages.iter().flatten());
            answers.extend(example.answer.as_ref().map(|answer| answer.moved(base)));
            rows.extend(
                example
                    .targets
                    .iter()
                    .map(|&(place, _)| (base + place) as u32),
            );
            targets.extend(example.targets.iter().map(|&(_, target)| target));
            next_sentence.extend(example.next_sentence);
            base += example.ids.len();
        }
        let mut batch = PackedBatch::from_sequences(&sequences).with_positions(positions);
        if examples.iter().any(|example| example.segments.is_some()) {
            batch = batch.with_segments(segments);
        }
        if !languages.is_empty() {
            batch = batch.with_languages(languages);
        }
        Self {
            batch,
            rows,
            targets,
            next_sentence,
            answers,
            auxiliary: examples.first().map_or(0.0, |example| example.auxiliary),
            sentences: sentences::of(examples),
            detection: examples.first().and_then(|example| example.detection),
        }
    }

    /// Packs examples whose targets a decoder writes; their own tokens become its source.
    fn pack_targets(examples: &[Example]) -> Self {
        let written = |example: &Example| example.decoder.clone().unwrap_or_default();
        let sequences: Vec<Vec<u32>> = examples.iter().map(written).collect();
        let seen: Vec<&[u32]> = sequences
            .iter()
            .map(|ids| &ids[..ids.len().saturating_sub(1)])
            .collect();
        let targets: Vec<u32> = sequences
            .iter()
            .flat_map(|ids| ids.iter().skip(1).copied())
            .collect();
        let sources: Vec<&[u32]> = examples.iter().map(|example| &*example.ids).collect();
        let source = PackedBatch::from_sequences(&sources);
        Self {
            batch: PackedBatch::from_sequences(&seen).with_source(source),
            rows: (0..targets.len() as u32).collect(),
            targets,
            next_sentence: Vec::new(),
            answers: Vec::new(),
            auxiliary: 0.0,
            sentences: None,
            detection: None,
        }
    }

    /// Labels with the weight of each counted target: one over the number of those in the whole step, so that micro-batches
    /// add up to the mean over all of them.
    pub fn labels(&self, counts: Counts) -> Labels {
        if let Some((rule, scores)) = &self.sentences {
            return rule.labels(scores);
        }
        let share = |count: usize| (1.0 / count.max(1) as f64) as f32;
        let vocabulary = VocabularyTargets {
            rows: self.rows.clone().into(),
            targets: self.targets.clone().into(),
            weights: vec![share(counts.targets); self.targets.len()].into(),
        };
        if let Some(labels) = answer::labels(&self.answers, counts.answers) {
            if self.targets.is_empty() || self.auxiliary == 0.0 {
                return labels;
            }
            // What the whole loss is multiplied with afterwards is taken back here: the targets carry weights of their own.
            let factor = f64::from(self.auxiliary) / self.share(counts);
            let weights = vocabulary
                .weights
                .iter()
                .map(|w| (f64::from(*w) * factor) as f32);
            let vocabulary = VocabularyTargets {
                weights: weights.collect(),
                ..vocabulary
            };
            return Labels::WithLanguageModel(Box::new(labels), vocabulary);
        }
        if let Some(detection) = self.detection {
            return Labels::ReplacedTokens(ReplacedTokens {
                vocabulary,
                token_weight: share(counts.tokens),
                detection_factor: detection.factor,
                sample: detection.sample,
            });
        }
        if self.next_sentence.is_empty() {
            return Labels::Vocabulary(vocabulary);
        }
        let next_sentence = ClassTargets {
            targets: self.next_sentence.clone().into(),
            weights: vec![share(counts.pairs); self.next_sentence.len()].into(),
        };
        Labels::Pretraining {
            vocabulary,
            next_sentence,
        }
    }

    /// Whether there is anything to learn from it.
    pub fn has_labels(&self) -> bool {
        let answered = self.answers.iter().any(|answer| answer.weight() > 0.0);
        match self.answers.is_empty() {
            true => self.sentences.is_some() || !self.targets.is_empty(),
            false => answered,
        }
    }

    /// Examples of sentences.
    fn n_sentences(&self) -> usize {
        self.sentences
            .as_ref()
            .map_or(0, |(_, scores)| scores.len())
    }

    /// Factor on the loss of this micro-batch in a step that counts `counts` targets: 1 where the labels carry weights, the
    /// share of its rows where the model takes a plain mean.
    pub fn share(&self, counts: Counts) -> f64 {
        match self.n_sentences() {
            0 => answer::share(&self.answers, counts.answers),
            n => n as f64 / counts.answers.max(1.0),
        }
    }
}

/// How many targets a step counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Tokens to predict.
    pub targets: usize,
    /// Next-sentence labels.
    pub pairs: usize,
    /// Answers, by their weights.
    pub answers: f64,
    /// Tokens in all.
    pub tokens: usize,
}

impl Counts {
    /// The targets of some micro-batches together.
    pub fn of(micro_batches: &[MicroBatch]) -> Self {
        micro_batches
            .iter()
            .fold(Self::default(), |sum, micro| Self {
                targets: sum.targets + micro.targets.len(),
                pairs: sum.pairs + micro.next_sentence.len(),
                answers: sum.answers
                    + micro.n_sentences() as f64
                    + micro.answers.iter().map(Answer::weight).sum::<f64>(),
                tokens: sum.tokens
                    + micro.batch.n_tokens()
                    + (micro.batch.source.as_ref()).map_or(0, |source| source.n_tokens()),
            })
    }
}

/// The micro-batches of step `step` (from 0) of a run.
///
/// # Errors
/// As [`Examples::training`].
pub fn step_batches(
    examples: &dyn Examples,
    seed: u64,
    step: u64,
    accumulation: usize,
    batch_size: usize,
) -> Result<Vec<MicroBatch>, TrainError> {
    let first = step * (accumulation * batch_size) as u64;
    (0..accumulation)
        .map(|micro| {
            let first = first + (micro * batch_size) as u64;
            let list = (first..first + batch_size as u64)
                .map(|n| examples.training(seed, n))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(MicroBatch::pack(&list))
        })
        .collect()
}
