//! Rows of data sets, with the cells that a task reads.

use std::path::Path;

use malmoi_text::{RowOptions, RowReader};
use serde_json::Value;

use crate::error::TaskError;

/// The cells of one row and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    place: String,
    cells: Vec<(String, Value)>,
}

impl Record {
    /// A record made of texts: `(column, text)`. `place` stands in messages.
    pub fn new(place: impl Into<String>, cells: &[(&str, &str)]) -> Self {
        Self {
            place: place.into(),
            cells: cells
                .iter()
                .map(|(column, text)| (column.to_string(), Value::String(text.to_string())))
                .collect(),
        }
    }

    /// File and line.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// A cell as text. Numbers and truth values of JSON lines become their text.
    ///
    /// # Errors
    /// [`TaskError::BadCell`] when the cell is absent, or holds no text.
    pub fn text(&self, column: &str) -> Result<String, TaskError> {
        let found = self.cells.iter().find(|(name, _)| name == column);
        match found.map(|(_, value)| value) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(Value::Bool(truth)) => Ok(truth.to_string()),
            other => Err(self.bad(
                column,
                other.map_or("nothing".into(), ToString::to_string),
                "text",
            )),
        }
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
            place: self.place.clone(),
            column: column.to_owned(),
            found,
            expected,
        }
    }
}

/// Reads the named columns of a table (TSV, CSV, JSON lines; `.gz` and `.zst` too).
///
/// # Errors
/// [`TaskError::Text`] for a file that cannot be read or lacks a column, [`TaskError::NoRows`] for one without rows.
pub fn read_records(
    path: &Path,
    columns: &[&str],
    encoding: &str,
) -> Result<Vec<Record>, TaskError> {
    let mut options = RowOptions {
        columns: columns.iter().map(ToString::to_string).collect(),
        ..RowOptions::default()
    };
    options.read.encoding = Some(encoding.to_owned());
    let mut records = Vec::new();
    for row in RowReader::open(path, &options)? {
        let row = row?;
        records.push(Record {
            place: format!("{}: line {}", path.display(), row.line()),
            cells: columns
                .iter()
                .filter_map(|column| Some((column.to_string(), row.value(column)?)))
                .collect(),
        });
    }
    if records.is_empty() {
        return Err(TaskError::NoRows(path.to_path_buf()));
    }
    Ok(records)
}
