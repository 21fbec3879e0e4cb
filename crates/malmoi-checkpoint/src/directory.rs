//! Model directories in the published layout.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::fs::{Cleanup, parent, remove, sibling, sync_dir, sync_tree, write_atomically};
use crate::tensors::{Tensors, is_plain_name};
use crate::write::{NamedTensor, write_weights};

/// File name of a model's configuration.
pub const CONFIG: &str = "config.json";
/// File name of a model's generation settings.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// File name of a model's card.
pub const CARD: &str = "README.md";

/// Largest JSON file that is read whole, in bytes. A `tokenizer.json` of a large vocabulary has about 20 MB.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// An opened model directory.
#[derive(Debug)]
pub struct ModelDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// `config.json`, as read.
    pub config: Value,
    /// `model_type` of the config ("bert"); empty when absent.
    pub model_type: String,
    /// `architectures` of the config ("BertForMaskedLM"); empty when absent.
    pub architectures: Vec<String>,
    /// The weights.
    pub tensors: Tensors,
    /// `generation_config.json`, if there is one.
    pub generation_config: Option<Value>,
}

/// Whether an existing directory may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// An existing path is an error (an empty directory is not).
    #[default]
    Refuse,
    /// An existing model directory is replaced once the new one is complete. Any other directory
    /// that isn't empty is still refused, so that a mistyped path can't destroy data.
    Replace,
}

/// A file that goes into a model directory beside the weights (tokenizer files, say).
#[derive(Debug, Clone)]
pub struct ExtraFile<'a> {
    /// Plain file name, or one in a folder of the directory (`1_Pooling/config.json`).
    pub name: &'a str,
    /// Where its content comes from.
    pub content: ExtraContent<'a>,
}

/// Content of an [`ExtraFile`].
#[derive(Debug, Clone)]
pub enum ExtraContent<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// A copy of this file.
    CopyOf(&'a Path),
}

/// Everything that goes into a model directory.
#[derive(Debug, Clone)]
pub struct ModelFiles<'a> {
    /// `config.json`.
    pub config: &'a Value,
    /// The weights.
    pub tensors: &'a [NamedTensor<'a>],
    /// `generation_config.json`, if the model generates.
    pub generation_config: Option<&'a Value>,
    /// Other files.
    pub extra: &'a [ExtraFile<'a>],
    /// The model card `README.md`; [`crate::card::ModelCard`] renders one.
    pub card: Option<&'a str>,
    /// Weights larger than this many bytes are split into shards.
    pub max_shard_bytes: Option<u64>,
    /// Model directories inside this one, by folder name.
    pub nested: &'a [(&'a str, ModelFiles<'a>)],
}

impl ModelDirectory {
    /// Opens a model directory: reads the configuration, maps the weights.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such directory or no `config.json` in it, otherwise
    /// those of [`Tensors::open`] and [`read_json`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let config = read_config(path)?;
        let tensors = Tensors::open(path)?;
        let generation = path.join(GENERATION_CONFIG);
        let generation_config = if generation.is_file() {
            Some(read_json(&generation)?)
        } else {
            None
        };
        Ok(Self {
            path: path.to_path_buf(),
            model_type: model_type(&config).to_string(),
            architectures: architectures(&config),
            config,
            tensors,
            generation_config,
        })
    }

    /// Writes a model directory: into a temporary directory beside `path`, synced, then renamed, so
    /// that `path` is either complete or as it was before.
    ///
    /// # Errors
    /// [`Error::Exists`] when `path` is taken and `overwrite` doesn't allow replacing it;
    /// [`Error::Io`] when writing fails (nothing is left behind then).
    pub fn write(
        path: impl AsRef<Path>,
        files: &ModelFiles<'_>,
        overwrite: Overwrite,
    ) -> Result<()> {
        let path = path.as_ref();
        check_target(path, overwrite)?;
        fs::create_dir_all(parent(path)).map_err(|e| Error::io("create", parent(path), e))?;
        let temporary = sibling(path);
        let mut cleanup = Cleanup::new(temporary.clone());
        fs::create_dir(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
        files.write_into(&temporary)?;
        sync_tree(&temporary)?;
        move_into_place(&temporary, path)?;
        cleanup.keep();
        sync_dir(parent(path))
    }
}

impl ModelFiles<'_> {
    /// Writes the files into an existing directory, the configuration last. For directories that
    /// become visible as a whole later (checkpoints); otherwise use [`ModelDirectory::write`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::BadTensor`], [`Error::BadFileName`].
    pub fn write_into(&self, dir: &Path) -> Result<()> {
        write_weights(dir, self.tensors, self.max_shard_bytes)?;
        let plain = |name: &str| match is_plain_name(name) {
            true => Ok(dir.join(name)),
            false => Err(Error::BadFileName {
                name: name.to_string(),
            }),
        };
        for (name, files) in self.nested {
            let folder = plain(name)?;
            fs::create_dir(&folder).map_err(|e| Error::io("create", &folder, e))?;
            files.write_into(&folder)?;
        }
        for file in self.extra {
            let target = match file.name.split_once('/') {
                None => plain(file.name)?,
                Some((folder, name)) if is_plain_name(name) => {
                    let folder = plain(folder)?;
                    fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
                    folder.join(name)
                }
                Some(_) => {
                    return Err(Error::BadFileName {
                        name: file.name.to_string(),
                    });
                }
            };
            match file.content {
                ExtraContent::Bytes(bytes) => {
                    write_atomically(&target, |out| out.write_all(bytes))?
                }
                ExtraContent::CopyOf(source) => copy(source, &target)?,
            }
        }
        if let Some(card) = self.card {
            write_atomically(&dir.join(CARD), |out| out.write_all(card.as_bytes()))?;
        }
        if let Some(generation) = self.generation_config {
            write_json(&dir.join(GENERATION_CONFIG), generation)?;
        }
        write_json(&dir.join(CONFIG), self.config)
    }
}

fn copy(source: &Path, target: &Path) -> Result<()> {
    let mut file = fs::File::open(source).map_err(|e| Error::io("read", source, e))?;
    write_atomically(target, |out| std::io::copy(&mut file, out).map(|_| ()))
}

fn check_target(path: &Path, overwrite: Overwrite) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let taken = |detail| {
        Err(Error::Exists {
            path: path.to_path_buf(),
            detail,
        })
    };
    if !path.is_dir() {
        return taken(" and isn't a directory");
    }
    let mut entries = fs::read_dir(path).map_err(|e| Error::io("list", path, e))?;
    if entries.next().is_none() {
        return Ok(());
    }
    match overwrite {
        Overwrite::Refuse => taken(""),
        Overwrite::Replace if !path.join(CONFIG).is_file() => {
            taken(" and holds something other than a model")
        }
        Overwrite::Replace => Ok(()),
    }
}

/// Renames `new` to `path`, setting an existing directory aside until that has worked.
fn move_into_place(new: &Path, path: &Path) -> Result<()> {
    let rename =
        |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| Error::io("rename into", to, e));
    if fs::symlink_metadata(path).is_err() {
        return rename(new, path);
    }
    let aside = sibling(path);
    rename(path, &aside)?;
    if let Err(error) = rename(new, path) {
        rename(&aside, path)?;
        return Err(error);
    }
    remove(&aside)
}

/// Reads `config.json` of a model directory (or the file itself) without opening the weights.
///
/// # Errors
/// [`Error::NotFound`] or those of [`read_json`].
pub fn read_config(path: &Path) -> Result<Value> {
    if path.is_file() {
        return read_json(path);
    }
    if !path.is_dir() {
        return Err(Error::NotFound {
            path: path.to_path_buf(),
            expected: "a model directory",
        });
    }
    let file = path.join(CONFIG);
    if !file.is_file() {
        return Err(Error::NotFound {
            path: file,
            expected: "the configuration of the model",
        });
    }
    read_json(&file)
}

/// Reads a JSON file whole.
///
/// # Errors
/// [`Error::Io`], or [`Error::Json`] for text that isn't JSON or a file of more than 256 MB.
pub fn read_json(path: &Path) -> Result<Value> {
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    file.take(MAX_JSON_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|e| Error::io("read", path, e))?;
    if text.len() as u64 > MAX_JSON_BYTES {
        return Err(Error::Json {
            path: path.into(),
            problem: format!("longer than {MAX_JSON_BYTES} bytes"),
        });
    }
    serde_json::from_slice(&text).map_err(|e| Error::Json {
        path: path.into(),
        problem: e.to_string(),
    })
}

/// Writes a JSON file as Python's writers do: indented by two, a line break at the end, atomically.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_atomically(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

/// `model_type` of a configuration, empty when absent.
pub fn model_type(config: &Value) -> &str {
    config
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// `architectures` of a configuration, empty when absent.
pub fn architectures(config: &Value) -> Vec<String> {
    let list = config
        .get("architectures")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter()
        .filter_map(|name| name.as_str().map(str::to_string))
        .collect()
}
