//! The safetensors header: eight bytes of length, a JSON table, then the data.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. The table is validated before any
//! tensor is handed out: every byte of the data belongs to exactly one tensor, names are unique,
//! and shape times element size equals the byte range.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::dtype::Dtype;

/// Longest header that is read, in bytes; the limit that other readers of the format have.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// One tensor's row of the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name of the tensor.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the data.
    pub begin: usize,
    /// One past the last byte, counted likewise.
    pub end: usize,
}

/// A validated header. Tensors are in the order in which their data lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Byte at which the data starts in the file.
    pub data_start: usize,
    /// The tensors, by position of their data.
    pub tensors: Vec<TensorInfo>,
    /// Free-form strings (`{"format": "pt"}`).
    pub metadata: BTreeMap<String, String>,
}

/// What is wrong with a safetensors header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Shorter than the eight bytes of the length.
    #[error("it has {found} bytes, expected at least 8 (the length of the header); {FETCH}")]
    TooSmall {
        /// Length of the file.
        found: usize,
    },
    /// The header would not fit into the limit.
    #[error(
        "its header claims {found} bytes, expected at most {MAX_HEADER_BYTES}; this isn't a safetensors file or it is damaged, {FETCH}"
    )]
    TooLong {
        /// The length it claims.
        found: u64,
    },
    /// The file ends inside the header.
    #[error(
        "it ends inside its header: the header needs {expected} bytes, {found} are there; the file was cut short, {FETCH}"
    )]
    TruncatedHeader {
        /// Length of the header.
        expected: u64,
        /// Bytes that follow the length.
        found: u64,
    },
    /// The header isn't text.
    #[error("its header isn't UTF-8 (first bad byte at {at}); {FETCH}")]
    NotUtf8 {
        /// Position of the first bad byte in the header.
        at: usize,
    },
    /// The header isn't the expected JSON.
    #[error("its header isn't a table of tensors: {problem}; {FETCH}")]
    Json {
        /// What the parser said.
        problem: String,
    },
    /// An element type we don't know.
    #[error(
        "tensor `{name}` has element type `{found}`, expected one of BOOL, U8 … F32, F64; convert it first"
    )]
    UnknownDtype {
        /// The tensor.
        name: String,
        /// The type's name.
        found: String,
    },
    /// The same name twice.
    #[error("tensor `{name}` is listed twice, expected unique names; write the file again")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Shape and byte range disagree.
    #[error(
        "tensor `{name}` of shape {shape:?} and type {dtype} needs {expected} bytes, its range has {found}; {FETCH}"
    )]
    WrongSize {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its element type.
        dtype: Dtype,
        /// Bytes the shape needs.
        expected: String,
        /// Bytes of the range.
        found: usize,
    },
    /// The byte range runs backwards.
    #[error(
        "tensor `{name}` has the byte range {begin}..{end}, expected the begin before the end; {FETCH}"
    )]
    BackwardRange {
        /// The tensor.
        name: String,
        /// Begin of the range.
        begin: usize,
        /// End of the range.
        end: usize,
    },
    /// Two tensors share bytes.
    #[error(
        "tensors `{first}` and `{second}` overlap: the second starts at byte {begin}, expected {expected}; write the file again"
    )]
    Overlap {
        /// The earlier tensor.
        first: String,
        /// The later tensor.
        second: String,
        /// Where the later one starts.
        begin: usize,
        /// Where it should start.
        expected: usize,
    },
    /// Bytes that belong to no tensor.
    #[error(
        "{count} bytes before tensor `{name}` belong to no tensor, expected none; write the file again"
    )]
    Hole {
        /// The tensor after the hole.
        name: String,
        /// Length of the hole.
        count: usize,
    },
    /// The data is shorter than the header says.
    #[error(
        "its data has {found} bytes, expected {expected} (the end of tensor `{name}`); the file was cut short, {FETCH}"
    )]
    TruncatedData {
        /// The last tensor.
        name: String,
        /// Bytes the tensors need.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// The data is longer than the header says.
    #[error(
        "it has {count} bytes after its last tensor, expected none; the file is damaged, {FETCH}"
    )]
    TrailingBytes {
        /// Bytes too many.
        count: usize,
    },
}

const FETCH: &str = "fetch or write a complete copy";

/// Reads and validates the header of a whole file.
///
/// # Errors
/// [`HeaderError`] naming the first defect. Any bytes at all may be given.
pub fn parse(file: &[u8]) -> Result<Header, HeaderError> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(HeaderError::TooSmall { found: file.len() });
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(HeaderError::TooLong { found: length });
    }
    let Some((text, data)) = rest.split_at_checked(length as usize) else {
        return Err(HeaderError::TruncatedHeader {
            expected: length,
            found: rest.len() as u64,
        });
    };
    let text = std::str::from_utf8(text).map_err(|e| HeaderError::NotUtf8 {
        at: e.valid_up_to(),
    })?;
    let table: Table = serde_json::from_str(text).map_err(|e| HeaderError::Json {
        problem: e.to_string(),
    })?;
    let tensors = validate(table.rows, data.len())?;
    Ok(Header {
        data_start: 8 + length as usize,
        tensors,
        metadata: table.metadata,
    })
}

fn validate(rows: Vec<(String, Row)>, data_len: usize) -> Result<Vec<TensorInfo>, HeaderError> {
    let mut names = HashSet::new();
    let mut tensors = Vec::with_capacity(rows.len());
    for (name, row) in rows {
        if !names.insert(name.clone()) {
            return Err(HeaderError::DuplicateName { name });
        }
        let Some(dtype) = Dtype::from_name(&row.dtype) else {
            return Err(HeaderError::UnknownDtype {
                name,
                found: row.dtype,
            });
        };
        let (begin, end) = row.data_offsets;
        if end < begin {
            return Err(HeaderError::BackwardRange { name, begin, end });
        }
        let expected = row
            .shape
            .iter()
            .try_fold(dtype.size(), |n, &d| n.checked_mul(d));
        if expected != Some(end - begin) {
            let expected =
                expected.map_or_else(|| "more than can be addressed".into(), |n| n.to_string());
            return Err(HeaderError::WrongSize {
                name,
                shape: row.shape,
                dtype,
                expected,
                found: end - begin,
            });
        }
        tensors.push(TensorInfo {
            name,
            dtype,
            shape: row.shape,
            begin,
            end,
        });
    }
    // Stable, so that empty tensors at one offset keep the order of the header.
    tensors.sort_by_key(|t| (t.begin, t.end));
    let mut previous: Option<&TensorInfo> = None;
    for tensor in &tensors {
        let expected = previous.map_or(0, |p| p.end);
        if tensor.begin > expected {
            return Err(HeaderError::Hole {
                name: tensor.name.clone(),
                count: tensor.begin - expected,
            });
        }
        if tensor.begin < expected {
            return Err(HeaderError::Overlap {
                first: previous.map(|p| p.name.clone()).unwrap_or_default(),
                second: tensor.name.clone(),
                begin: tensor.begin,
                expected,
            });
        }
        previous = Some(tensor);
    }
    let expected = previous.map_or(0, |p| p.end);
    if expected > data_len {
        let name = previous.map(|p| p.name.clone()).unwrap_or_default();
        return Err(HeaderError::TruncatedData {
            name,
            expected,
            found: data_len,
        });
    }
    if expected < data_len {
        return Err(HeaderError::TrailingBytes {
            count: data_len - expected,
        });
    }
    Ok(tensors)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The JSON table as written: a map type would hide names that occur twice.
#[derive(Default)]
struct Table {
    metadata: BTreeMap<String, String>,
    rows: Vec<(String, Row)>,
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableVisitor;
        impl<'de> Visitor<'de> for TableVisitor {
            type Value = Table;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let mut table = Table::default();
                let mut has_metadata = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name != "__metadata__" {
                        table.rows.push((name, map.next_value()?));
                    } else if std::mem::replace(&mut has_metadata, true) {
                        return Err(A::Error::custom("`__metadata__` is listed twice"));
                    } else {
                        table.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
                    }
                }
                Ok(table)
            }
        }
        deserializer.deserialize_map(TableVisitor)
    }
}
