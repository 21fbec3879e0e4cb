//! What a loss is measured against, and what comes out of it.

use std::sync::Arc;

use malmoi_nn::Key;

use crate::sentence::SentenceTargets;

/// Vocabulary (or class) targets for chosen rows of a packed batch. The loss is `Σ weight · cross-entropy`, so a mean is a
/// weight of `1 / count`, where the count may span several micro-batches.
#[derive(Clone, Debug, PartialEq)]
pub struct VocabularyTargets {
    /// Rows of the batch, `[M]`.
    pub rows: Arc<[u32]>,
    /// Target ids, `[M]`.
    pub targets: Arc<[u32]>,
    /// Weights, `[M]`.
    pub weights: Arc<[f32]>,
}

/// One class a sequence (or one choice an example).
#[derive(Clone, Debug, PartialEq)]
pub struct ClassTargets {
    /// Classes, `[B]`.
    pub targets: Arc<[u32]>,
    /// Weights, `[B]`.
    pub weights: Arc<[f32]>,
}

impl ClassTargets {
    /// Targets of equal weight, for a mean.
    pub fn mean(targets: impl Into<Arc<[u32]>>) -> Self {
        let targets = targets.into();
        let weights = vec![1.0 / targets.len() as f32; targets.len()];
        Self {
            targets,
            weights: weights.into(),
        }
    }
}

/// A truth value for each of some rows. The loss is `Σ weight · binary cross-entropy`.
#[derive(Clone, Debug, PartialEq)]
pub struct BinaryTargets {
    /// Rows of the batch, `[M]`.
    pub rows: Arc<[u32]>,
    /// Targets in `[0, 1]`, `[M]`.
    pub targets: Arc<[f32]>,
    /// Weights, `[M]`.
    pub weights: Arc<[f32]>,
}

/// Start and end of an answer in each sequence, as positions in it. `None` where the answer lies outside; such a side
/// is left out of its mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanTargets {
    /// First token of the answer, `[B]`.
    pub starts: Vec<Option<u32>>,
    /// Last token of the answer, `[B]`.
    pub ends: Vec<Option<u32>>,
}

/// ELECTRA's pretraining: the batch has blanks, which the generator fills and the discriminator looks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplacedTokens {
    /// The hidden tokens and what stood there.
    pub vocabulary: VocabularyTargets,
    /// Weight of each token of the batch in the discriminator's loss; `1 / count` for a mean.
    pub token_weight: f32,
    /// Factor on the discriminator's loss; [`DETECTION_FACTOR`] as published.
    pub detection_factor: f32,
    /// Decides which tokens the generator's distribution yields.
    pub sample: Key,
}

/// Clark et al. (2020), section 3.1: λ = 50.
pub const DETECTION_FACTOR: f32 = 50.0;

/// What a loss is measured against.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// Masked or causal language modelling.
    Vocabulary(VocabularyTargets),
    /// ELECTRA's discriminator: 1 for each token that was replaced.
    Replaced(BinaryTargets),
    /// ELECTRA's generator and discriminator together.
    ReplacedTokens(ReplacedTokens),
    /// BERT's and ALBERT's pretraining: masked tokens and the pair of segments; the two losses are added.
    Pretraining {
        /// Masked tokens.
        vocabulary: VocabularyTargets,
        /// 0 for the true next sentence (the original order), 1 for another one (the order swapped).
        next_sentence: ClassTargets,
    },
    /// One class an example. Where a model gives one output a sequence, the sequences of an example are choices, and the class is the
    /// right one's number; else the outputs of an example's sequences are added up.
    Classes(ClassTargets),
    /// The same against targets that keep a share `smoothing` of their weight for all classes alike (Szegedy et al., 2016).
    SmoothedClasses(ClassTargets, f32),
    /// Labels, and next tokens of the same batch with weights of their own (Radford et al. 2018, equation 5): the losses are added.
    WithLanguageModel(Box<Labels>, VocabularyTargets),
    /// Independent labels, `[B · K]` in `[0, 1]`.
    MultiLabel(Arc<[f32]>),
    /// Values, `[B · K]`; outputs of several sequences of an example are added up.
    Values(Arc<[f32]>),
    /// One class for each of some rows.
    TokenClasses(VocabularyTargets),
    /// The same with smoothed targets.
    SmoothedTokenClasses(VocabularyTargets, f32),
    /// Answer spans.
    Spans(SpanTargets),
    /// Vectors of sentences.
    Sentences(SentenceTargets),
    /// GPT-1's two heads.
    DoubleHeads {
        /// Next tokens.
        vocabulary: VocabularyTargets,
        /// Row of the batch at which each sequence is scored, `[B]`.
        choice_rows: Arc<[u32]>,
        /// The right choice of each example.
        choices: ClassTargets,
        /// Factor on the choice loss.
        choice_weight: f32,
    },
}

/// One term of a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossPart {
    /// `mlm`, `lm`, `nsp`, `class`, ….
    pub name: &'static str,
    /// `Σ weight · loss`.
    pub loss: f64,
    /// `Σ weight`.
    pub weight: f64,
    /// `Σ weight` over rows whose target came out on top; `None` where no target can (values, spans, several classes at once).
    pub correct: Option<f64>,
}

/// A loss and its terms.
#[derive(Clone, Debug, PartialEq)]
pub struct LossReport {
    /// The sum that is differentiated.
    pub loss: f64,
    /// Its terms.
    pub parts: Vec<LossPart>,
}
