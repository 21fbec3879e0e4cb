//! Rows of Parquet files, through the row interface.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use crate::error::{Result, TextError};

/// The rows of a file, group by group.
pub(super) struct ParquetRows {
    path: PathBuf,
    columns: Vec<String>,
    rows: RowIter<'static>,
    number: u64,
}

impl ParquetRows {
    /// Opens a file; only `wanted` columns are read, all when it is empty.
    pub(super) fn open(path: &Path, wanted: &[String]) -> Result<Self> {
        let file = File::open(path).map_err(TextError::io(path))?;
        let bad = bad_row(path, 0);
        let reader = SerializedFileReader::new(file).map_err(&bad)?;
        let schema = reader.metadata().file_metadata().schema().clone();
        let columns: Vec<String> = schema
            .get_fields()
            .iter()
            .map(|field| field.name().to_owned())
            .collect();
        if let Some(missing) = wanted.iter().find(|column| !columns.contains(column)) {
            return Err(TextError::NoColumn {
                path: path.to_path_buf(),
                line: None,
                column: missing.clone(),
                found: columns,
            });
        }
        let fields = schema.get_fields().iter();
        let kept = fields
            .filter(|field| wanted.is_empty() || wanted.iter().any(|name| name == field.name()));
        let projection = Type::group_type_builder(schema.name())
            .with_fields(kept.cloned().collect())
            .build()
            .map_err(&bad)?;
        let rows = RowIter::from_file_into(Box::new(reader))
            .project(Some(projection))
            .map_err(&bad)?;
        Ok(Self {
            path: path.to_path_buf(),
            columns,
            rows,
            number: 0,
        })
    }

    /// Names of all columns of the file.
    pub(super) fn columns(&self) -> Vec<String> {
        self.columns.clone()
    }

    /// The next row, with its number from 1.
    pub(super) fn next_row(&mut self) -> Result<Option<(u64, Map<String, Value>)>> {
        self.number += 1;
        match self.rows.next() {
            None => Ok(None),
            Some(Err(error)) => Err(bad_row(&self.path, self.number)(error)),
            Some(Ok(row)) => Ok(Some((self.number, object(&row)))),
        }
    }
}

/// A row, or a group of fields, as JSON.
fn object(row: &Row) -> Map<String, Value> {
    let columns = row.get_column_iter();
    columns
        .map(|(name, field)| (name.clone(), value(field)))
        .collect()
}

/// A field as JSON. Bytes are text where they are UTF-8; dates, times and decimals become the text that Parquet shows.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(x) => (*x).into(),
        Field::Byte(x) => (*x).into(),
        Field::Short(x) => (*x).into(),
        Field::Int(x) => (*x).into(),
        Field::Long(x) => (*x).into(),
        Field::UByte(x) => (*x).into(),
        Field::UShort(x) => (*x).into(),
        Field::UInt(x) => (*x).into(),
        Field::ULong(x) => (*x).into(),
        Field::Float(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(text) => text.clone().into(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into(),
        Field::Group(row) => object(row).into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            let entries = entries.map(|(key, field)| match value(key) {
                Value::String(key) => (key, value(field)),
                key => (key.to_string(), value(field)),
            });
            Value::Object(entries.collect())
        }
        other => other.to_string().into(),
    }
}

fn bad_row(path: &Path, line: u64) -> impl Fn(parquet::errors::ParquetError) -> TextError {
    let path = path.to_path_buf();
    move |error| TextError::BadRow {
        path: path.clone(),
        line,
        message: format!("not readable as Parquet: {error}"),
    }
}
