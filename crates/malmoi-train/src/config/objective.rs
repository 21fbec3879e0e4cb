//! `[objective]`: what the model learns to predict.

use serde::{Deserialize, Serialize};

use super::OneOrMany;
use crate::data::{PairKind, Units};

/// `[objective]`: what the model learns to predict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Objective {
    /// The next token.
    Clm(Clm),
    /// Hidden tokens, and optionally whether two segments belong together.
    Mlm(Mlm),
    /// Hidden tokens that a small generator fills; the model tells which tokens are not the original ones.
    Rtd(Rtd),
    /// Hidden tokens on both sides of a text and its translation.
    Tlm(Tlm),
    /// Hidden spans, written by a decoder; optionally mixed with text-to-text tasks.
    SpanCorruption(SpanCorruption),
    /// A text from what is left of it, written by a decoder.
    Denoising(Denoising),
    /// A text from a text, written by a decoder.
    Text2text(Text2text),
}

impl Objective {
    /// The name in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clm(_) => "clm",
            Self::Mlm(_) => "mlm",
            Self::Rtd(_) => "rtd",
            Self::Tlm(_) => "tlm",
            Self::SpanCorruption(_) => "span-corruption",
            Self::Denoising(_) => "denoising",
            Self::Text2text(_) => "text2text",
        }
    }

    /// Key and value of the setting that bounds the length of sequences.
    pub fn length(&self) -> (&'static str, Option<usize>) {
        match self {
            Self::Clm(clm) => ("objective.context", clm.context),
            Self::Mlm(mlm) => ("objective.max_len", mlm.max_len),
            Self::Rtd(rtd) => ("objective.max_len", rtd.max_len),
            Self::Tlm(tlm) => ("objective.max_len", tlm.max_len),
            Self::SpanCorruption(spans) => ("objective.max_len", spans.max_len),
            Self::Denoising(noise) => ("objective.max_len", noise.max_len),
            Self::Text2text(task) => ("objective.max_len", task.max_len),
        }
    }
}

/// Causal language modelling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clm {
    /// Tokens of a sequence; by default all positions of the model.
    pub context: Option<usize>,
    /// How sequences are cut out of the corpus.
    #[serde(default)]
    pub sampling: ClmSampling,
    /// The token between documents; by default the tokenizer's end token. `""` for none.
    pub separator: Option<String>,
    /// Count positions from 0 in every document.
    #[serde(default)]
    pub reset_positions: bool,
    /// Let tokens attend to earlier documents of the same sequence.
    #[serde(default = "default_true")]
    pub cross_document_attention: bool,
}

fn default_true() -> bool {
    true
}

/// How sequences are cut out of the corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClmSampling {
    /// Documents joined and cut into consecutive blocks; every block once an epoch, in random order.
    #[default]
    Packed,
    /// Windows that start anywhere, drawn independently.
    RandomWindow,
}

/// Masked language modelling (Devlin et al. 2019).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mlm {
    /// Tokens of a sequence, special ones included; by default all positions of the model.
    pub max_len: Option<usize>,
    /// Share of the tokens that are chosen.
    #[serde(default = "default_probability")]
    pub probability: f64,
    /// Share of the chosen that become the mask token.
    #[serde(default = "default_mask")]
    pub mask: f64,
    /// Share of the chosen that become a random token.
    #[serde(default = "default_rest")]
    pub random: f64,
    /// Share of the chosen that stay.
    #[serde(default = "default_rest")]
    pub keep: f64,
    /// Choose all tokens of a word together.
    #[serde(default)]
    pub whole_word: bool,
    /// Choose runs of up to so many words together, a run of n with a probability proportional to 1/n (Lan et al. 2020); 1 for none.
    #[serde(default = "default_ngram")]
    pub max_ngram: usize,
    /// Predict as well whether the second segment follows the first (half of them do).
    #[serde(default)]
    pub next_sentence: bool,
    /// Predict as well whether two segments stand in their order (Lan et al. 2020; half of them are swapped).
    #[serde(default)]
    pub sentence_order: bool,
    /// Chance that a subword of more than one character is taken apart while it is learned from (Hiraoka 2022).
    #[serde(default)]
    pub subword_dropout: f64,
}

fn default_ngram() -> usize {
    1
}

impl Mlm {
    /// What is hidden together.
    pub fn units(&self) -> Units {
        match (self.max_ngram, self.whole_word) {
            (0 | 1, false) => Units::Tokens,
            (0 | 1, true) => Units::Words,
            (longest, _) => Units::Ngrams(longest),
        }
    }

    /// What is predicted about two segments.
    pub fn pairs(&self) -> PairKind {
        match (self.next_sentence, self.sentence_order) {
            (true, _) => PairKind::NextSentence,
            (false, true) => PairKind::SentenceOrder,
            (false, false) => PairKind::None,
        }
    }
}

/// Replaced-token detection (Clark et al. 2020): a generator fills hidden tokens, the discriminator finds them. Both are trained
/// together and share their embeddings; the generator's loss counts once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rtd {
    /// Tokens of a sequence, special ones included; by default all positions of the model.
    pub max_len: Option<usize>,
    /// Share of the tokens that are hidden; all of them become the mask token.
    #[serde(default = "default_probability")]
    pub probability: f64,
    /// Hide all tokens of a word together.
    #[serde(default)]
    pub whole_word: bool,
    /// Width and heads of the generator as a share of the discriminator's (published: a quarter to a half).
    #[serde(default = "default_generator")]
    pub generator: f64,
    /// Factor on the discriminator's loss.
    #[serde(default = "default_detection")]
    pub detection_factor: f64,
}

fn default_generator() -> f64 {
    0.25
}

fn default_detection() -> f64 {
    f64::from(malmoi_models::labels::DETECTION_FACTOR)
}

/// Translation language modelling (Conneau and Lample 2019). The files of `[data]` are tables with a text and its translation a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tlm {
    /// Tokens of a sequence, special ones included; by default all positions of the model.
    pub max_len: Option<usize>,
    /// Share of the tokens that are chosen on each side; 80 % of them are masked, 10 % random, 10 % kept.
    #[serde(default = "default_probability")]
    pub probability: f64,
    /// Choose all tokens of a word together.
    #[serde(default)]
    pub whole_word: bool,
    /// Columns of the two texts.
    pub columns: [String; 2],
    /// Language ids of the two texts, for models that tell languages apart.
    #[serde(default = "default_languages")]
    pub languages: [u32; 2],
    /// Share of the examples that are a text with its translation; the others are one of the two alone (masked language modelling).
    #[serde(default = "default_share")]
    pub pairs: f64,
}

fn default_languages() -> [u32; 2] {
    [0, 1]
}

fn default_share() -> f64 {
    1.0
}

/// Span corruption (Raffel et al. 2020), alone or mixed with text-to-text tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanCorruption {
    /// Tokens of a corrupted input, end token included; by default all positions of the model, 512 where it has no bound.
    pub max_len: Option<usize>,
    /// Share of the tokens that are hidden.
    #[serde(default = "default_probability")]
    pub density: f64,
    /// Mean length of a hidden span.
    #[serde(default = "default_mean_span")]
    pub mean_span: f64,
    /// Levels the sizes of text and tasks when they are mixed: 1 mixes in proportion, more makes them more equal.
    #[serde(default = "default_share")]
    pub temperature: f64,
    /// Counts a data set as at most so many examples when they are mixed.
    pub limit: Option<u64>,
    /// Tasks beside the text.
    #[serde(default)]
    pub tasks: Vec<TextTask>,
}

fn default_mean_span() -> f64 {
    3.0
}

/// A text-to-text task in a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextTask {
    /// Training tables.
    pub train: OneOrMany,
    /// Validation tables.
    pub valid: Option<OneOrMany>,
    /// Column of the source.
    #[serde(default = "default_source")]
    pub source_column: String,
    /// Column of the target.
    #[serde(default = "default_target")]
    pub target_column: String,
    /// Text before every source, which tells the tasks apart.
    #[serde(default)]
    pub prefix: String,
    /// Tokens of a target, end token included.
    #[serde(default = "default_target_len")]
    pub max_target_len: usize,
}

/// Denoising (Lewis et al. 2020): spans of the input are hidden behind one mask token each, its sentences are shuffled, and the decoder
/// writes the whole text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denoising {
    /// Tokens of a text, special ones included; by default all positions of the model.
    pub max_len: Option<usize>,
    /// Share of the tokens that are hidden.
    #[serde(default = "default_infilled")]
    pub probability: f64,
    /// Mean of the Poisson distribution of span lengths.
    #[serde(default = "default_mean_span")]
    pub mean_span: f64,
    /// Shuffle the sentences of the input.
    #[serde(default = "default_true")]
    pub permute_sentences: bool,
}

fn default_infilled() -> f64 {
    0.3
}

/// A text from a text. The files of `[data]` are tables with a source and a target a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text2text {
    /// Tokens of a source, end token included; by default all positions of the model, 512 where it has no bound.
    pub max_len: Option<usize>,
    /// Column of the source.
    #[serde(default = "default_source")]
    pub source_column: String,
    /// Column of the target.
    #[serde(default = "default_target")]
    pub target_column: String,
    /// Text before every source.
    #[serde(default)]
    pub prefix: String,
    /// Tokens of a target, end token included.
    #[serde(default = "default_target_len")]
    pub max_target_len: usize,
}

fn default_source() -> String {
    "source".into()
}

fn default_target() -> String {
    "target".into()
}

fn default_target_len() -> usize {
    128
}

fn default_probability() -> f64 {
    0.15
}

fn default_mask() -> f64 {
    0.8
}

fn default_rest() -> f64 {
    0.1
}
