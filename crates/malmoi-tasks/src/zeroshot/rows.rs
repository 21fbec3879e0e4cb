//! Rows of a data set as questions.

use std::path::Path;

use malmoi_kernels::random::{Key, Purpose};
use malmoi_text::{RowOptions, RowReader};
use serde_json::{Map, Value};

use super::error::ZeroShotError;
use super::template::{Answer, Choices, Template};
use super::text::{Pattern, lookup, plain};
use crate::error::TaskError;

/// A row of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// File and line.
    pub place: String,
    /// Its cells.
    pub cells: Map<String, Value>,
}

/// One possible answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What stands before it.
    pub prompt: String,
    /// What is scored: the delimiter and the text.
    pub continuation: String,
    /// The text alone.
    pub text: String,
}

/// A question with its possible answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// File and line.
    pub place: String,
    /// The possible answers.
    pub choices: Vec<Choice>,
    /// Number of the right one.
    pub answer: usize,
    /// The part of the data set that it belongs to.
    pub group: Option<String>,
    /// What stands before the answers when their own probability is wanted.
    pub unconditional: Option<String>,
}

/// Reads the rows of a table, at most `limit`.
///
/// # Errors
/// A file that cannot be read or has no rows.
pub fn read_rows(path: &Path, limit: Option<usize>, encoding: &str) -> Result<Vec<Row>, TaskError> {
    let mut options = RowOptions::default();
    options.read.encoding = Some(encoding.to_owned());
    let mut rows = Vec::new();
    for row in RowReader::open(path, &options)?.take(limit.unwrap_or(usize::MAX)) {
        let row = row?;
        let cells = row.columns().into_iter().map(str::to_owned);
        rows.push(Row {
            place: format!("{}: line {}", path.display(), row.line()),
            cells: cells
                .filter_map(|column| row.value(&column).map(|value| (column, value)))
                .collect(),
        });
    }
    match rows.is_empty() {
        true => Err(TaskError::NoRows(path.to_path_buf())),
        false => Ok(rows),
    }
}

impl Template {
    /// Whether a row has the columns of this template.
    pub fn fits(&self, row: &Row) -> bool {
        let mut columns = self.columns().into_iter();
        columns.all(|column| lookup(&row.cells, column).is_some())
    }

    /// A row as a question, with solved rows before it.
    ///
    /// # Errors
    /// A column that is absent, or a cell that cannot be used.
    pub fn item(&self, row: &Row, examples: &[&Row]) -> Result<Item, ZeroShotError> {
        let mut before = String::new();
        for example in examples {
            before += &self.solved(example)?;
            before += &self.separator;
        }
        let before = [self.preamble.as_str(), &before].concat();
        let texts = self.texts(row)?;
        let answer = self.answer_of(row, &texts)?;
        let choices = texts.into_iter().enumerate().map(|(i, text)| {
            let own = self.prompt(row, i)?;
            Ok(Choice {
                continuation: [self.between(&own), &text].concat(),
                prompt: [before.as_str(), &own].concat(),
                text,
            })
        });
        Ok(Item {
            place: row.place.clone(),
            choices: choices.collect::<Result<_, ZeroShotError>>()?,
            answer,
            group: match &self.group {
                Some(column) => Some(self.cell(row, column)?),
                None => None,
            },
            unconditional: self.unconditional.clone(),
        })
    }

    /// A row with its right answer, as an example.
    fn solved(&self, row: &Row) -> Result<String, ZeroShotError> {
        let mut texts = self.texts(row)?;
        let answer = self.answer_of(row, &texts)?;
        let prompt = self.prompt(row, answer)?;
        let between = self.between(&prompt);
        Ok([prompt.as_str(), between, &texts.swap_remove(answer)].concat())
    }

    /// Nothing stands between an empty prompt and what follows.
    fn between(&self, prompt: &str) -> &str {
        if prompt.is_empty() {
            ""
        } else {
            &self.delimiter
        }
    }

    fn prompt(&self, row: &Row, choice: usize) -> Result<String, ZeroShotError> {
        let of_choice = self.prompts.get(choice);
        self.fill(of_choice.unwrap_or(&self.prompts[0]), row)
    }

    /// The texts of the possible answers.
    fn texts(&self, row: &Row) -> Result<Vec<String>, ZeroShotError> {
        match &self.choices {
            Choices::Texts(texts) => texts.iter().map(|text| self.fill(text, row)).collect(),
            Choices::List(column) => {
                let value = lookup(&row.cells, column);
                let list = value
                    .and_then(Value::as_array)
                    .filter(|list| list.len() >= 2);
                let texts = list.and_then(|list| list.iter().map(plain).collect());
                texts
                    .ok_or_else(|| self.unusable(row, column, value, "a list of two texts or more"))
            }
        }
    }

    fn answer_of(&self, row: &Row, texts: &[String]) -> Result<usize, ZeroShotError> {
        let (column, number) = match &self.answer {
            Answer::Fixed(answer) => return Ok(*answer),
            Answer::Number(column, base) => {
                let text = self.cell(row, column)?;
                let number = text.trim().parse::<usize>().ok();
                (column, number.and_then(|number| number.checked_sub(*base)))
            }
            Answer::Name(column, names) => {
                let text = self.cell(row, column)?;
                (column, names.iter().position(|name| name == text.trim()))
            }
        };
        number
            .filter(|number| *number < texts.len())
            .ok_or_else(|| {
                let expected = match &self.answer {
                    Answer::Name(..) => "one of the template's labels",
                    _ => "the number of one of the row's choices",
                };
                self.unusable(row, column, lookup(&row.cells, column), expected)
            })
    }

    fn cell(&self, row: &Row, column: &str) -> Result<String, ZeroShotError> {
        let value = lookup(&row.cells, column);
        value
            .and_then(plain)
            .ok_or_else(|| self.unusable(row, column, value, "text"))
    }

    fn fill(&self, pattern: &Pattern, row: &Row) -> Result<String, ZeroShotError> {
        pattern
            .fill(&row.cells, &self.values)
            .map_err(|(column, value)| self.unusable(row, &column, value.as_ref(), "text"))
    }

    /// Why a cell cannot be used: it is absent, or holds something else.
    fn unusable(
        &self,
        row: &Row,
        column: &str,
        value: Option<&Value>,
        expected: &'static str,
    ) -> ZeroShotError {
        if let Some(value) = value {
            return ZeroShotError::Task(TaskError::BadCell {
                place: row.place.clone(),
                column: column.to_owned(),
                found: value.to_string(),
                expected,
            });
        }
        let fitting: Vec<&str> = Self::names()
            .filter(|name| Self::shipped(name).is_ok_and(|template| template.fits(row)))
            .collect();
        ZeroShotError::MissingColumn {
            place: row.place.clone(),
            column: column.to_owned(),
            template: self.name.clone(),
            found: row.cells.keys().cloned().collect::<Vec<_>>().join(", "),
            hint: match fitting.is_empty() {
                true => String::new(),
                false => format!("; these templates read them: {}", fitting.join(", ")),
            },
        }
    }

    /// All rows as questions, each with `shots` solved rows of `examples` before it, which a generator keyed by `seed` and the row's
    /// number chooses; a row is never its own example.
    ///
    /// # Errors
    /// Those of [`Template::item`]; [`ZeroShotError::TooFewExamples`].
    pub fn items(
        &self,
        rows: &[Row],
        examples: &[Row],
        shots: usize,
        seed: u64,
    ) -> Result<Vec<Item>, ZeroShotError> {
        let mut items = Vec::with_capacity(rows.len());
        for (n, row) in rows.iter().enumerate() {
            let order = match shots {
                0 => Vec::new(),
                _ => Key::new(seed, Purpose::Shuffle, n as u64).permutation(examples.len()),
            };
            let chosen: Vec<&Row> = order
                .into_iter()
                .map(|i| &examples[i as usize])
                .filter(|example| example.cells != row.cells)
                .take(shots)
                .collect();
            if chosen.len() < shots {
                return Err(ZeroShotError::TooFewExamples {
                    wanted: shots,
                    place: examples.first().map_or("the file".into(), |row| {
                        let file = row.place.rsplit_once(": line");
                        file.map_or(row.place.clone(), |(file, _)| file.to_owned())
                    }),
                    found: chosen.len(),
                });
            }
            items.push(self.item(row, &chosen)?);
        }
        Ok(items)
    }
}
