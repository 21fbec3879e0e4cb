//! Rows of data sets, with the cells that a task reads.

use std::path::Path;
use std::sync::Arc;

use malmoi_text::{RowFormat, RowOptions, RowReader};
use serde_json::Value;

use crate::error::TaskError;

/// Rows, read one after another.
pub type Records = Box<dyn Iterator<Item = Result<Record, TaskError>>>;

/// The cells of one row and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    origin: Arc<str>,
    line: Option<u64>,
    cells: Vec<(String, Value)>,
}

impl Record {
    /// A record made of texts: `(column, text)`. `place` stands in messages.
    pub fn new(place: impl Into<String>, cells: &[(&str, &str)]) -> Self {
        Self {
            origin: place.into().into(),
            line: None,
            cells: cells
                .iter()
                .map(|(column, text)| (column.to_string(), Value::String(text.to_string())))
                .collect(),
        }
    }

    /// A row of a file that begins on a line.
    pub fn at(origin: Arc<str>, line: u64, cells: Vec<(String, Value)>) -> Self {
        Self {
            origin,
            line: Some(line),
            cells,
        }
    }

    /// File and line.
    pub fn place(&self) -> String {
        self.place_after(0)
    }

    /// File and line, `lines` further down.
    pub fn place_after(&self, lines: u64) -> String {
        match self.line {
            Some(line) => format!("{}: line {}", self.origin, line + lines),
            None => self.origin.to_string(),
        }
    }

    /// A cell.
    pub fn value(&self, column: &str) -> Option<&Value> {
        let found = self.cells.iter().find(|(name, _)| name == column);
        found.map(|(_, value)| value)
    }

    /// A cell as text. Numbers and truth values of JSON lines become their text.
    ///
    /// # Errors
    /// [`TaskError::BadCell`] when the cell is absent, or holds no text.
    pub fn text(&self, column: &str) -> Result<String, TaskError> {
        match self.value(column) {
            Some(value) => plain(value).ok_or_else(|| self.bad(column, value.to_string(), "text")),
            None => Err(self.bad(column, "nothing".into(), "text")),
        }
    }

    /// A cell as a list of texts.
    ///
    /// # Errors
    /// [`TaskError::BadCell`] when the cell is absent, or holds no list.
    pub fn texts(&self, column: &str) -> Result<Vec<String>, TaskError> {
        let list = self.value(column).and_then(Value::as_array);
        let texts = list.map(|list| list.iter().map(plain).collect::<Option<Vec<_>>>());
        texts.flatten().ok_or_else(|| {
            let found = self
                .value(column)
                .map_or("nothing".into(), Value::to_string);
            self.bad(column, found, "a list of texts")
        })
    }

    /// A cell as a finite number.
    ///
    /// # Errors
    /// [`TaskError::BadCell`].
    pub fn number(&self, column: &str) -> Result<f64, TaskError> {
        let text = self.text(column)?;
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.bad(column, format!("`{text}`"), "a number")),
        }
    }

    /// The error of a cell of this row.
    pub fn bad(&self, column: &str, found: String, expected: &'static str) -> TaskError {
        TaskError::BadCell {
            place: self.place(),
            column: column.to_owned(),
            found,
            expected,
        }
    }
}

/// A JSON value as text, where it is one.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// The named columns of a table (TSV, CSV, JSON lines, also `.gz` and `.zst`; Parquet), row by row.
///
/// # Errors
/// [`TaskError::Text`] for a file that cannot be read or lacks a column.
pub fn read_rows(path: &Path, columns: &[&str], encoding: &str) -> Result<Records, TaskError> {
    let origin: Arc<str> = path.display().to_string().into();
    rows_of(path, None, origin, columns, encoding)
}

/// The named columns of JSON lines that come through stdin, row by row.
///
/// # Errors
/// Those of [`read_rows`].
pub fn read_stdin(columns: &[&str]) -> Result<Records, TaskError> {
    let (path, format) = (Path::new("/dev/stdin"), Some(RowFormat::Jsonl));
    rows_of(path, format, "stdin".into(), columns, "utf-8")
}

fn rows_of(
    path: &Path,
    format: Option<RowFormat>,
    origin: Arc<str>,
    columns: &[&str],
    encoding: &str,
) -> Result<Records, TaskError> {
    let mut options = RowOptions {
        format,
        columns: columns.iter().map(ToString::to_string).collect(),
        ..RowOptions::default()
    };
    options.read.encoding = Some(encoding.to_owned());
    let columns = options.columns.clone();
    let rows = RowReader::open(path, &options)?;
    Ok(Box::new(rows.map(move |row| {
        let row = row?;
        let cells = columns
            .iter()
            .filter_map(|column| Some((column.clone(), row.value(column)?)));
        Ok(Record::at(Arc::clone(&origin), row.line(), cells.collect()))
    })))
}

/// All rows at once.
///
/// # Errors
/// Those of [`read_rows`], and [`TaskError::NoRows`] for a file without rows.
pub fn read_records(
    path: &Path,
    columns: &[&str],
    encoding: &str,
) -> Result<Vec<Record>, TaskError> {
    collected(read_rows(path, columns, encoding)?, path)
}

/// All of some rows.
///
/// # Errors
/// Those of the rows, and [`TaskError::NoRows`] when there are none.
pub fn collected(rows: Records, path: &Path) -> Result<Vec<Record>, TaskError> {
    let records = rows.collect::<Result<Vec<_>, _>>()?;
    if records.is_empty() {
        return Err(TaskError::NoRows(path.to_path_buf()));
    }
    Ok(records)
}
