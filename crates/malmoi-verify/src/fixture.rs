//! Reading a fixture (`cases.json` and `cases.safetensors`) and comparing values with it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::compare::{Tolerance, compare, compare_integers};
use crate::report::Comparison;
use crate::rounding::Bf16;

/// Why a fixture cannot be read or does not hold what a check needs.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A JSON file does not have the expected form.
    #[error("{path} is not valid: {message}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A tensor file is damaged or holds an unexpected type.
    #[error("{path} is not valid: {message}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A tensor that a check needs is not in the file, or has another type.
    #[error("tensor `{name}`: expected {expected}, found {found}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What the check needs.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// A value that a check needs is not in `cases.json`.
    #[error("`{key}`: expected {expected}, found {found}")]
    Value {
        /// Where the value belongs.
        key: String,
        /// What the check needs.
        expected: String,
        /// What the file has.
        found: String,
    },
}

/// The elements of a tensor, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// 32-bit floating point.
    F32(Vec<f32>),
    /// 64-bit integers (ids, masks, labels).
    I64(Vec<i64>),
    /// 16-bit integers (audio samples).
    I16(Vec<i16>),
}

impl Data {
    fn name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::I64(_) => "i64",
            Self::I16(_) => "i16",
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::I16(v) => v.len(),
        }
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor of a fixture.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Data,
}

/// What `cases.json` says about a tensor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TensorSpec {
    /// Extent of each dimension.
    pub shape: Vec<usize>,
    /// `f32`, `i64` or `i16`.
    pub dtype: String,
    /// Absolute tolerance.
    #[serde(default)]
    pub atol: Option<f64>,
    /// Relative tolerance.
    #[serde(default)]
    pub rtol: Option<f64>,
    /// Tighter bound for most elements.
    #[serde(default)]
    pub atol_90_percent: Option<f64>,
    /// Largest deviation of the reference's own run in f32.
    #[serde(default)]
    pub f32_dev: Option<f64>,
    /// Largest magnitude: the scale of the tensor.
    #[serde(default)]
    pub max_abs: Option<f64>,
    /// Integers that must be equal.
    #[serde(default)]
    pub exact: bool,
}

/// A fixture in memory.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// The folder it was read from.
    pub dir: PathBuf,
    /// Name of the folder.
    pub name: String,
    /// The whole of `cases.json`.
    pub json: Map<String, Value>,
    /// Its `cases`, in file order (an empty map where the file has none).
    pub cases: Map<String, Value>,
    /// Names of the tensors in the order of `cases.json`, which is network order.
    pub order: Vec<String>,
    specs: HashMap<String, TensorSpec>,
    tensors: HashMap<String, Tensor>,
    /// Rules for a model in bf16, in place of the tolerances as given.
    rounding: Option<Bf16>,
}

/// The name of a fixture: the last component of its folder.
pub fn name_of(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    full.file_name().map_or_else(
        || full.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Reads a JSON file.
///
/// # Errors
/// [`FixtureError::Read`] or [`FixtureError::Json`].
pub fn read_json(path: &Path) -> Result<Value, FixtureError> {
    let text = fs::read(path).map_err(|source| FixtureError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|error| FixtureError::Json {
        path: path.to_path_buf(),
        message: error.to_string(),
    })
}

/// Reads all tensors of a safetensors file that holds f32, i64 and i16.
fn read_tensors(path: &Path) -> Result<HashMap<String, Tensor>, FixtureError> {
    let bytes = fs::read(path).map_err(|source| FixtureError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let invalid = |message: String| FixtureError::Tensors {
        path: path.to_path_buf(),
        message,
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| invalid(error.to_string()))?;
    let mut tensors = HashMap::new();
    for (name, view) in file.tensors() {
        let raw = view.data();
        let data = match view.dtype() {
            Dtype::F32 => Data::F32(
                raw.as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b))
                    .collect(),
            ),
            Dtype::I64 => Data::I64(
                raw.as_chunks::<8>()
                    .0
                    .iter()
                    .map(|b| i64::from_le_bytes(*b))
                    .collect(),
            ),
            Dtype::I16 => Data::I16(
                raw.as_chunks::<2>()
                    .0
                    .iter()
                    .map(|b| i16::from_le_bytes(*b))
                    .collect(),
            ),
            other => {
                return Err(invalid(format!(
                    "tensor `{name}` has type {other:?}; expected F32, I64 or I16"
                )));
            }
        };
        tensors.insert(
            name,
            Tensor {
                shape: view.shape().to_vec(),
                data,
            },
        );
    }
    Ok(tensors)
}

impl Fixture {
    /// Reads `cases.json` and `cases.safetensors` of a folder.
    ///
    /// # Errors
    /// A file that is missing, damaged, or in another form; a tensor whose shape differs between the two files.
    pub fn read(dir: &Path) -> Result<Self, FixtureError> {
        let path = dir.join("cases.json");
        let invalid = |message: String| FixtureError::Json {
            path: path.clone(),
            message,
        };
        let Value::Object(json) = read_json(&path)? else {
            return Err(invalid("expected a JSON object".into()));
        };
        let cases = json
            .get("cases")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let listed = json
            .get("tensors")
            .and_then(Value::as_object)
            .ok_or_else(|| invalid("expected an object `tensors`".into()))?;
        let tensor_path = dir.join("cases.safetensors");
        let tensors = read_tensors(&tensor_path)?;
        let mut order = Vec::with_capacity(listed.len());
        let mut specs = HashMap::new();
        for (name, value) in listed {
            let spec: TensorSpec = serde_json::from_value(value.clone())
                .map_err(|error| invalid(format!("tensors.{name}: {error}")))?;
            let tensor = tensors.get(name).ok_or_else(|| FixtureError::Tensors {
                path: tensor_path.clone(),
                message: format!("tensor `{name}` is listed in cases.json but not in the file"),
            })?;
            if tensor.shape != spec.shape {
                return Err(FixtureError::Tensors {
                    path: tensor_path.clone(),
                    message: format!(
                        "tensor `{name}` has shape {:?}, cases.json says {:?}",
                        tensor.shape, spec.shape
                    ),
                });
            }
            order.push(name.clone());
            specs.insert(name.clone(), spec);
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            name: name_of(dir),
            json,
            cases,
            order,
            specs,
            tensors,
            rounding: None,
        })
    }

    /// The same for a model in bf16; see [`crate::rounding`].
    #[must_use]
    pub fn in_bf16(&self, rounding: Bf16) -> Self {
        let rounding = Some(rounding);
        Self {
            rounding,
            ..self.clone()
        }
    }

    /// What a model in bf16 is measured by; `None` for f32.
    pub fn rounding(&self) -> Option<&Bf16> {
        self.rounding.as_ref()
    }

    /// What `cases.json` says of the tensors whose name fits.
    pub(crate) fn specs_named(
        &self,
        fits: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = &TensorSpec> {
        (self.specs.iter()).filter_map(move |(name, spec)| fits(name).then_some(spec))
    }

    /// True when the tensor exists.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names of the tensors whose name starts with `prefix`, in network order.
    pub fn names_with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.order
            .iter()
            .map(String::as_str)
            .filter(move |name| name.starts_with(prefix))
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// [`FixtureError::Tensor`] when it does not exist.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, FixtureError> {
        self.tensors.get(name).ok_or_else(|| FixtureError::Tensor {
            name: name.to_owned(),
            expected: "a tensor".into(),
            found: "none of that name".into(),
        })
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// [`FixtureError::Tensor`] when it does not exist.
    pub fn shape(&self, name: &str) -> Result<&[usize], FixtureError> {
        Ok(&self.tensor(name)?.shape)
    }

    /// The elements of a floating-point tensor.
    ///
    /// # Errors
    /// [`FixtureError::Tensor`] when it does not exist or holds integers.
    pub fn f32s(&self, name: &str) -> Result<&[f32], FixtureError> {
        match &self.tensor(name)?.data {
            Data::F32(values) => Ok(values),
            other => Err(FixtureError::Tensor {
                name: name.to_owned(),
                expected: "f32".into(),
                found: other.name().into(),
            }),
        }
    }

    /// The elements of an i64 tensor.
    ///
    /// # Errors
    /// [`FixtureError::Tensor`] when it does not exist or holds another type.
    pub fn i64s(&self, name: &str) -> Result<&[i64], FixtureError> {
        match &self.tensor(name)?.data {
            Data::I64(values) => Ok(values),
            other => Err(FixtureError::Tensor {
                name: name.to_owned(),
                expected: "i64".into(),
                found: other.name().into(),
            }),
        }
    }

    /// The tolerance that `cases.json` gives for a tensor, 0 where it gives none (integers); in bf16 what follows from the format.
    pub fn tolerance(&self, name: &str) -> Tolerance {
        let spec = self.specs.get(name);
        if let (Some(rounding), Some(spec)) = (&self.rounding, spec) {
            return rounding.tolerance(self, name, spec);
        }
        Tolerance {
            atol: spec.and_then(|s| s.atol).unwrap_or(0.0),
            rtol: spec.and_then(|s| s.rtol).unwrap_or(0.0),
            atol_90_percent: spec.and_then(|s| s.atol_90_percent),
        }
    }

    /// Scale of a tensor (`max_abs`), where given.
    pub fn max_abs(&self, name: &str) -> Option<f64> {
        self.specs.get(name).and_then(|s| s.max_abs)
    }

    /// Compares computed values with the expected tensor `name`, within its own tolerance.
    ///
    /// `mask` has one entry an element, or one a contiguous run of elements (its length divides theirs: a mask
    /// `[B, T]` serves a tensor `[B, T, V]`); entries that are false need not agree. Missing tensors and other element counts are
    /// failures of the comparison.
    pub fn compare<T: Copy + Into<f64>>(
        &self,
        name: &str,
        got: &[T],
        mask: Option<&[bool]>,
    ) -> Comparison {
        match self.tensor(name) {
            Err(error) => Comparison::failed(name, error.to_string()),
            Ok(tensor) => match &tensor.data {
                Data::F32(expected) => compare(
                    name,
                    got,
                    expected,
                    &tensor.shape,
                    self.tolerance(name),
                    mask,
                ),
                other => Comparison::failed(
                    name,
                    format!("expected values are {}, not f32", other.name()),
                ),
            },
        }
    }

    /// Compares integers with the expected tensor `name`; they must be equal.
    pub fn compare_integers(&self, name: &str, got: &[i64], mask: Option<&[bool]>) -> Comparison {
        match self.tensor(name) {
            Err(error) => Comparison::failed(name, error.to_string()),
            Ok(tensor) => match &tensor.data {
                Data::I64(expected) => compare_integers(name, got, expected, &tensor.shape, mask),
                other => Comparison::failed(
                    name,
                    format!("expected values are {}, not i64", other.name()),
                ),
            },
        }
    }
}
