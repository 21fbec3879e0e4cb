//! Corpora: text files as documents, and the tokenised corpus file.

mod build;
mod documents;
mod lines;
mod parquet;
mod rows;
mod token_file;

pub use build::{BuildOptions, build_token_corpus};
pub use documents::{CorpusOptions, Document, DocumentMode, Documents, documents};
pub use lines::{DEFAULT_MAX_LINE, DEFAULT_MAX_UNPACKED, LineReader, ReadOptions};
pub use rows::{Row, RowFormat, RowOptions, RowReader};
pub use token_file::{CorpusBuilder, CorpusTotals, FORMAT_VERSION, TokenCorpus, Tokens};
