//! Extractive question answering: the answer is a span of the context (Rajpurkar et al. 2016; Devlin et al. 2019, section 4.2).
//!
//! A long context becomes overlapping windows behind the question. The answers of all windows compete by the sum of their start and end
//! logits; an answer counts in the window in which its first token has the most context around it. With `no_answer`, the first token of
//! a window stands for "no answer" (SQuAD 2.0).

mod spans;
mod squad;
#[cfg(test)]
mod tests;

use std::path::Path;

use malmoi_text::RowFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use spans::{ContextWindow, Span, best_spans, context_windows, max_context, null_score};
pub use squad::{read_squad, source_file};

use crate::encoder::Encoder;
use crate::error::TaskError;
use crate::metrics::answers::{AnswerScore, corpus, korquad, squad as squad_score};
use crate::metrics::ratio;
use crate::records::{Record, Records, read_rows};
use crate::task::{
    Case, Layout, Oddity, OutputKind, Prediction, Sequence, Task, Truth, probabilities, surprise,
};

/// How answers are made comparable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalization {
    /// SQuAD: articles and punctuation dropped, F1 over words.
    #[default]
    Squad,
    /// KorQuAD: brackets and punctuation dropped, F1 over characters.
    Korquad,
}

/// The answer to a question, cut out of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuestionAnswering {
    /// Column of the context, in tables.
    pub context_column: String,
    /// Column of the question, in tables.
    pub question_column: String,
    /// Column of the answers in tables: objects with `text` and `answer_start`, or one object with a list of each.
    pub answers_column: String,
    /// Context tokens by which windows advance.
    pub stride: usize,
    /// Tokens of a question; longer ones are cut.
    pub max_question_len: usize,
    /// Tokens of an answer.
    pub max_answer_len: usize,
    /// Answers that are weighed against each other.
    pub n_best: usize,
    /// Whether questions may have no answer.
    pub no_answer: bool,
    /// How much the score of "no answer" must exceed that of the best span.
    pub null_threshold: f64,
    /// How answers are compared.
    pub normalization: Normalization,
}

impl Default for QuestionAnswering {
    fn default() -> Self {
        Self {
            context_column: "context".into(),
            question_column: "question".into(),
            answers_column: "answers".into(),
            stride: 128,
            max_question_len: 64,
            max_answer_len: 30,
            n_best: 20,
            no_answer: false,
            null_threshold: 0.0,
            normalization: Normalization::Squad,
        }
    }
}

/// A token of a window that belongs to the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextToken {
    /// First character and the one behind the last.
    pub chars: (usize, usize),
    /// Whether this window has the most context around it of all windows that hold it.
    pub fullest: bool,
}

/// A question with the windows over its context: for each token of each input, what it is of the context.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Question {
    /// The context.
    pub context: String,
    /// A list a window, with an entry a token.
    pub windows: Vec<Vec<Option<ContextToken>>>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Its text; empty for "no answer".
    pub text: String,
    /// Sum of its two logits.
    pub score: f64,
    /// Its share among the answers that were weighed.
    pub probability: f64,
    /// First character and the one behind the last.
    pub chars: (usize, usize),
    /// The same in bytes.
    pub bytes: (usize, usize),
}

/// The texts and first characters of the answers of a row.
fn answers_of(record: &Record, column: &str) -> Result<Vec<(String, usize)>, TaskError> {
    let expected = "answers as objects with text and answer_start";
    let bad = || {
        let found = record
            .value(column)
            .map_or("nothing".into(), Value::to_string);
        record.bad(column, found, expected)
    };
    let one = |text: &Value, start: &Value| {
        let start = usize::try_from(start.as_u64()?).ok()?;
        Some((text.as_str()?.to_owned(), start))
    };
    let list = match record.value(column) {
        Some(Value::Array(list)) => list
            .iter()
            .map(|answer| one(answer.get("text")?, answer.get("answer_start")?))
            .collect(),
        Some(Value::Object(lists)) => {
            let part = |name: &str| lists.get(name).and_then(Value::as_array);
            match (part("text"), part("answer_start")) {
                (Some(texts), Some(starts)) if texts.len() == starts.len() => {
                    let both = texts.iter().zip(starts);
                    both.map(|(text, start)| one(text, start)).collect()
                }
                _ => None,
            }
        }
        _ => None,
    };
    list.ok_or_else(bad)
}

impl QuestionAnswering {
    /// The answers of a row, each checked against the context.
    fn checked_answers(
        &self,
        record: &Record,
        context: &str,
    ) -> Result<Vec<(String, usize)>, TaskError> {
        let answers = answers_of(record, &self.answers_column)?;
        if answers.is_empty() && !self.no_answer {
            return Err(record.bad(
                &self.answers_column,
                "a question without an answer".into(),
                "at least one answer (or --no-answer, for data that has questions without one)",
            ));
        }
        for (text, start) in &answers {
            let there: String = (context.chars().skip(*start))
                .take(text.chars().count())
                .collect();
            if there != *text {
                return Err(TaskError::BadAnswer {
                    place: record.place(),
                    answer: text.clone(),
                    start: *start,
                    found: there,
                    elsewhere: context
                        .find(text.as_str())
                        .map(|at| context[..at].chars().count()),
                });
            }
        }
        Ok(answers)
    }

    /// The question, cut to the tokens that it may have.
    fn cut(&self, question: &str, encoder: &Encoder<'_>) -> Result<(String, bool), TaskError> {
        let options = malmoi_text::EncodeOptions::plain();
        let encoding = encoder.tokenizer.encode(question, None, &options)?;
        match encoding.byte_offsets.get(self.max_question_len) {
            Some(&(end, _)) => Ok((question[..end].to_owned(), true)),
            None => Ok((question.to_owned(), false)),
        }
    }

    /// Spans of all windows, best first, and the score of "no answer".
    fn candidates(&self, question: &Question, outputs: &[f32]) -> (Vec<(usize, Span)>, f64) {
        let (mut all, mut null, mut from) = (Vec::new(), f64::INFINITY, 0);
        for (number, window) in question.windows.iter().enumerate() {
            let rows = &outputs[2 * from..2 * (from + window.len())];
            from += window.len();
            let column = |which: usize| -> Vec<f64> {
                let values = rows.iter().skip(which).step_by(2);
                values.map(|&logit| f64::from(logit)).collect()
            };
            let (mut starts, ends) = (column(0), column(1));
            null = null.min(null_score(&starts, &ends).unwrap_or(f64::INFINITY));
            let inside: Vec<bool> = window.iter().map(Option::is_some).collect();
            for (start, token) in starts.iter_mut().zip(window) {
                if token.is_none_or(|token| !token.fullest) {
                    *start = f64::NEG_INFINITY;
                }
            }
            let spans = best_spans(&starts, &ends, &inside, self.max_answer_len, self.n_best);
            let finite = spans.into_iter().filter(|span| span.score.is_finite());
            all.extend(finite.map(|span| (number, span)));
        }
        all.sort_by(|a, b| b.1.score.total_cmp(&a.1.score));
        all.truncate(self.n_best);
        (all, null)
    }

    fn answers(&self, question: &Question, outputs: &[f32]) -> Vec<Answer> {
        let (spans, null) = self.candidates(question, outputs);
        let bytes: Vec<usize> = (question.context.char_indices().map(|(at, _)| at))
            .chain([question.context.len()])
            .collect();
        let mut answers: Vec<Answer> = Vec::new();
        for (window, span) in spans {
            let place = |token: usize| question.windows[window][token].map(|token| token.chars);
            let (Some(first), Some(last)) = (place(span.start), place(span.end)) else {
                continue;
            };
            let chars = (first.0, last.1.max(first.0));
            let bytes = (bytes[chars.0], bytes[chars.1]);
            let text = question.context[bytes.0..bytes.1].to_owned();
            // The same text from another place adds nothing to choose from.
            if answers.iter().all(|answer| answer.text != text) {
                answers.push(Answer {
                    text,
                    score: span.score,
                    probability: 0.0,
                    chars,
                    bytes,
                });
            }
        }
        if self.no_answer || answers.is_empty() {
            let none = Answer {
                score: null,
                ..Answer::default()
            };
            let first = answers.first().map_or(f64::NEG_INFINITY, |best| best.score);
            let at = match null - first > self.null_threshold {
                true => 0,
                false => answers
                    .partition_point(|answer| answer.score >= null)
                    .max(1),
            };
            answers.insert(at.min(answers.len()), none);
        }
        let scores: Vec<f32> = answers.iter().map(|answer| answer.score as f32).collect();
        for (answer, probability) in answers.iter_mut().zip(probabilities(&scores)) {
            answer.probability = probability;
        }
        answers
    }
}

/// Sum of the losses of the windows: half the cross-entropies of start and end, each over the tokens of its window.
fn loss(question: &Question, outputs: &[f32], spans: &[(u32, u32)]) -> (f64, usize) {
    let (mut sum, mut from) = (0.0, 0);
    for (window, span) in question.windows.iter().zip(spans) {
        let rows = &outputs[2 * from..2 * (from + window.len())];
        from += window.len();
        let column = |which: usize| {
            rows.iter()
                .skip(which)
                .step_by(2)
                .copied()
                .collect::<Vec<_>>()
        };
        sum += 0.5 * (surprise(&column(0), span.0) + surprise(&column(1), span.1));
    }
    (sum, spans.len())
}

impl Task for QuestionAnswering {
    fn name(&self) -> &'static str {
        "qa"
    }

    fn output(&self) -> OutputKind {
        OutputKind::Spans
    }

    fn inputs(&self) -> Vec<&str> {
        vec![&self.context_column, &self.question_column]
    }

    fn targets(&self) -> Vec<&str> {
        vec![&self.answers_column]
    }

    /// SQuAD's JSON, or a table (JSON lines, Parquet).
    fn rows(&self, path: &Path, encoding: &str, truth: bool) -> Result<Records, TaskError> {
        if RowFormat::of(path).is_none() {
            return read_squad(path, self, truth);
        }
        let mut columns = self.inputs();
        if truth {
            columns.extend(self.targets());
        }
        read_rows(path, &columns, encoding)
    }

    fn labels(&self, _: &[Record]) -> Result<Vec<String>, TaskError> {
        Ok(Vec::new())
    }

    fn case(
        &self,
        record: &Record,
        labels: Option<&[String]>,
        encoder: &Encoder<'_>,
    ) -> Result<Case, TaskError> {
        let context = record.text(&self.context_column)?;
        let question = record.text(&self.question_column)?;
        let empty = context.trim().is_empty() || question.trim().is_empty();
        let (question, truncated) = self.cut(&question, encoder)?;
        let options = encoder.windows(&question, self.stride)?;
        let Some(options) = options else {
            return Err(record.bad(
                &self.question_column,
                format!(
                    "a question that fills all {} tokens of an input",
                    encoder.max_len
                ),
                "a shorter question (or a larger --max-len, where the model has more positions)",
            ));
        };
        let mut first = encoder
            .tokenizer
            .encode(&question, Some(&context), &options)?;
        first.cover_whole_characters(&question, Some(&context));
        let mut encodings = std::mem::take(&mut first.overflowing);
        encodings.insert(0, first);
        let of_context = |i: &malmoi_text::Encoding| {
            let ids = i.sequence_ids.iter();
            ids.filter(|id| **id == Some(1)).count()
        };
        let advance = match encodings.as_slice() {
            [first, _, ..] => of_context(first) - options.truncation.map_or(0, |t| t.stride),
            _ => 0,
        };
        let windows: Vec<ContextWindow> = encodings
            .iter()
            .enumerate()
            .map(|(number, encoding)| ContextWindow {
                start: number * advance,
                length: of_context(encoding),
            })
            .collect();
        let total = windows.last().map_or(0, |last| last.start + last.length);
        let fullest = max_context(&windows, total);
        let mut layout = Question {
            context,
            windows: Vec::with_capacity(windows.len()),
        };
        let mut inputs = Vec::with_capacity(windows.len());
        for (number, encoding) in encodings.into_iter().enumerate() {
            let mut at = windows[number].start;
            let places = encoding.sequence_ids.iter().zip(&encoding.offsets);
            let tokens = places.map(|(sequence, &chars)| {
                (*sequence == Some(1)).then(|| {
                    at += 1;
                    ContextToken {
                        chars,
                        fullest: fullest[at - 1] == number,
                    }
                })
            });
            layout.windows.push(tokens.collect());
            inputs.push(Sequence {
                segments: encoder.segments_of(&encoding.type_ids),
                ids: encoding.ids,
            });
        }
        let truth = match labels {
            None => None,
            Some(_) => {
                let answers = self.checked_answers(record, &layout.context)?;
                let spans = layout.windows.iter();
                let spans =
                    spans.map(|window| answers.first().map_or((0, 0), |a| place(window, a)));
                let spans = spans.collect();
                let texts = answers.into_iter().map(|(text, _)| text).collect();
                Some(Truth::Answers(texts, spans))
            }
        };
        Ok(Case {
            inputs,
            truth,
            truncated,
            oddity: empty.then(|| (Oddity::EmptyText, record.place())),
            layout: Layout::Question(layout),
        })
    }

    fn decode(&self, case: &Case, outputs: &[f32], _: &[String]) -> Prediction {
        let Layout::Question(question) = &case.layout else {
            return Prediction::Answers(Vec::new(), None);
        };
        let loss = match &case.truth {
            Some(Truth::Answers(_, spans)) => Some(loss(question, outputs, spans)),
            _ => None,
        };
        Prediction::Answers(self.answers(question, outputs), loss)
    }

    /// `loss` (mean over windows), `exact_match` and `f1`, both from 0 to 100 after the normalisation of SQuAD or KorQuAD.
    fn score(
        &self,
        truths: &[Truth],
        predictions: &[Prediction],
        _: &[String],
    ) -> Vec<(&'static str, f64)> {
        let (mut scores, mut loss, mut windows): (Vec<AnswerScore>, _, _) = (Vec::new(), 0.0, 0);
        for pair in truths.iter().zip(predictions) {
            if let (Truth::Answers(right, _), Prediction::Answers(said, of_row)) = pair {
                let said = said.first().map_or("", |answer| answer.text.as_str());
                // Nothing is the right answer where there is none.
                let none = [String::new()];
                let right = if right.is_empty() { &none[..] } else { right };
                scores.push(match self.normalization {
                    Normalization::Squad => squad_score(said, right),
                    Normalization::Korquad => korquad(said, right),
                });
                let (sum, n) = of_row.unwrap_or_default();
                (loss, windows) = (loss + sum, windows + n);
            }
        }
        let (exact, f1) = corpus(&scores);
        vec![
            ("loss", ratio(loss, windows as f64)),
            ("exact_match", exact),
            ("f1", f1),
        ]
    }

    fn judged_by(&self) -> (&'static str, bool) {
        ("f1", true)
    }

    fn show(&self, _: &Case, prediction: &Prediction, _: &[String]) -> Value {
        let Prediction::Answers(answers, _) = prediction else {
            return Value::Null;
        };
        let show = |answer: &Answer| {
            json!({
                "answer": answer.text, "score": answer.score, "probability": answer.probability,
                "start": answer.chars.0, "end": answer.chars.1, "byte_start": answer.bytes.0, "byte_end": answer.bytes.1,
            })
        };
        let mut shown = answers.first().map_or(Value::Null, show);
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("n_best".into(), answers.iter().map(show).collect());
        }
        shown
    }
}

/// First and last token of an answer in a window, (0, 0) where the window does not hold all of it.
fn place(window: &[Option<ContextToken>], (text, start): &(String, usize)) -> (u32, u32) {
    let end = start + text.chars().count();
    let holding = |at: usize| {
        window.iter().position(|token| {
            token.is_some_and(|token| (token.chars.0..token.chars.1).contains(&at))
        })
    };
    // White space belongs to no token: an answer may begin or end in it.
    let first = (*start..end).find_map(|at| holding(at).map(|token| (at, token)));
    let last = (*start..end)
        .rev()
        .find_map(|at| holding(at).map(|token| (at, token)));
    let blank = |from: usize, to: usize| {
        let mut between = text.chars().skip(from - start).take(to - from);
        between.all(char::is_whitespace)
    };
    match (first, last) {
        (Some((a, first)), Some((b, last))) if blank(*start, a) && blank(b + 1, end) => {
            (first as u32, last as u32)
        }
        _ => (0, 0),
    }
}
