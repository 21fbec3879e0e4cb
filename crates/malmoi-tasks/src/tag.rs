//! A tag for every word or character: named entities in the layouts of CoNLL (a word a line) and KLUE (a character a line).
//!
//! Text goes through the tokenizer as it is written; offsets say which token a unit belongs to. Of a word, the first token carries the
//! tag (Devlin et al. 2019, section 5.3). Of characters, a token carries the tag of its first one, and says it for all of them: a `B-`
//! tag for the first and `I-` for the rest (Park et al. 2021, appendix of KLUE). White space is no unit.

use std::path::Path;

use malmoi_text::{EncodeOptions, RowFormat, Truncation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::conll::{CHARACTERS, read_tagged};
use crate::encoder::Encoder;
use crate::error::TaskError;
use crate::metrics::entities::{Entity, Scheme, entities, macro_f1, micro};
use crate::metrics::{mean, ratio};
use crate::records::{Record, Records, read_rows};
use crate::task::{
    Case, Layout, Oddity, OutputKind, Prediction, Sequence, Task, Truth, best, distinct,
    probabilities, surprise,
};

/// A token of a row: its first character, the one behind its last, and its place in the row.
type Token = (usize, usize, usize);

/// What gets a tag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// Characters where the training file has KLUE's headers (`## …`), else words.
    #[default]
    Auto,
    /// Words.
    Words,
    /// Characters.
    Characters,
}

/// A tag for every word or character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tag {
    /// Column of the text, or of the list of tokens, in tables. Files of another kind have a token and its tag a line.
    pub text_column: String,
    /// Column of the list of tags in tables.
    pub label_column: String,
    /// What gets a tag.
    pub units: Units,
}

impl Default for Tag {
    fn default() -> Self {
        Self {
            text_column: "tokens".into(),
            label_column: "tags".into(),
            units: Units::Auto,
        }
    }
}

/// A unit of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// First character and the one behind the last.
    pub chars: (usize, usize),
    /// The token that says its tag; none where the text was cut.
    pub token: Option<usize>,
    /// Whether it is the first unit of its token.
    pub first: bool,
}

/// A text with the units that get tags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tagged {
    /// The text.
    pub text: String,
    /// Its units.
    pub units: Vec<Unit>,
}

/// The tags of a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tags {
    /// Number of the tag of each unit; units that were cut off have the tag `O`.
    pub classes: Vec<u32>,
    /// Probability of each.
    pub probabilities: Vec<f64>,
    /// Sum of the losses of the tokens that carry a tag, and their number; where the truth is known.
    pub loss: Option<(f64, usize)>,
}

impl Tag {
    /// With the units that training data shows.
    pub fn settled(mut self, records: &[Record]) -> Self {
        if self.units == Units::Auto {
            let of_characters = |record: &Record| record.value(CHARACTERS) == Some(&json!(true));
            self.units = match records.iter().any(of_characters) {
                true => Units::Characters,
                false => Units::Words,
            };
        }
        self
    }

    fn by_characters(&self, record: &Record) -> bool {
        match self.units {
            Units::Auto => record.value(CHARACTERS) == Some(&json!(true)),
            units => units == Units::Characters,
        }
    }

    /// The text of a row, and for each token of it its first character, the one behind its last, and its place in the row.
    fn text_of(&self, record: &Record) -> Result<(String, Vec<Token>), TaskError> {
        let by_characters = self.by_characters(record);
        if !record.value(&self.text_column).is_some_and(Value::is_array) {
            let text = record.text(&self.text_column)?;
            let units = match by_characters {
                true => characters(&text),
                false => words(&text),
            };
            return Ok((text, units));
        }
        let tokens = record.texts(&self.text_column)?;
        let (mut text, mut units, mut at) = (String::new(), Vec::new(), 0);
        for (place, token) in tokens.iter().enumerate() {
            if !by_characters && place > 0 {
                text.push(' ');
                at += 1;
            }
            let length = token.chars().count();
            if !token.trim().is_empty() {
                units.push((at, at + length, place));
            }
            text.push_str(token);
            at += length;
        }
        Ok((text, units))
    }

    /// The tag of each token of a row.
    fn tags_of(&self, record: &Record) -> Result<Vec<String>, TaskError> {
        let tags = record.texts(&self.label_column)?;
        let tokens = record.texts(&self.text_column)?;
        if tags.len() != tokens.len() {
            let found = format!("{} tags for {} tokens", tags.len(), tokens.len());
            return Err(record.bad(&self.label_column, found, "a tag for every token"));
        }
        Ok(tags)
    }

    /// The entity F1 of a model that is always right about the tag of a token: what keeps it from 1 is that tokens reach over the ends of
    /// entities, or that texts were cut. 1 where there are none.
    pub fn ceiling(&self, cases: &[Case], labels: &[String]) -> f64 {
        let name = |class: &u32| labels.get(*class as usize).map_or("O", String::as_str);
        let (mut right, mut said) = (Vec::new(), Vec::new());
        for case in cases {
            let (Layout::Tagged(tagged), Some(Truth::Tags(truth))) = (&case.layout, &case.truth)
            else {
                continue;
            };
            let mut of_token = 0;
            let classes: Vec<u32> = (tagged.units.iter().zip(truth))
                .map(|(unit, &class)| match (unit.token, unit.first) {
                    (None, _) => outside(labels),
                    (Some(_), false) => continued(of_token, labels),
                    (Some(_), true) => {
                        of_token = class;
                        class
                    }
                })
                .collect();
            right.push(truth.iter().map(name).collect::<Vec<_>>());
            said.push(classes.iter().map(name).collect::<Vec<_>>());
        }
        match right
            .iter()
            .all(|tags| entities(tags, Scheme::Lenient).is_empty())
        {
            true => 1.0,
            false => micro(&right, &said, Scheme::Lenient).f1,
        }
    }

    /// The entities that some tags mark, with their places in the text: characters and bytes, ends behind the last.
    fn spans(&self, tagged: &Tagged, tags: &[&str]) -> Vec<Value> {
        let bytes: Vec<usize> = (tagged.text.char_indices().map(|(at, _)| at))
            .chain([tagged.text.len()])
            .collect();
        let found = entities(tags, Scheme::Lenient).into_iter();
        found
            .filter(|Entity(kind, ..)| !kind.is_empty())
            .map(|Entity(kind, first, last)| {
                let start = tagged.units[first].chars.0;
                let end = tagged.units[last].chars.1;
                let (from, to) = (bytes[start], bytes[end]);
                json!({
                    "type": kind, "text": &tagged.text[from..to], "start": start, "end": end,
                    "byte_start": from, "byte_end": to,
                })
            })
            .collect()
    }
}

/// White space divides words; punctuation marks stand alone, as in files with a word a line.
fn words(text: &str) -> Vec<Token> {
    let mut units: Vec<Token> = Vec::new();
    let mut open = false;
    for (at, c) in text.chars().enumerate() {
        let alone = c.is_ascii_punctuation();
        if c.is_whitespace() {
            open = false;
        } else if open && !alone {
            units.last_mut().expect("a word is open").1 = at + 1;
        } else {
            units.push((at, at + 1, units.len()));
            open = !alone;
        }
    }
    units
}

fn characters(text: &str) -> Vec<Token> {
    let all = text.chars().enumerate();
    all.filter(|(_, c)| !c.is_whitespace())
        .map(|(at, _)| (at, at + 1, at))
        .collect()
}

/// First place of an `I-` tag that continues no entity of its type.
fn broken(tags: &[&str]) -> Option<usize> {
    (0..tags.len()).find(|&at| {
        let Some(kind) = tags[at].strip_prefix("I-") else {
            return false;
        };
        let before = at.checked_sub(1).map_or("", |at| tags[at]);
        let continued = before.strip_prefix("B-").or(before.strip_prefix("I-"));
        continued != Some(kind)
    })
}

/// First place of a tag that is neither `O` nor part of an entity.
fn other(tags: &[&str]) -> Option<usize> {
    let of_entity = |tag: &str| ["B-", "I-", "E-", "S-"].iter().any(|p| tag.starts_with(p));
    tags.iter().position(|tag| *tag != "O" && !of_entity(tag))
}

/// Number of the tag `O`, or 0 where there is none.
fn outside(labels: &[String]) -> u32 {
    labels.iter().position(|l| l == "O").unwrap_or(0) as u32
}

/// Number of the tag that continues what `class` begins.
fn continued(class: u32, labels: &[String]) -> u32 {
    let inside = labels
        .get(class as usize)
        .and_then(|tag| tag.strip_prefix("B-"))
        .and_then(|kind| {
            labels
                .iter()
                .position(|l| l.strip_prefix("I-") == Some(kind))
        });
    inside.map_or(class, |inside| inside as u32)
}

impl Task for Tag {
    fn name(&self) -> &'static str {
        "tag"
    }

    fn output(&self) -> OutputKind {
        OutputKind::Tags
    }

    fn inputs(&self) -> Vec<&str> {
        vec![&self.text_column]
    }

    fn targets(&self) -> Vec<&str> {
        vec![&self.label_column]
    }

    /// Tables with lists (JSON lines, Parquet), or files with a token and its tag a line.
    fn rows(&self, path: &Path, encoding: &str, truth: bool) -> Result<Records, TaskError> {
        let columns = (
            self.text_column.as_str(),
            truth.then_some(self.label_column.as_str()),
        );
        match RowFormat::of(path) {
            None | Some(RowFormat::Tsv) => read_tagged(path, columns, encoding),
            Some(_) => {
                let names: Vec<&str> = std::iter::once(columns.0).chain(columns.1).collect();
                read_rows(path, &names, encoding)
            }
        }
    }

    fn labels(&self, records: &[Record]) -> Result<Vec<String>, TaskError> {
        let mut all = Vec::new();
        for record in records {
            all.extend(self.tags_of(record)?);
            all.sort_unstable();
            all.dedup();
        }
        match distinct(all).as_slice() {
            [only] => Err(TaskError::OneLabel(only.clone())),
            labels => Ok(labels.to_vec()),
        }
    }

    fn case(
        &self,
        record: &Record,
        labels: Option<&[String]>,
        encoder: &Encoder<'_>,
    ) -> Result<Case, TaskError> {
        let (text, places) = self.text_of(record)?;
        let options = EncodeOptions {
            truncation: Some(Truncation::to(encoder.max_len)),
            ..EncodeOptions::default()
        };
        let mut encoding = encoder.tokenizer.encode(&text, None, &options)?;
        encoding.cover_whole_characters(&text, None);
        let units = with_tokens(&places, &encoding.offsets, &encoding.sequence_ids);
        let mut oddity = places
            .is_empty()
            .then(|| (Oddity::EmptyText, record.place()));
        let mut truth = None;
        if let Some(labels) = labels {
            let tags = self.tags_of(record)?;
            let mut classes = Vec::with_capacity(places.len());
            for &(.., place) in &places {
                let tag = &tags[place];
                let class = labels.iter().position(|known| known == tag);
                classes.push(class.ok_or_else(|| TaskError::UnknownLabel {
                    place: record.place_after(place as u64),
                    label: tag.clone(),
                    known: labels.join(", "),
                })? as u32);
            }
            let shown: Vec<&str> = places.iter().map(|&(.., p)| tags[p].as_str()).collect();
            for (kind, at) in [
                (Oddity::OtherTags, other(&shown)),
                (Oddity::BrokenTags, broken(&shown)),
            ] {
                let place = |at: usize| record.place_after(places[at].2 as u64);
                oddity = oddity.or(at.map(|at| (kind, place(at))));
            }
            truth = Some(Truth::Tags(classes));
        }
        Ok(Case {
            truncated: !encoding.overflowing.is_empty(),
            inputs: vec![Sequence {
                segments: encoder.segments_of(&encoding.type_ids),
                ids: encoding.ids,
            }],
            truth,
            oddity,
            layout: Layout::Tagged(Tagged { text, units }),
        })
    }

    fn decode(&self, case: &Case, outputs: &[f32], labels: &[String]) -> Prediction {
        let Layout::Tagged(tagged) = &case.layout else {
            return Prediction::Tags(Tags::default());
        };
        let width = outputs.len() / case.tokens().max(1);
        let row = |token: usize| &outputs[token * width..(token + 1) * width];
        let mut tags = Tags::default();
        for unit in &tagged.units {
            let Some(token) = unit.token else {
                tags.classes.push(outside(labels));
                tags.probabilities.push(1.0);
                continue;
            };
            let all = probabilities(row(token));
            let class = best(&all);
            tags.probabilities
                .push(all.get(class).copied().unwrap_or(0.0));
            tags.classes.push(match unit.first {
                true => class as u32,
                false => continued(class as u32, labels),
            });
        }
        if let Some(Truth::Tags(truth)) = &case.truth {
            let counted = tagged
                .units
                .iter()
                .zip(truth)
                .filter(|(unit, _)| unit.first);
            let losses: Vec<f64> = counted
                .filter_map(|(unit, &class)| Some(surprise(row(unit.token?), class)))
                .collect();
            tags.loss = Some((losses.iter().sum(), losses.len()));
        }
        Prediction::Tags(tags)
    }

    /// `loss` (mean cross-entropy of the tokens that carry a tag); `f1`, `precision` and `recall` of entities in seqeval's default
    /// measure; `f1_strict` and `f1_macro` (plain mean over the types, KLUE's entity F1) in its strict measure; `f1_char`, the mean F1 of the
    /// tags over characters (KLUE's character F1; not for words); `accuracy` of the units.
    fn score(
        &self,
        truths: &[Truth],
        predictions: &[Prediction],
        labels: &[String],
    ) -> Vec<(&'static str, f64)> {
        let name = |class: &u32| labels.get(*class as usize).map_or("O", String::as_str);
        let (mut right, mut said) = (Vec::new(), Vec::new());
        let (mut loss, mut counted) = (0.0, 0);
        for pair in truths.iter().zip(predictions) {
            if let (Truth::Tags(truth), Prediction::Tags(tags)) = pair {
                right.push(truth.iter().map(name).collect::<Vec<_>>());
                said.push(tags.classes.iter().map(name).collect::<Vec<_>>());
                let (sum, n) = tags.loss.unwrap_or_default();
                (loss, counted) = (loss + sum, counted + n);
            }
        }
        let whole = micro(&right, &said, Scheme::Lenient);
        let pairs = || right.iter().flatten().zip(said.iter().flatten());
        let equal = pairs().map(|(a, b)| f64::from(a == b));
        let mut scores = vec![
            ("loss", ratio(loss, counted as f64)),
            ("f1", whole.f1),
            ("precision", whole.precision),
            ("recall", whole.recall),
            ("f1_strict", micro(&right, &said, Scheme::Strict).f1),
            ("f1_macro", macro_f1(&right, &said, Scheme::Strict)),
            ("accuracy", mean(equal)),
        ];
        if self.units != Units::Words {
            // A tag that neither occurs nor is said counts as found, as in the published measure.
            let of_tag = |tag: &str| {
                let count = |f: &dyn Fn(&&str, &&str) -> bool| {
                    pairs().filter(|(a, b)| f(a, b)).count() as f64
                };
                let hits = count(&|a, b| *a == tag && *b == tag);
                let all = count(&|a, _| *a == tag) + count(&|_, b| *b == tag);
                if all == 0.0 { 1.0 } else { 2.0 * hits / all }
            };
            let f1 = mean(labels.iter().map(|label| of_tag(label)));
            scores.insert(6, ("f1_char", f1));
        }
        scores
    }

    fn judged_by(&self) -> (&'static str, bool) {
        ("f1", true)
    }

    fn show(&self, case: &Case, prediction: &Prediction, labels: &[String]) -> Value {
        let (Layout::Tagged(tagged), Prediction::Tags(tags)) = (&case.layout, prediction) else {
            return Value::Null;
        };
        let names: Vec<&str> = tags
            .classes
            .iter()
            .map(|&class| labels.get(class as usize).map_or("O", String::as_str))
            .collect();
        json!({ "entities": self.spans(tagged, &names), "tags": names, "text": tagged.text })
    }
}

/// The token of each unit: the first one that shares a character with it.
fn with_tokens(
    places: &[(usize, usize, usize)],
    offsets: &[(usize, usize)],
    sequences: &[Option<usize>],
) -> Vec<Unit> {
    let mut last = None;
    let mut from = 0;
    let mut units = Vec::with_capacity(places.len());
    for &(start, end, _) in places {
        // Tokens come in the order of the text, so those that end before this unit end before all later ones.
        let passed = |i: &usize| sequences[*i].is_none() || offsets[*i].1 <= start;
        while from < offsets.len() && passed(&from) {
            from += 1;
        }
        let token = (from..offsets.len())
            .find(|&i| sequences[i].is_some() && offsets[i].1 > offsets[i].0)
            .filter(|&i| offsets[i].0 < end);
        units.push(Unit {
            chars: (start, end),
            token,
            first: token.is_some() && token != last,
        });
        last = token.or(last);
    }
    units
}

#[cfg(test)]
mod tests;
