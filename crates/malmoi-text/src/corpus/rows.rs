//! Rows of data sets: TSV, CSV, JSON lines and Parquet.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::lines::{LineReader, ReadOptions};
use super::parquet::ParquetRows;
use crate::error::{Result, TextError};

/// Layout of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    /// Cells separated by tabs, no quoting; the first line names the columns.
    Tsv,
    /// RFC 4180, quoted cells; the first line names the columns.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet, pages plain or compressed with Snappy, Zstandard or gzip.
    Parquet,
}

impl RowFormat {
    /// The format that a file name says (`.tsv`, `.csv`, `.jsonl`, `.ndjson`, each also with `.gz` or `.zst`; `.parquet`).
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name
            .strip_suffix(".gz")
            .or_else(|| name.strip_suffix(".zst"))
            .unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "tsv" => Some(Self::Tsv),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// How a table is read.
#[derive(Debug, Clone, Default)]
pub struct RowOptions {
    /// The format; by file name when `None`.
    pub format: Option<RowFormat>,
    /// Columns that must exist.
    pub columns: Vec<String>,
    /// Encoding and bounds.
    pub read: ReadOptions,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    cells: Cells,
    line: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum Cells {
    Table(Arc<Vec<String>>, Vec<String>),
    Object(serde_json::Map<String, Value>),
}

impl Row {
    /// The text of a column; `None` where the row has no such column or, in JSON, another type than string.
    pub fn get(&self, column: &str) -> Option<&str> {
        match &self.cells {
            Cells::Table(names, cells) => {
                let index = names.iter().position(|name| name == column)?;
                cells.get(index).map(String::as_str)
            }
            Cells::Object(object) => object.get(column)?.as_str(),
        }
    }

    /// A column as a JSON value (a string, for tables).
    pub fn value(&self, column: &str) -> Option<Value> {
        match &self.cells {
            Cells::Table(..) => self.get(column).map(|text| Value::String(text.to_owned())),
            Cells::Object(object) => object.get(column).cloned(),
        }
    }

    /// The columns of this row, in file order.
    pub fn columns(&self) -> Vec<&str> {
        match &self.cells {
            Cells::Table(names, _) => names.iter().map(String::as_str).collect(),
            Cells::Object(object) => object.keys().map(String::as_str).collect(),
        }
    }

    /// The line the row starts on, from 1; of Parquet the number of the row.
    pub fn line(&self) -> u64 {
        self.line
    }
}

/// Reads a table row by row, in constant memory.
pub struct RowReader {
    path: PathBuf,
    source: Source,
    names: Arc<Vec<String>>,
    required: Vec<String>,
}

enum Source {
    Lines(LineReader, RowFormat),
    Csv(Box<csv::Reader<LinesAsBytes>>),
    Parquet(Box<ParquetRows>),
}

impl RowReader {
    /// Opens a table.
    ///
    /// # Errors
    /// [`TextError::NoColumn`] when a required column is missing, [`TextError::UnknownTable`] when the format is not known,
    /// [`TextError::BadRow`] when the file has no header, and the errors of [`LineReader`].
    pub fn open(path: &Path, options: &RowOptions) -> Result<Self> {
        let format = options
            .format
            .or_else(|| RowFormat::of(path))
            .ok_or_else(|| TextError::UnknownTable(path.to_path_buf()))?;
        if format == RowFormat::Parquet {
            let rows = ParquetRows::open(path, &options.columns)?;
            return Ok(Self {
                path: path.to_path_buf(),
                names: Arc::new(rows.columns()),
                source: Source::Parquet(Box::new(rows)),
                required: options.columns.clone(),
            });
        }
        let mut lines = LineReader::open(path, &options.read)?;
        let no_header = || TextError::BadRow {
            path: path.to_path_buf(),
            line: 1,
            message: "the file is empty; expected a line with the column names".into(),
        };
        let (source, names) = match format {
            RowFormat::Parquet => unreachable!("has no lines, opened above"),
            RowFormat::Jsonl => (Source::Lines(lines, format), Vec::new()),
            RowFormat::Tsv => {
                let header = lines.next_line()?.ok_or_else(no_header)?;
                let names = header.split('\t').map(str::to_owned).collect();
                (Source::Lines(lines, format), names)
            }
            RowFormat::Csv => {
                let input = LinesAsBytes::new(lines.keeping_ends());
                let mut reader = csv::ReaderBuilder::new().from_reader(input);
                let names: Vec<String> = match reader.headers() {
                    Ok(header) if header.is_empty() => return Err(no_header()),
                    Ok(header) => header.iter().map(str::to_owned).collect(),
                    Err(error) => return Err(csv_error(path, error)),
                };
                (Source::Csv(Box::new(reader)), names)
            }
        };
        if format != RowFormat::Jsonl {
            for column in &options.columns {
                if !names.contains(column) {
                    return Err(TextError::NoColumn {
                        path: path.to_path_buf(),
                        line: None,
                        column: column.clone(),
                        found: names,
                    });
                }
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            source,
            names: Arc::new(names),
            required: options.columns.clone(),
        })
    }

    /// Column names of the header; empty for JSON lines, where each row has its own.
    pub fn columns(&self) -> &[String] {
        &self.names
    }

    /// The next row; empty lines are skipped.
    ///
    /// # Errors
    /// [`TextError::BadRow`] for a row with another number of cells, or a line that is not a JSON object;
    /// [`TextError::NoColumn`] for a JSON object without a required field.
    pub fn next_row(&mut self) -> Result<Option<Row>> {
        match &mut self.source {
            Source::Parquet(rows) => {
                let row = rows.next_row()?;
                Ok(row.map(|(number, cells)| Row {
                    cells: Cells::Object(cells),
                    line: number,
                }))
            }
            Source::Csv(reader) => {
                let mut record = csv::StringRecord::new();
                match reader.read_record(&mut record) {
                    Ok(false) => Ok(None),
                    Ok(true) => Ok(Some(Row {
                        line: record.position().map_or(0, |p| p.line()),
                        cells: Cells::Table(
                            Arc::clone(&self.names),
                            record.iter().map(str::to_owned).collect(),
                        ),
                    })),
                    Err(error) => Err(csv_error(&self.path, error)),
                }
            }
            Source::Lines(lines, format) => loop {
                let Some(line) = lines.next_line()? else {
                    return Ok(None);
                };
                if line.is_empty() {
                    continue;
                }
                let text = line.to_owned();
                let number = lines.line_number();
                let bad = |message: String| TextError::BadRow {
                    path: self.path.clone(),
                    line: number,
                    message,
                };
                let cells = if *format == RowFormat::Tsv {
                    let cells: Vec<String> = text.split('\t').map(str::to_owned).collect();
                    if cells.len() != self.names.len() {
                        return Err(bad(format!(
                            "expected {} cells separated by tabs, found {}",
                            self.names.len(),
                            cells.len()
                        )));
                    }
                    Cells::Table(Arc::clone(&self.names), cells)
                } else {
                    let object = match serde_json::from_str(&text) {
                        Ok(Value::Object(object)) => object,
                        Ok(_) => return Err(bad("expected a JSON object".into())),
                        Err(error) => return Err(bad(format!("not valid JSON: {error}"))),
                    };
                    for column in &self.required {
                        if !object.contains_key(column) {
                            return Err(TextError::NoColumn {
                                path: self.path.clone(),
                                line: Some(number),
                                column: column.clone(),
                                found: object.keys().cloned().collect(),
                            });
                        }
                    }
                    Cells::Object(object)
                };
                return Ok(Some(Row {
                    cells,
                    line: number,
                }));
            },
        }
    }
}

impl Iterator for RowReader {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

/// Feeds checked lines to the CSV parser. A text error travels inside an I/O error and is unpacked by [`csv_error`].
struct LinesAsBytes {
    lines: LineReader,
    rest: Vec<u8>,
    at: usize,
}

impl LinesAsBytes {
    fn new(lines: LineReader) -> Self {
        Self {
            lines,
            rest: Vec::new(),
            at: 0,
        }
    }
}

impl Read for LinesAsBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.rest.len() {
            self.rest.clear();
            self.at = 0;
            match self.lines.next_line() {
                Ok(Some(line)) => self.rest.extend_from_slice(line.as_bytes()),
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let length = buffer.len().min(self.rest.len() - self.at);
        buffer[..length].copy_from_slice(&self.rest[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

fn csv_error(path: &Path, error: csv::Error) -> TextError {
    let line = error.position().map_or(0, csv::Position::line);
    let message = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => match error.downcast::<TextError>() {
            Ok(error) => error,
            Err(error) => TextError::io(path)(error),
        },
        _ => TextError::BadRow {
            path: path.to_path_buf(),
            line,
            message,
        },
    }
}
