//! SQuAD's layout: `data[].paragraphs[].{context, qas[].{id, question, answers[].{text, answer_start}}}`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use malmoi_text::{LineReader, ReadOptions, TextError};
use serde_json::{Value, json};

use super::QuestionAnswering;
use crate::error::TaskError;
use crate::records::{Record, Records};

/// The file of a source, and the numbers of its articles where the source ends in `#FIRST-LAST`: publishers whose licence forbids edited
/// copies are split that way.
pub fn source_file(source: &Path) -> (PathBuf, Option<(usize, usize)>) {
    let whole = || (source.to_path_buf(), None);
    let Some((file, range)) = source.to_str().and_then(|text| text.rsplit_once('#')) else {
        return whole();
    };
    let range = range.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some((first, last))
    });
    match range {
        Some(range) if !source.exists() => (file.into(), Some(range)),
        _ => whole(),
    }
}

/// The questions of a file, in its order. Unanswerable ones (`is_impossible`) have no answers.
///
/// # Errors
/// A file that cannot be read, is not JSON, or lacks one of the fields.
pub fn read_squad(
    source: &Path,
    task: &QuestionAnswering,
    truth: bool,
) -> Result<Records, TaskError> {
    let (path, articles) = source_file(source);
    let text = text_of(&path)?;
    let bad = |line: u64, message: String| {
        TaskError::Text(TextError::BadRow {
            path: path.clone(),
            line,
            message,
        })
    };
    let file: Value = serde_json::from_str(&text)
        .map_err(|error| bad(error.line() as u64, format!("not valid JSON: {error}")))?;
    let mut lines = Lines {
        text: &text,
        at: 0,
        line: 1,
    };
    let missing = |line: u64, what: &str| {
        bad(
            line,
            format!(
                "no {what}; expected SQuAD's layout: data[].paragraphs[].{{context, qas[].{{id, question, answers}}}}"
            ),
        )
    };
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned();
    let data = list(&file, "data").ok_or_else(|| missing(1, "list `data`"))?;
    let (first, last) = articles.unwrap_or((0, usize::MAX));
    let origin: Arc<str> = path.display().to_string().into();
    let mut records = Vec::new();
    for (number, article) in data.iter().enumerate() {
        let paragraphs =
            list(article, "paragraphs").ok_or_else(|| missing(lines.line, "list `paragraphs`"))?;
        for paragraph in &paragraphs {
            let context = paragraph
                .get("context")
                .filter(|context| context.is_string());
            let context = context.ok_or_else(|| missing(lines.line, "text `context`"))?;
            let questions =
                list(paragraph, "qas").ok_or_else(|| missing(lines.line, "list `qas`"))?;
            for question in questions {
                let line = question.get("id").map_or(lines.line, |id| lines.find(id));
                if !(first..=last).contains(&number) {
                    continue;
                }
                let text = question.get("question").filter(|text| text.is_string());
                let text = text.ok_or_else(|| missing(line, "text `question`"))?;
                let mut cells = vec![
                    (task.context_column.clone(), context.clone()),
                    (task.question_column.clone(), text.clone()),
                    (
                        "id".to_owned(),
                        question.get("id").cloned().unwrap_or(Value::Null),
                    ),
                ];
                if truth {
                    let none = question.get("is_impossible") == Some(&json!(true));
                    let answers = match none {
                        true => json!([]),
                        false => question
                            .get("answers")
                            .cloned()
                            .ok_or_else(|| missing(line, "list `answers`"))?,
                    };
                    cells.push((task.answers_column.clone(), answers));
                }
                records.push(Ok(Record::at(Arc::clone(&origin), line, cells)));
            }
        }
    }
    Ok(Box::new(records.into_iter()))
}

/// All of a file; compressed ones are unpacked.
fn text_of(path: &Path) -> Result<String, TaskError> {
    // The whole file may be one line.
    let options = ReadOptions {
        max_line: ReadOptions::default().max_unpacked,
        ..ReadOptions::default()
    };
    let mut lines = LineReader::open(path, &options)?.keeping_ends();
    let mut text = String::new();
    while let Some(line) = lines.next_line()? {
        text.push_str(line);
    }
    Ok(text)
}

/// Finds the lines of question ids, which come in the order of the file.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: u64,
}

impl Lines<'_> {
    fn find(&mut self, id: &Value) -> u64 {
        if let Some(found) = self.text[self.at..].find(&id.to_string()) {
            let skipped = &self.text[self.at..self.at + found];
            self.line += skipped.bytes().filter(|byte| *byte == b'\n').count() as u64;
            self.at += found;
        }
        self.line
    }
}
