//! What every task has in common.

use std::fmt::Debug;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encoder::{Encoded, Encoder};
use crate::error::TaskError;
use crate::qa::{Answer, Question};
use crate::records::{Record, Records, read_rows};
use crate::tag::{Tagged, Tags};
use crate::{Choice, Classify, MultiLabel, Pair, QuestionAnswering, Regress, Tag, Text2text};

/// What a model must give for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Logits over the classes, one vector a sequence; exactly one class is right.
    Classes,
    /// The same where any number of classes may be right.
    Labels,
    /// One value a sequence.
    Value,
    /// Logits over the tags, one vector a token.
    Tags,
    /// Start and end logits, two a token.
    Spans,
    /// One logit a sequence; the sequences of a case compete.
    Choice,
    /// New text.
    Text,
}

/// The tokens of one input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    /// Token ids, special ones included.
    pub ids: Vec<u32>,
    /// Segment of each token; all 0 for a single text.
    pub segments: Vec<u32>,
}

/// What a row says is right.
#[derive(Debug, Clone, PartialEq)]
pub enum Truth {
    /// Number of the class, or of the choice.
    Class(u32),
    /// Which of the labels apply.
    Labels(Vec<bool>),
    /// A value.
    Value(f64),
    /// Number of the tag of each unit of a [`Tagged`] text.
    Tags(Vec<u32>),
    /// The right answers, none when there is none; and for each window of the [`Question`] the first and last token of the first one,
    /// or (0, 0) where the window does not hold it.
    Answers(Vec<String>, Vec<(u32, u32)>),
    /// A text, and its tokens with the end token.
    Text(String, Vec<u32>),
}

/// What a model says.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// Probability of each class, or choice.
    Classes(Vec<f64>),
    /// Probability of each label on its own.
    Labels(Vec<f64>),
    /// A value.
    Value(f64),
    /// A tag for each unit.
    Tags(Tags),
    /// Answers, best first, and, where the truth is known, the sum of the losses of the windows with their number. An empty text is "no
    /// answer".
    Answers(Vec<Answer>, Option<(f64, usize)>),
    /// A text.
    Text(String),
}

/// What a row has that is odd, but that the usual tools accept: it is counted and reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// A text without a single character.
    EmptyText,
    /// An `I-` tag that follows neither a `B-` nor an `I-` tag of its type.
    BrokenTags,
    /// A tag that marks no entity and is not `O`, as parts of speech are.
    OtherTags,
}

impl Oddity {
    /// What it is, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::EmptyText => "have an empty text",
            Self::BrokenTags => {
                "have an I- tag that continues no entity (it begins one in the default measure and none in the strict one)"
            }
            Self::OtherTags => {
                "have a tag that is neither O nor B-, I-, E- or S- with a type; accuracy counts it, the measures of entities do not"
            }
        }
    }
}

/// What decoding needs to know of a row besides the model's outputs.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Layout {
    /// Nothing.
    #[default]
    Plain,
    /// The units that get tags.
    Tagged(Tagged),
    /// A question with the windows over its context.
    Question(Question),
}

/// One row, ready for a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Case {
    /// What goes in: one sequence for most tasks; one a choice, a window of a context, or an order of two texts for others.
    pub inputs: Vec<Sequence>,
    /// What should come out; absent when only predictions are wanted.
    pub truth: Option<Truth>,
    /// Whether something was cut off.
    pub truncated: bool,
    /// Something odd, with its place.
    pub oddity: Option<(Oddity, String)>,
    /// How outputs belong to the row.
    pub layout: Layout,
}

impl Case {
    /// A case of encoded texts.
    pub(crate) fn new(encoded: Encoded, truth: Option<Truth>, record: &Record) -> Self {
        let empty = encoded.empty.then(|| (Oddity::EmptyText, record.place()));
        Self {
            inputs: encoded.inputs,
            truth,
            truncated: encoded.truncated,
            oddity: empty,
            layout: Layout::Plain,
        }
    }

    /// Tokens of all inputs.
    pub fn tokens(&self) -> usize {
        self.inputs.iter().map(|input| input.ids.len()).sum()
    }
}

/// Which columns are what, and how outputs are read and judged.
pub trait Task: Debug + Send + Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// What the model must give.
    fn output(&self) -> OutputKind;

    /// Columns of the input.
    fn inputs(&self) -> Vec<&str>;

    /// Columns of the truth.
    fn targets(&self) -> Vec<&str>;

    /// The rows of a file, one after another; with the columns of the truth when `truth` is asked for.
    ///
    /// # Errors
    /// A file that cannot be read, or lacks a column.
    fn rows(&self, path: &Path, encoding: &str, truth: bool) -> Result<Records, TaskError> {
        let mut columns = self.inputs();
        if truth {
            columns.extend(self.targets());
        }
        read_rows(path, &columns, encoding)
    }

    /// Names of the classes in training data, in the order of their numbers; empty for tasks without classes.
    ///
    /// # Errors
    /// Data that nothing can be learned from.
    fn labels(&self, records: &[Record]) -> Result<Vec<String>, TaskError>;

    /// A row as a case; with its truth when `labels` are given.
    ///
    /// # Errors
    /// A cell that cannot be used.
    fn case(
        &self,
        record: &Record,
        labels: Option<&[String]>,
        encoder: &Encoder<'_>,
    ) -> Result<Case, TaskError>;

    /// The prediction in the outputs of a case: those of all its inputs, one after another. Not called for tasks whose output is text.
    fn decode(&self, case: &Case, outputs: &[f32], labels: &[String]) -> Prediction;

    /// Metrics over cases, in the order in which they are shown. `loss` is among them where the predictions give it.
    fn score(
        &self,
        truths: &[Truth],
        predictions: &[Prediction],
        labels: &[String],
    ) -> Vec<(&'static str, f64)>;

    /// The metric that decides which checkpoint is best, and whether more is better.
    fn judged_by(&self) -> (&'static str, bool);

    /// A prediction as the fields of a JSON object.
    fn show(&self, case: &Case, prediction: &Prediction, labels: &[String]) -> Value;
}

/// The tasks by name, with their settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum TaskSpec {
    /// One class a row: of a text, or of a pair of texts.
    Classify(Classify),
    /// Any number of labels a row.
    MultiLabel(MultiLabel),
    /// One class a pair of texts.
    Pair(Pair),
    /// One value a row.
    Regress(Regress),
    /// A tag a word, or a character.
    Tag(Tag),
    /// The answer to a question, cut out of a text.
    Qa(QuestionAnswering),
    /// One of several continuations.
    Choice(Choice),
    /// A text from a text.
    Text2text(Text2text),
}

impl TaskSpec {
    /// The task.
    pub fn task(&self) -> &dyn Task {
        match self {
            Self::Classify(task) => task,
            Self::MultiLabel(task) => task,
            Self::Pair(task) => task,
            Self::Regress(task) => task,
            Self::Tag(task) => task,
            Self::Qa(task) => task,
            Self::Choice(task) => task,
            Self::Text2text(task) => task,
        }
    }

    /// Tokens that are written at most for a case; 1 where nothing is written.
    pub fn max_new_tokens(&self) -> usize {
        match self {
            Self::Text2text(task) => task.max_target_len,
            _ => 1,
        }
    }
}

impl TaskSpec {
    /// With what training data settles where the settings leave it open.
    pub fn settled(self, records: &[Record]) -> Self {
        match self {
            Self::Tag(task) => Self::Tag(task.settled(records)),
            other => other,
        }
    }
}

/// Where a row holds a text, perhaps a second one, and what is to be said about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextColumns {
    /// Column of the text.
    pub text_column: String,
    /// Column of the second text, for pairs (entailment, paraphrase, similarity).
    pub pair_column: Option<String>,
    /// Column of the label or value.
    pub label_column: String,
    /// Read the pair in both orders and add what the model says about them (GPT-1's similarity).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub both_orders: bool,
}

impl Default for TextColumns {
    fn default() -> Self {
        Self {
            text_column: "text".into(),
            pair_column: None,
            label_column: "label".into(),
            both_orders: false,
        }
    }
}

impl TextColumns {
    /// The columns of the texts.
    pub fn inputs(&self) -> Vec<&str> {
        let pair = self.pair_column.as_deref();
        std::iter::once(self.text_column.as_str())
            .chain(pair)
            .collect()
    }

    /// The texts of a row as tokens.
    ///
    /// # Errors
    /// A cell without text, or those of the tokenizer.
    pub fn encode(&self, record: &Record, encoder: &Encoder<'_>) -> Result<Encoded, TaskError> {
        let text = record.text(&self.text_column)?;
        let pair = self.pair_column.as_deref().map(|c| record.text(c));
        let pair = pair.transpose()?;
        let mut encoded = encoder.encode(&text, pair.as_deref())?;
        if self.both_orders
            && let Some(pair) = &pair
        {
            let other = encoder.encode(pair, Some(&text))?;
            encoded.inputs.extend(other.inputs);
            encoded.truncated |= other.truncated;
        }
        Ok(encoded)
    }
}

/// Number of the class that a cell names.
///
/// # Errors
/// A label that is none of `labels`.
pub(crate) fn class_of(
    record: &Record,
    label: String,
    labels: &[String],
) -> Result<u32, TaskError> {
    match labels.iter().position(|known| *known == label) {
        Some(class) => Ok(class as u32),
        None => Err(TaskError::UnknownLabel {
            place: record.place(),
            label,
            known: labels.join(", "),
        }),
    }
}

/// Distinct labels: in the order of their numbers when all are whole numbers, else in the order of their code points.
pub(crate) fn distinct(labels: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut labels: Vec<String> = labels.into_iter().collect();
    labels.sort_unstable();
    labels.dedup();
    if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
        labels.sort_by_key(|label| label.parse::<i64>().unwrap_or_default());
    }
    labels
}

/// Outputs of a case's inputs, `[I · K]`, added up to `[K]`.
pub(crate) fn summed(outputs: &[f32], inputs: usize) -> Vec<f32> {
    let width = (outputs.len() / inputs.max(1)).max(1);
    let mut sum = vec![0.0; width];
    for row in outputs.chunks_exact(width) {
        sum.iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += value);
    }
    sum
}

/// Softmax in double precision.
pub(crate) fn probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponents: Vec<f64> = logits
        .iter()
        .map(|&logit| (f64::from(logit) - f64::from(largest)).exp())
        .collect();
    let sum: f64 = exponents.iter().sum();
    exponents.into_iter().map(|e| e / sum).collect()
}

/// `-log softmax(logits)[target]`; what a confident mistake costs is bounded by the smallest positive number.
pub(crate) fn surprise(logits: &[f32], target: u32) -> f64 {
    let all = probabilities(logits);
    -all.get(target as usize)
        .copied()
        .unwrap_or(0.0)
        .max(f64::MIN_POSITIVE)
        .ln()
}

/// The first of the largest.
pub(crate) fn best(values: &[f64]) -> usize {
    let first = (0, f64::NEG_INFINITY);
    let best = values.iter().enumerate().fold(
        first,
        |best, (i, &v)| if v > best.1 { (i, v) } else { best },
    );
    best.0
}
