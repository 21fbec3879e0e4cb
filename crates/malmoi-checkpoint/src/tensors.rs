//! Reading named tensors from one safetensors file or from shards with an index.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::header::{self, TensorInfo};
use crate::mmap::MappedFile;

/// File name of unsharded weights.
pub const WEIGHTS: &str = "model.safetensors";
/// File name of the index of sharded weights.
pub const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// Largest shard index that is read, in bytes. The largest published ones have about 1 MB.
const MAX_INDEX_BYTES: u64 = 100_000_000;

/// The tensors of a checkpoint, by name. Files stay memory-mapped; nothing is copied until a
/// tensor is converted.
#[derive(Debug)]
pub struct Tensors {
    origin: String,
    sources: Vec<Source>,
    tensors: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Source {
    /// The file: mapped, or in memory.
    bytes: Bytes,
    /// The map, where there is one.
    file: Option<MappedFile>,
    data_start: usize,
    metadata: std::collections::BTreeMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    source: usize,
    info: TensorInfo,
}

/// A tensor as it lies in its file: little-endian, row-major, not aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// The elements, `shape` product × `dtype.size()` bytes.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether [`to_f32`](Self::to_f32) knows the type.
    pub fn has_floats(&self) -> bool {
        matches!(
            self.dtype,
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 | Dtype::F64
        )
    }

    /// The elements as f32, for F32, F16, BF16 (exact) and F64 (rounded to nearest); `None` for
    /// other types.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let b = self.bytes;
        Some(match self.dtype {
            Dtype::F32 => elements(b, f32::from_le_bytes),
            Dtype::F16 => elements(b, |x| half::f16::from_le_bytes(x).to_f32()),
            Dtype::Bf16 => elements(b, |x| half::bf16::from_le_bytes(x).to_f32()),
            Dtype::F64 => elements(b, |x| f64::from_le_bytes(x) as f32),
            _ => return None,
        })
    }

    /// The elements as f64, for the float types; `None` for other types.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        match self.dtype {
            Dtype::F64 => Some(elements(self.bytes, f64::from_le_bytes)),
            _ => Some(self.to_f32()?.into_iter().map(f64::from).collect()),
        }
    }

    /// The elements as i64, for booleans and integers that fit; `None` for other types.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        let b = self.bytes;
        Some(match self.dtype {
            Dtype::Bool | Dtype::U8 => b.iter().map(|&x| i64::from(x)).collect(),
            Dtype::I8 => elements(b, |x| i64::from(i8::from_le_bytes(x))),
            Dtype::I16 => elements(b, |x| i64::from(i16::from_le_bytes(x))),
            Dtype::U16 => elements(b, |x| i64::from(u16::from_le_bytes(x))),
            Dtype::I32 => elements(b, |x| i64::from(i32::from_le_bytes(x))),
            Dtype::U32 => elements(b, |x| i64::from(u32::from_le_bytes(x))),
            Dtype::I64 => elements(b, i64::from_le_bytes),
            Dtype::U64 => {
                return elements(b, u64::from_le_bytes)
                    .into_iter()
                    .map(|x| i64::try_from(x).ok())
                    .collect();
            }
            _ => return None,
        })
    }
}

fn elements<const W: usize, T>(bytes: &[u8], convert: impl Fn([u8; W]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<W>();
    chunks.iter().map(|&chunk| convert(chunk)).collect()
}

/// Bytes of a mapped file whose pages go when they do.
struct Passing {
    bytes: Bytes,
    file: MappedFile,
}

impl AsRef<[u8]> for Passing {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.file.release(&self.bytes);
    }
}

impl Tensors {
    /// Opens weights: a `.safetensors` file, an index of shards (`*.index.json`), or a model
    /// directory that has one of them.
    ///
    /// # Errors
    /// [`Error::Header`] for a damaged file, [`Error::Index`] for an index that disagrees with its
    /// shards, [`Error::Pickle`] for pickled weights, [`Error::NoWeights`] for a directory without any.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::open_directory(path);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".index.json") {
            Self::open_index(path)
        } else if is_pickle(&name) {
            Err(Error::Pickle {
                path: path.to_path_buf(),
            })
        } else {
            let source = open_source(path)?;
            Self::assemble(format!("`{}`", path.display()), vec![source])
        }
    }

    /// Reads a safetensors file that is already in memory. `origin` names it in messages.
    ///
    /// # Errors
    /// [`Error::Header`] when the bytes aren't a valid file.
    pub fn from_bytes(bytes: Vec<u8>, origin: &str) -> Result<Self> {
        let parsed = header::parse(&bytes).map_err(|problem| Error::Header {
            path: PathBuf::from(origin),
            problem,
        })?;
        let source = Source {
            bytes: bytes.into(),
            file: None,
            data_start: parsed.data_start,
            metadata: parsed.metadata,
        };
        Self::assemble(format!("`{origin}`"), vec![(source, parsed.tensors)])
    }

    fn open_directory(dir: &Path) -> Result<Self> {
        let (single, index) = (dir.join(WEIGHTS), dir.join(WEIGHTS_INDEX));
        if single.is_file() {
            return Self::open(single);
        }
        if index.is_file() {
            return Self::open_index(&index);
        }
        let entries = std::fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))?;
        let mut pickles: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_pickle(name))
            .collect();
        pickles.sort();
        Err(Error::NoWeights {
            path: dir.to_path_buf(),
            pickles,
        })
    }

    fn open_index(path: &Path) -> Result<Self> {
        let weight_map = read_index(path)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let files: BTreeSet<&String> = weight_map.iter().map(|(_, file)| file).collect();
        let mut sources = Vec::new();
        let mut listed: HashMap<&str, &str> = weight_map
            .iter()
            .map(|(n, f)| (n.as_str(), f.as_str()))
            .collect();
        for file in files {
            let shard = dir.join(file);
            if !shard.is_file() {
                let problem =
                    format!("expected the shard `{file}` beside it, found none; fetch all shards");
                return Err(Error::Index {
                    path: path.to_path_buf(),
                    problem,
                });
            }
            let (source, tensors) = open_source(&shard)?;
            for tensor in &tensors {
                let found = listed.remove(tensor.name.as_str());
                if found != Some(file.as_str()) {
                    let place = found.map_or("nowhere".to_string(), |f| format!("in `{f}`"));
                    let problem = format!(
                        "tensor `{}` lies in `{file}`, the index lists it {place}; write the checkpoint again",
                        tensor.name
                    );
                    return Err(Error::Index {
                        path: path.to_path_buf(),
                        problem,
                    });
                }
            }
            sources.push((source, tensors));
        }
        if let Some((name, file)) = listed.into_iter().min() {
            let problem = format!(
                "tensor `{name}` should be in `{file}`, it isn't there; fetch all shards again"
            );
            return Err(Error::Index {
                path: path.to_path_buf(),
                problem,
            });
        }
        Self::assemble(format!("`{}`", path.display()), sources)
    }

    fn assemble(origin: String, parts: Vec<(Source, Vec<TensorInfo>)>) -> Result<Self> {
        let mut result = Self {
            origin,
            sources: Vec::new(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
        };
        for (source, tensors) in parts {
            for info in tensors {
                let name = info.name.clone();
                if result
                    .by_name
                    .insert(name.clone(), result.tensors.len())
                    .is_some()
                {
                    let problem = format!(
                        "tensor `{name}` is in two shards, expected one; write the checkpoint again"
                    );
                    return Err(Error::Index {
                        path: PathBuf::from(result.origin.trim_matches('`')),
                        problem,
                    });
                }
                result.tensors.push(Entry {
                    source: result.sources.len(),
                    info,
                });
            }
            result.sources.push(source);
        }
        Ok(result)
    }

    /// The same tensors under other names: `rename` gives the new name, or `None` to keep the old.
    /// For published spellings of one name (`gamma` for `weight`).
    ///
    /// # Errors
    /// [`Error::BadTensor`] when two tensors would get the same name.
    pub fn rename(mut self, rename: impl Fn(&str) -> Option<String>) -> Result<Self> {
        self.by_name.clear();
        for (i, entry) in self.tensors.iter_mut().enumerate() {
            let old = entry.info.name.clone();
            if let Some(new) = rename(&old) {
                entry.info.name = new;
            }
            if self.by_name.insert(entry.info.name.clone(), i).is_some() {
                let problem = format!(
                    "`{old}` stands for the same tensor and both are in {}; remove one",
                    self.origin
                );
                return Err(Error::BadTensor {
                    name: entry.info.name.clone(),
                    problem,
                });
            }
        }
        Ok(self)
    }

    /// The same tensors but for those of these names.
    #[must_use]
    pub fn without(mut self, names: &[String]) -> Self {
        self.tensors
            .retain(|entry| !names.contains(&entry.info.name));
        let left = self.tensors.iter().enumerate();
        self.by_name = left
            .map(|(i, entry)| (entry.info.name.clone(), i))
            .collect();
        self
    }

    /// Where the tensors come from, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Names in the order of the files.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|t| t.info.name.as_str())
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Whether a tensor of that name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// A free-form string of the header (`format`), of the first file that has it.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.sources
            .iter()
            .find_map(|s| s.metadata.get(key))
            .map(String::as_str)
    }

    /// The tensor of that name, without copying it.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let entry = &self.tensors[*self.by_name.get(name)?];
        let (source, info) = (&self.sources[entry.source], &entry.info);
        // In range: the header was checked against the length of these very bytes.
        let bytes = &source.bytes[source.data_start + info.begin..source.data_start + info.end];
        Some(TensorView {
            dtype: info.dtype,
            shape: &info.shape,
            bytes,
        })
    }

    /// Like [`get`](Self::get), with an error that names what is there instead.
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn require(&self, name: &str) -> Result<TensorView<'_>> {
        self.get(name).ok_or_else(|| Error::NoTensor {
            name: name.to_string(),
            origin: self.origin.clone(),
            count: self.len(),
            examples: self.names().take(5).collect::<Vec<_>>().join(", "),
        })
    }

    /// Shape and elements as f32 (from F32, F16, BF16 or F64).
    ///
    /// # Errors
    /// [`Error::NoTensor`] or [`Error::DtypeMismatch`].
    pub fn to_f32(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        self.convert(name, "F32, F16, BF16 or F64", TensorView::to_f32)
    }

    /// The elements as f32 (from F32, F16, BF16 or F64), without copying those of an aligned F32 tensor.
    ///
    /// # Errors
    /// [`Error::NoTensor`] or [`Error::DtypeMismatch`].
    pub fn as_f32(&self, name: &str) -> Result<Cow<'_, [f32]>> {
        let view = self.require(name)?;
        match bytemuck::try_cast_slice(view.bytes) {
            Ok(values) if view.dtype == Dtype::F32 && cfg!(target_endian = "little") => {
                Ok(Cow::Borrowed(values))
            }
            _ => Ok(Cow::Owned(self.to_f32(name)?.1)),
        }
    }

    /// The elements of an F32 tensor as they lie in the file, without copying: the bytes keep the file mapped for as long as anyone holds
    /// them. `None` where they cannot stand for a slice of f32: other types, or an offset that is no multiple of four.
    pub fn shared_f32(&self, name: &str) -> Option<Bytes> {
        self.shared(name, &[Dtype::F32])
    }

    /// The elements of a tensor of one of `types`, where they are aligned and in this machine's byte order.
    fn shared(&self, name: &str, types: &[Dtype]) -> Option<Bytes> {
        let view = self.get(name)?;
        let whole = &self.sources[self.tensors[self.by_name[name]].source].bytes;
        let usable = types.contains(&view.dtype)
            && cfg!(target_endian = "little")
            && (view.bytes.as_ptr() as usize).is_multiple_of(view.dtype.size());
        usable.then(|| whole.slice_ref(view.bytes))
    }

    /// The type and elements of an F32 or BF16 tensor like [`Self::shared_f32`], for who reads them once: when all clones of the bytes are
    /// gone, so are the pages, which would count as memory of this process as long as the file is mapped.
    pub fn passing(&self, name: &str) -> Option<(Dtype, Bytes)> {
        let bytes = self.shared(name, &[Dtype::F32, Dtype::Bf16])?;
        let entry = &self.tensors[self.by_name[name]];
        let passing = match self.sources[entry.source].file.clone() {
            Some(file) => Bytes::from_owner(Passing { bytes, file }),
            None => bytes,
        };
        Some((entry.info.dtype, passing))
    }

    /// Gives the pages of a tensor back after it was read; see [`Self::passing`].
    pub fn release(&self, name: &str) {
        if let Some(entry) = self.by_name.get(name)
            && let Some(file) = &self.sources[self.tensors[*entry].source].file
            && let Some(view) = self.get(name)
        {
            file.release(view.bytes);
        }
    }

    /// Shape and elements as f64 (from F32, F16, BF16 or F64).
    ///
    /// # Errors
    /// [`Error::NoTensor`] or [`Error::DtypeMismatch`].
    pub fn to_f64(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        self.convert(name, "F32, F16, BF16 or F64", TensorView::to_f64)
    }

    /// Shape and elements as i64 (from integers of any width and booleans).
    ///
    /// # Errors
    /// [`Error::NoTensor`] or [`Error::DtypeMismatch`].
    pub fn to_i64(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
        self.convert(
            name,
            "integers that fit 64 bits with sign",
            TensorView::to_i64,
        )
    }

    /// Shape and the bytes as stored, copied.
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn to_bytes(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>)> {
        let view = self.require(name)?;
        Ok((view.shape.to_vec(), view.bytes.to_vec()))
    }

    fn convert<'a, T>(
        &'a self,
        name: &str,
        expected: &'static str,
        convert: impl Fn(&TensorView<'a>) -> Option<Vec<T>>,
    ) -> Result<(Vec<usize>, Vec<T>)> {
        let view = self.require(name)?;
        match convert(&view) {
            Some(elements) => Ok((view.shape.to_vec(), elements)),
            None => Err(Error::DtypeMismatch {
                name: name.to_string(),
                found: view.dtype,
                expected,
            }),
        }
    }
}

fn open_source(path: &Path) -> Result<(Source, Vec<TensorInfo>)> {
    let file = MappedFile::open(path)?;
    let parsed = header::parse(file.as_ref()).map_err(|problem| Error::Header {
        path: path.to_path_buf(),
        problem,
    })?;
    let source = Source {
        bytes: Bytes::from_owner(file.clone()),
        file: Some(file),
        data_start: parsed.data_start,
        metadata: parsed.metadata,
    };
    Ok((source, parsed.tensors))
}

/// Reads a shard index: pairs of tensor name and shard file name.
///
/// # Errors
/// [`Error::Index`] when it isn't of the published form or names a file outside its directory.
pub fn read_index(path: &Path) -> Result<Vec<(String, String)>> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
    if meta.len() > MAX_INDEX_BYTES {
        let problem = format!(
            "it has {} bytes, expected at most {MAX_INDEX_BYTES}; fetch it again",
            meta.len()
        );
        return Err(Error::Index {
            path: path.to_path_buf(),
            problem,
        });
    }
    let text = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    parse_index(&text).map_err(|problem| Error::Index {
        path: path.to_path_buf(),
        problem,
    })
}

/// Parses a shard index from any bytes; the error is a sentence without the file's name.
pub fn parse_index(text: &[u8]) -> std::result::Result<Vec<(String, String)>, String> {
    let value: serde_json::Value = serde_json::from_slice(text)
        .map_err(|e| format!("isn't valid JSON: {e}; fetch it again"))?;
    let Some(map) = value.get("weight_map").and_then(|m| m.as_object()) else {
        return Err("expected an object `weight_map` of tensor names to shard files, found none; fetch it again".into());
    };
    let mut pairs = Vec::with_capacity(map.len());
    for (name, file) in map {
        match file.as_str() {
            Some(file) if is_plain_name(file) && file.ends_with(".safetensors") => {
                pairs.push((name.clone(), file.to_string()));
            }
            _ => {
                return Err(format!(
                    "tensor `{name}` is listed in {file}, expected the name of a `.safetensors` file in the same \
                    directory; correct the index"
                ));
            }
        }
    }
    if pairs.is_empty() {
        return Err("`weight_map` is empty, expected at least one tensor; fetch it again".into());
    }
    Ok(pairs)
}

/// Whether a file name stays inside its directory: one normal component, nothing else.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let plain = matches!(parts.next(), Some(std::path::Component::Normal(part)) if part == name);
    plain && parts.next().is_none() && !name.contains(['\\', '\0', ':'])
}

/// Whether a file name is one that pickled weights have.
pub(crate) fn is_pickle(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    [".bin", ".ckpt", ".pt", ".pth", ".pkl"]
        .iter()
        .any(|ending| lower.ends_with(ending))
}
