//! The one error type of this crate. Every message says what was expected, what was found and
//! what to do about it.

use std::path::{Path, PathBuf};

use crate::dtype::Dtype;
use crate::header::HeaderError;

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between bytes on a disk (or a hub) and named tensors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} `{}`: {source}{}", path.display(), io_hint(source))]
    Io {
        /// What was being done, as a verb phrase ("write").
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file isn't a valid safetensors file.
    #[error("`{}` isn't a usable safetensors file: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        #[source]
        problem: HeaderError,
    },
    /// A directory holds no weights that can be read.
    #[error("`{}` has no weights: expected `model.safetensors` or `model.safetensors.index.json`{}",
        path.display(), found_pickles(pickles))]
    NoWeights {
        /// The directory.
        path: PathBuf,
        /// Pickled weights that lie there instead.
        pickles: Vec<String>,
    },
    /// A pickled checkpoint, which could run code when read.
    #[error("`{}` is a pickled checkpoint, which can run arbitrary code when it is read, so it is refused; \
        expected a `.safetensors` file. Convert it once in Python, where you trust it: \
        `from safetensors.torch import save_file; \
        save_file({{k: v.contiguous().clone() for k, v in torch.load(\"{}\", weights_only=True).items()}}, \
        \"model.safetensors\", {{\"format\": \"pt\"}})`", path.display(), file_name(path))]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A shard index that can't be used.
    #[error("shard index `{}`: {problem}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong and how to mend it.
        problem: String,
    },
    /// A file that should hold JSON doesn't.
    #[error("`{}` isn't valid JSON: {problem}; write the file again or fetch a complete copy", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        problem: String,
    },
    /// A tensor that was asked for isn't there.
    #[error("tensor `{name}` isn't in {origin}; it has {count} tensors, the first are {examples}")]
    NoTensor {
        /// The name asked for.
        name: String,
        /// The file or directory.
        origin: String,
        /// How many tensors there are.
        count: usize,
        /// A few of the names.
        examples: String,
    },
    /// A tensor's element type can't be turned into what was asked for.
    #[error("tensor `{name}` holds {found}, expected {expected}; convert it before loading")]
    DtypeMismatch {
        /// The tensor.
        name: String,
        /// Its element type.
        found: Dtype,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// Tensors to be written don't fit together.
    #[error("cannot write tensor `{name}`: {problem}")]
    BadTensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Names or shapes of a checkpoint differ from what the model expects.
    #[error("{0}")]
    Names(Box<crate::names::NameMismatch>),
    /// `config.json` can't be used.
    #[error("{0}")]
    Config(#[from] crate::config_reader::ConfigError),
    /// The output path is taken.
    #[error("`{}` already exists{}; choose another path or ask for it to be replaced", path.display(), detail)]
    Exists {
        /// The path.
        path: PathBuf,
        /// What stands there, when that matters.
        detail: &'static str,
    },
    /// A model directory, run directory or file that isn't there.
    #[error("`{}` isn't there: expected {expected}; check the path", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
        /// What was expected to be there.
        expected: &'static str,
    },
    /// A file name that would leave its directory.
    #[error("file name `{name}` must be a plain name without directories; rename the file")]
    BadFileName {
        /// The name.
        name: String,
    },
    /// A model couldn't be found or fetched from a hub.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// A training run's directory can't be used.
    #[error(transparent)]
    Run(#[from] crate::run::RunError),
}

impl Error {
    /// Wraps an I/O error with what was being done to which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io {
            action,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// Whether the input or the request was at fault (exit status 2) rather than the work (1).
    pub fn is_bad_input(&self) -> bool {
        match self {
            Error::Io { .. } => false,
            Error::Run(error) => error.is_bad_input(),
            Error::Hub(error) => error.is_bad_input(),
            _ => true,
        }
    }
}

fn io_hint(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match source.kind() {
        StorageFull | QuotaExceeded => {
            "; free some space (or write elsewhere) and run it again, what was complete before is untouched"
        }
        FileTooLarge => {
            "; raise the file size limit (`ulimit -f`), what was complete before is untouched"
        }
        PermissionDenied => "; check the permissions",
        NotFound => "; check the path",
        _ => "",
    }
}

fn found_pickles(pickles: &[String]) -> String {
    if pickles.is_empty() {
        return "; check the path".into();
    }
    format!(
        ", found only pickled weights ({}), which can run code when they are read; convert them to safetensors \
        in Python (`model.save_pretrained(DIR)`)",
        pickles.join(", ")
    )
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |n| n.to_string_lossy().into_owned(),
    )
}
