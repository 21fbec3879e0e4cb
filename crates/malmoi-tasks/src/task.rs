//! What every task has in common.

use std::fmt::Debug;

use malmoi_text::{EncodeOptions, Tokenizer, Truncation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::TaskError;
use crate::records::Record;
use crate::{Classify, Regress, Text2text};

/// What a model must give for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Logits over the classes, one vector a sequence.
    Classes,
    /// One value a sequence.
    Value,
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
    /// Number of the class.
    Class(u32),
    /// A value.
    Value(f64),
    /// A text, and its tokens with the end token.
    Text(String, Vec<u32>),
}

/// What a model says.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// Probability of each class.
    Classes(Vec<f64>),
    /// A value.
    Value(f64),
    /// A text.
    Text(String),
}

/// One row, ready for a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What goes in.
    pub input: Sequence,
    /// What should come out; absent when only predictions are wanted.
    pub truth: Option<Truth>,
    /// Whether something was cut off.
    pub truncated: bool,
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

    /// The prediction in the logits of a case. Not called for tasks whose output is text.
    fn decode(&self, logits: &[f32]) -> Prediction;

    /// Metrics over cases, in the order in which they are shown. `loss` is among them where the predictions give it.
    fn score(&self, truths: &[Truth], predictions: &[Prediction]) -> Vec<(&'static str, f64)>;

    /// The metric that decides which checkpoint is best, and whether more is better.
    fn judged_by(&self) -> (&'static str, bool);

    /// A prediction as the fields of a JSON object.
    fn show(&self, prediction: &Prediction, labels: &[String]) -> Value;
}

/// The tasks by name, with their settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum TaskSpec {
    /// One class a row: of a text, or of a pair of texts.
    Classify(Classify),
    /// One value a row.
    Regress(Regress),
    /// A text from a text.
    Text2text(Text2text),
}

impl TaskSpec {
    /// The task.
    pub fn task(&self) -> &dyn Task {
        match self {
            Self::Classify(task) => task,
            Self::Regress(task) => task,
            Self::Text2text(task) => task,
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
}

impl Default for TextColumns {
    fn default() -> Self {
        Self {
            text_column: "text".into(),
            pair_column: None,
            label_column: "label".into(),
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

    /// The texts of a row as tokens, and whether they were cut.
    ///
    /// # Errors
    /// A cell without text, or those of the tokenizer.
    pub fn encode(
        &self,
        record: &Record,
        encoder: &Encoder<'_>,
    ) -> Result<(Sequence, bool), TaskError> {
        let text = record.text(&self.text_column)?;
        let pair = self.pair_column.as_deref().map(|c| record.text(c));
        encoder.encode(&text, pair.transpose()?.as_deref())
    }
}

/// Turns texts into tokens as a model wants them.
#[derive(Debug, Clone, Copy)]
pub struct Encoder<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Tokens of an input, special ones included.
    pub max_len: usize,
    /// Whether the model tells two segments apart.
    pub segments: bool,
    /// Whether source and target are one sequence (a decoder alone).
    pub decoder_only: bool,
}

impl Encoder<'_> {
    /// A text, or a pair of texts, and whether it was cut. A tokenizer that puts nothing between two texts gets its end token there.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<(Sequence, bool), TaskError> {
        let special = self.tokenizer.special();
        let filler = special.eos.or(special.bos).or(special.sep).or(special.pad);
        let joined = pair.is_some() && self.tokenizer.added_tokens(true) == 0;
        let separator = filler.filter(|_| joined);
        let room = self
            .max_len
            .saturating_sub(usize::from(separator.is_some()));
        let options = EncodeOptions {
            truncation: Some(Truncation::to(room)),
            ..EncodeOptions::default()
        };
        let encoding = self.tokenizer.encode(text, pair, &options)?;
        let mut sequence = Sequence {
            segments: match self.segments {
                true => encoding.type_ids.clone(),
                false => vec![0; encoding.ids.len()],
            },
            ids: encoding.ids,
        };
        if let Some(separator) = separator {
            let second = encoding.sequence_ids.iter().position(|&id| id == Some(1));
            let at = second.unwrap_or(sequence.ids.len());
            sequence.ids.insert(at, separator);
            sequence.segments.insert(at, 0);
        }
        if sequence.ids.is_empty()
            && let Some(filler) = filler
        {
            // An empty text still has to go through the model.
            sequence = Sequence {
                ids: vec![filler],
                segments: vec![0],
            };
        }
        Ok((sequence, !encoding.overflowing.is_empty()))
    }

    /// A text without the tokens of a layout, ended by the tokenizer's end token, in at most `max_len` tokens.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn ended(&self, text: &str, max_len: usize) -> Result<(Vec<u32>, bool), TaskError> {
        let mut ids = self.tokenizer.encode_ids(text, false)?;
        let end = self.tokenizer.special().eos;
        let room = max_len.saturating_sub(usize::from(end.is_some()));
        let cut = ids.len() > room;
        ids.truncate(room);
        ids.extend(end);
        Ok((ids, cut))
    }
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
