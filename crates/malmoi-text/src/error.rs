//! The errors of this crate.

use std::path::{Path, PathBuf};

/// Everything that can go wrong in this crate. Messages say what was expected, what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A directory holds none of the known tokenizer files.
    #[error(
        "{}: no tokenizer found; expected tokenizer.json, vocab.txt, vocab.json with merges.txt, encoder.json with \
         vocab.bpe, or spiece.model",
        .0.display()
    )]
    NoTokenizer(PathBuf),
    /// A tokenizer file that cannot be understood.
    #[error("{}: {message}", path.display())]
    BadTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A tokenizer that uses something this crate does not implement.
    #[error("{}: {what} is not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The unsupported part.
        what: String,
    },
    /// Text that cannot be cut to the requested length.
    #[error("truncation: {0}")]
    Truncation(#[from] TruncationError),
    /// Padding was asked from a tokenizer without a padding token.
    #[error("the tokenizer has no padding token; name one in tokenizer_config.json (pad_token)")]
    NoPadToken,
    /// The tokenizer refused a text.
    #[error("the text could not be encoded: {0}")]
    Encode(String),
    /// Tokens that could not be turned into text.
    #[error("the tokens could not be decoded: {0}")]
    Decode(String),
    /// A tokenizer training that cannot give the vocabulary that was asked for.
    #[error("tokenizer training: {0}")]
    Training(String),
    /// Bytes that are not text in the expected encoding.
    #[error(
        "{}: line {line}, byte {offset}: not valid {encoding}{}",
        path.display(),
        likely.map(|name| format!("; the file looks like {name}: pass --encoding {name}")).unwrap_or_default()
    )]
    InvalidEncoding {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// Byte offset in the unpacked file, counted from 0.
        offset: u64,
        /// The encoding that was expected.
        encoding: &'static str,
        /// An encoding that the bytes do fit.
        likely: Option<&'static str>,
    },
    /// An unknown name of an encoding.
    #[error("unknown encoding {0:?}; examples: utf-8, cp949, euc-kr, utf-16le, shift_jis, latin1")]
    UnknownEncoding(String),
    /// A compressed file that unpacks to more than the bound.
    #[error(
        "{}: unpacks to more than {limit} bytes; unpack it yourself if that is intended, or raise the limit",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        limit: u64,
    },
    /// A line longer than the bound on memory for one line.
    #[error("{}: line {line} is longer than {limit} bytes", path.display())]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// A row that does not have the shape of its table.
    #[error("{}: line {line}: {message}", path.display())]
    BadRow {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// What is wrong.
        message: String,
    },
    /// A column that the table does not have.
    #[error(
        "{}: {}no column {column:?}; {} has: {}",
        path.display(),
        line.map(|line| format!("line {line}: ")).unwrap_or_default(),
        if line.is_some() { "the row" } else { "the file" },
        found.join(", ")
    )]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// Line of the row that lacks it, where rows have columns of their own (JSON lines).
        line: Option<u64>,
        /// The missing column.
        column: String,
        /// The columns that exist.
        found: Vec<String>,
    },
    /// A file whose name says no kind of table.
    #[error(
        "{}: unknown kind of table; expected a name that ends in .tsv, .csv or .jsonl (also .gz, .zst), or .parquet",
        .0.display()
    )]
    UnknownTable(PathBuf),
    /// A corpus without a single document.
    #[error("the corpus is empty: no text in {}", .0.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    EmptyCorpus(Vec<PathBuf>),
    /// A tokenised corpus file that cannot be used.
    #[error("{}: {problem}", path.display())]
    BadCorpus {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: CorpusProblem,
    },
}

/// Why a text cannot be truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TruncationError {
    /// The sequence that may be cut is shorter than what has to go.
    #[error("the sequence to truncate is too short to respect max_length")]
    SequenceTooShort,
    /// The strategy names the second sequence, but there is none.
    #[error("the second sequence was not provided")]
    NoSecondSequence,
    /// The special tokens alone exceed the length.
    #[error("max_length {max_length} leaves no room for the {special} special tokens")]
    NoRoom {
        /// The requested length.
        max_length: usize,
        /// Number of special tokens that the tokenizer adds.
        special: usize,
    },
    /// The overlap is not smaller than the piece.
    #[error("stride {stride} must be smaller than the {length} tokens that fit in a piece")]
    StrideTooLarge {
        /// Requested overlap.
        stride: usize,
        /// Tokens of the text in one piece.
        length: usize,
    },
}

/// What is wrong with a tokenised corpus file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorpusProblem {
    /// Not such a file at all.
    #[error("not a tokenised corpus (expected it to start with \"MALMOIC\\0\")")]
    NotACorpus,
    /// Written by another version.
    #[error(
        "format version {found}; this program reads version {expected}; build the corpus again"
    )]
    Version {
        /// Version in the file.
        found: u32,
        /// Version that is understood.
        expected: u32,
    },
    /// The file is shorter or longer than its header says.
    #[error(
        "truncated or damaged: the header describes {expected} bytes, the file has {found}; build it again"
    )]
    Size {
        /// Bytes according to the header.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// A header or index whose numbers contradict each other.
    #[error("damaged: {0}; build the corpus again")]
    Damaged(&'static str),
    /// Tokenised with another vocabulary.
    #[error(
        "tokenised with another vocabulary (hash {found:016x}, the tokenizer has {expected:016x}); build it again with \
         this tokenizer"
    )]
    Vocabulary {
        /// Hash in the file.
        found: u64,
        /// Hash of the tokenizer.
        expected: u64,
    },
}

/// The result of this crate.
pub type Result<T, E = TextError> = std::result::Result<T, E>;

impl TextError {
    /// Wraps an input/output error with the path it happened on.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// A tokenizer file that cannot be understood.
    pub(crate) fn bad(path: &Path, message: impl ToString) -> Self {
        Self::BadTokenizer {
            path: path.to_path_buf(),
            message: message.to_string(),
        }
    }
}
