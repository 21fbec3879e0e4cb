//! Writing named tensors as safetensors, streamed, in one file or in shards.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::fs::write_atomically;
use crate::tensors::{TensorView, WEIGHTS, WEIGHTS_INDEX};

/// The metadata that Python's model loader asks for.
pub const FORMAT_PT: &[(&str, &str)] = &[("format", "pt")];

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct NamedTensor<'a> {
    /// Its name in the file.
    pub name: Cow<'a, str>,
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub data: TensorData<'a>,
}

/// Elements to be written. Slices are streamed without a whole copy.
#[derive(Debug, Clone)]
pub enum TensorData<'a> {
    /// f32 elements.
    F32(Cow<'a, [f32]>),
    /// f64 elements.
    F64(Cow<'a, [f64]>),
    /// Half-precision elements.
    F16(Cow<'a, [half::f16]>),
    /// bfloat16 elements.
    Bf16(Cow<'a, [half::bf16]>),
    /// i64 elements.
    I64(Cow<'a, [i64]>),
    /// i32 elements.
    I32(Cow<'a, [i32]>),
    /// u32 elements.
    U32(Cow<'a, [u32]>),
    /// i8 elements.
    I8(Cow<'a, [i8]>),
    /// u8 elements.
    U8(Cow<'a, [u8]>),
    /// Elements of any type as they lie in a file: little-endian.
    Raw(Dtype, Cow<'a, [u8]>),
}

macro_rules! from_elements {
    ($($variant:ident $element:ty),*) => {$(
        impl<'a> From<&'a [$element]> for TensorData<'a> {
            fn from(elements: &'a [$element]) -> Self {
                TensorData::$variant(Cow::Borrowed(elements))
            }
        }
        impl<'a> From<&'a Vec<$element>> for TensorData<'a> {
            fn from(elements: &'a Vec<$element>) -> Self {
                TensorData::$variant(Cow::Borrowed(elements))
            }
        }
        impl From<Vec<$element>> for TensorData<'_> {
            fn from(elements: Vec<$element>) -> Self {
                TensorData::$variant(Cow::Owned(elements))
            }
        }
    )*};
}
from_elements!(F32 f32, F64 f64, F16 half::f16, Bf16 half::bf16, I64 i64, I32 i32, U32 u32, I8 i8, U8 u8);

impl<'a> From<TensorView<'a>> for TensorData<'a> {
    fn from(view: TensorView<'a>) -> Self {
        TensorData::Raw(view.dtype, Cow::Borrowed(view.bytes))
    }
}

impl TensorData<'_> {
    /// Element type in the file.
    pub fn dtype(&self) -> Dtype {
        match self {
            TensorData::F32(_) => Dtype::F32,
            TensorData::F64(_) => Dtype::F64,
            TensorData::F16(_) => Dtype::F16,
            TensorData::Bf16(_) => Dtype::Bf16,
            TensorData::I64(_) => Dtype::I64,
            TensorData::I32(_) => Dtype::I32,
            TensorData::U32(_) => Dtype::U32,
            TensorData::I8(_) => Dtype::I8,
            TensorData::U8(_) => Dtype::U8,
            TensorData::Raw(dtype, _) => *dtype,
        }
    }

    /// Length in the file, in bytes.
    pub fn byte_len(&self) -> usize {
        let size = self.dtype().size();
        match self {
            TensorData::F32(x) => x.len() * size,
            TensorData::F64(x) => x.len() * size,
            TensorData::F16(x) => x.len() * size,
            TensorData::Bf16(x) => x.len() * size,
            TensorData::I64(x) => x.len() * size,
            TensorData::I32(x) => x.len() * size,
            TensorData::U32(x) => x.len() * size,
            TensorData::I8(x) => x.len() * size,
            TensorData::U8(x) => x.len() * size,
            TensorData::Raw(_, x) => x.len(),
        }
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            TensorData::F32(x) => stream(x, out, |v| v.to_le_bytes()),
            TensorData::F64(x) => stream(x, out, |v| v.to_le_bytes()),
            TensorData::F16(x) => stream(x, out, |v| v.to_le_bytes()),
            TensorData::Bf16(x) => stream(x, out, |v| v.to_le_bytes()),
            TensorData::I64(x) => stream(x, out, |v| v.to_le_bytes()),
            TensorData::I32(x) => stream(x, out, |v| v.to_le_bytes()),
            TensorData::U32(x) => stream(x, out, |v| v.to_le_bytes()),
            TensorData::I8(x) => stream(x, out, |v| v.to_le_bytes()),
            TensorData::U8(x) | TensorData::Raw(_, x) => out.write_all(x),
        }
    }
}

/// Writes elements through a small buffer: a whole copy of a large tensor would double the memory
/// that saving a model needs.
fn stream<const W: usize, T: Copy>(
    elements: &[T],
    out: &mut dyn Write,
    to_bytes: impl Fn(T) -> [u8; W],
) -> io::Result<()> {
    const CHUNK: usize = 8192;
    let mut buffer = vec![[0u8; W]; CHUNK.min(elements.len())];
    for chunk in elements.chunks(CHUNK) {
        for (slot, &element) in buffer.iter_mut().zip(chunk) {
            *slot = to_bytes(element);
        }
        out.write_all(buffer[..chunk.len()].as_flattened())?;
    }
    Ok(())
}

impl<'a> NamedTensor<'a> {
    /// A tensor from a name, a shape and its elements.
    pub fn new(
        name: impl Into<Cow<'a, str>>,
        shape: &[usize],
        data: impl Into<TensorData<'a>>,
    ) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            data: data.into(),
        }
    }
}

/// Writes a safetensors file: complete or not at all.
///
/// Data is laid out by falling element size (readers want aligned data), otherwise in the order
/// given. Pass [`FORMAT_PT`] as `metadata` for files that Python should load as a model.
///
/// # Errors
/// [`Error::BadTensor`] for a name that occurs twice or elements that don't fill their shape;
/// [`Error::Io`] when writing fails, with `path` untouched.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[NamedTensor<'_>],
    metadata: &[(&str, &str)],
) -> Result<()> {
    check(tensors)?;
    write_file(path.as_ref(), &tensors.iter().collect::<Vec<_>>(), metadata)
}

/// The same file as bytes in memory, for sending or testing.
///
/// # Errors
/// [`Error::BadTensor`].
pub fn to_safetensors_bytes(
    tensors: &[NamedTensor<'_>],
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>> {
    check(tensors)?;
    let mut out = Vec::new();
    write_to(&mut out, &tensors.iter().collect::<Vec<_>>(), metadata)
        .map_err(|e| Error::io("write", "memory", e))?;
    Ok(out)
}

/// Writes a model's weights into `dir`: `model.safetensors`, or, when they need more than
/// `max_shard_bytes`, shards and their index. Returns the file names. A single tensor larger than
/// the limit gets a shard of its own.
///
/// # Errors
/// Those of [`write_safetensors`].
pub fn write_weights(
    dir: &Path,
    tensors: &[NamedTensor<'_>],
    max_shard_bytes: Option<u64>,
) -> Result<Vec<String>> {
    check(tensors)?;
    let limit = max_shard_bytes.unwrap_or(u64::MAX);
    let mut shards: Vec<Vec<&NamedTensor>> = vec![Vec::new()];
    let (mut filled, mut total) = (0u64, 0u64);
    for tensor in tensors {
        let bytes = tensor.data.byte_len() as u64;
        if filled > 0 && filled + bytes > limit {
            shards.push(Vec::new());
            filled = 0;
        }
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
        filled += bytes;
        total += bytes;
    }
    if let [all] = shards.as_slice() {
        write_file(&dir.join(WEIGHTS), all, FORMAT_PT)?;
        return Ok(vec![WEIGHTS.to_string()]);
    }
    let mut weight_map = serde_json::Map::new();
    let mut files = Vec::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        write_file(&dir.join(&file), shard, FORMAT_PT)?;
        for tensor in shard {
            weight_map.insert(tensor.name.to_string(), file.clone().into());
        }
        files.push(file);
    }
    weight_map.sort_keys();
    let index =
        serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    // Last, so that an index never names a shard that isn't there yet.
    crate::directory::write_json(&dir.join(WEIGHTS_INDEX), &index)?;
    files.push(WEIGHTS_INDEX.to_string());
    Ok(files)
}

fn check(tensors: &[NamedTensor<'_>]) -> Result<()> {
    let mut names = HashSet::new();
    for tensor in tensors {
        let bad = |problem: String| {
            Err(Error::BadTensor {
                name: tensor.name.to_string(),
                problem,
            })
        };
        if tensor.name == "__metadata__" {
            return bad("the name is reserved by the format; choose another".into());
        }
        if !names.insert(&*tensor.name) {
            return bad(
                "the name occurs twice, expected unique names; write tied weights once".into(),
            );
        }
        let expected = tensor
            .shape
            .iter()
            .try_fold(tensor.data.dtype().size(), |n, &d| n.checked_mul(d));
        if expected != Some(tensor.data.byte_len()) {
            return bad(format!(
                "shape {:?} of {} doesn't fit its {} bytes; pass as many elements as the shape has",
                tensor.shape,
                tensor.data.dtype(),
                tensor.data.byte_len()
            ));
        }
    }
    Ok(())
}

fn write_file(path: &Path, tensors: &[&NamedTensor<'_>], metadata: &[(&str, &str)]) -> Result<()> {
    write_atomically(path, |out| write_to(out, tensors, metadata))
}

fn write_to(
    out: &mut dyn Write,
    tensors: &[&NamedTensor<'_>],
    metadata: &[(&str, &str)],
) -> io::Result<()> {
    let mut ordered = tensors.to_vec();
    ordered.sort_by_key(|t| std::cmp::Reverse(t.data.dtype().size()));
    let mut table = serde_json::Map::new();
    if !metadata.is_empty() {
        let strings: serde_json::Map<_, _> = metadata
            .iter()
            .map(|&(k, v)| (k.to_string(), v.into()))
            .collect();
        table.insert("__metadata__".into(), strings.into());
    }
    let mut begin = 0;
    for tensor in &ordered {
        let end = begin + tensor.data.byte_len();
        let row = serde_json::json!({
            "dtype": tensor.data.dtype().name(), "shape": tensor.shape, "data_offsets": [begin, end],
        });
        table.insert(tensor.name.to_string(), row);
        begin = end;
    }
    let mut header = serde_json::to_vec(&table)?;
    // The format pads the header with spaces so that the data starts at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    ordered
        .iter()
        .try_for_each(|tensor| tensor.data.write_to(out))
}
