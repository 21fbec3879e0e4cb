//! Files with a token and its tag a line and an empty line between sentences: CoNLL, and KLUE's layout with a character a line.

use std::path::Path;
use std::sync::Arc;

use malmoi_text::{LineReader, ReadOptions, TextError};
use serde_json::{Value, json};

use crate::error::TaskError;
use crate::records::{Record, Records};

/// Cell that says that the units of a sentence are characters.
pub(crate) const CHARACTERS: &str = "characters";

/// Sentences of a file as records with two lists, under the names `tokens` and `tags`. Of more than two columns the first is the token
/// and the last the tag. Lines that begin with `## ` stand before a sentence of characters and are no tokens; `-DOCSTART-` lines are
/// skipped.
///
/// # Errors
/// A file that cannot be read; a line without a tag.
pub fn read_tagged(
    path: &Path,
    (tokens, tags): (&str, Option<&str>),
    encoding: &str,
) -> Result<Records, TaskError> {
    let options = ReadOptions {
        encoding: Some(encoding.to_owned()),
        ..ReadOptions::default()
    };
    Ok(Box::new(Sentences {
        lines: LineReader::open(path, &options)?,
        path: path.into(),
        origin: path.display().to_string().into(),
        columns: (tokens.to_owned(), tags.map(str::to_owned)),
        characters: false,
        done: false,
    }))
}

struct Sentences {
    lines: LineReader,
    path: std::path::PathBuf,
    origin: Arc<str>,
    columns: (String, Option<String>),
    /// Whether the file has a header before its sentences, which sentences of characters have.
    characters: bool,
    done: bool,
}

impl Sentences {
    fn next_sentence(&mut self) -> Result<Option<Record>, TaskError> {
        let (mut tokens, mut tags) = (Vec::<Value>::new(), Vec::<Value>::new());
        let mut first = 0;
        while let Some(line) = self.lines.next_line()? {
            let line = line.trim_end_matches(['\r', '\n']).to_owned();
            let number = self.lines.line_number();
            if line.is_empty() {
                if tokens.is_empty() {
                    continue;
                }
                return Ok(Some(self.record(first, tokens, tags)));
            }
            if tokens.is_empty() && line.starts_with("## ") {
                self.characters = true;
                continue;
            }
            if line.starts_with("-DOCSTART-") {
                continue;
            }
            // A token may be a space, so that only tabs divide a line that has one.
            let mut cells = match line.contains('\t') {
                true => line.split('\t').collect::<Vec<_>>(),
                false => line.split_whitespace().collect(),
            };
            let tag = match (cells.len(), &self.columns.1) {
                (0 | 1, Some(_)) => {
                    return Err(TaskError::Text(TextError::BadRow {
                        path: self.path.clone(),
                        line: number,
                        message: format!(
                            "expected a token and its tag with a tab between them, found {line:?}; an empty line ends a sentence"
                        ),
                    }));
                }
                (0 | 1, None) => None,
                _ => cells.pop(),
            };
            if tokens.is_empty() {
                first = number;
            }
            tokens.push(json!(cells.first().copied().unwrap_or(" ")));
            tags.push(json!(tag));
        }
        self.done = true;
        Ok((!tokens.is_empty()).then(|| self.record(first, tokens, tags)))
    }

    fn record(&self, line: u64, tokens: Vec<Value>, tags: Vec<Value>) -> Record {
        let mut cells = vec![
            (self.columns.0.clone(), Value::Array(tokens)),
            (CHARACTERS.to_owned(), json!(self.characters)),
        ];
        if let Some(column) = &self.columns.1 {
            cells.push((column.clone(), Value::Array(tags)));
        }
        Record::at(Arc::clone(&self.origin), line, cells)
    }
}

impl Iterator for Sentences {
    type Item = Result<Record, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_sentence();
        self.done |= next.is_err();
        next.transpose()
    }
}
