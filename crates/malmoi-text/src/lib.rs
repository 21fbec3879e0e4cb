//! Tokenizers, Hangul-safe normalisation, corpora and data-set readers.
mod corpus;
mod error;
mod map;
mod normalizer;
mod sentencepiece;
mod tokenizer;
mod trie;

pub use corpus::{
    BuildOptions, CorpusBuilder, CorpusOptions, CorpusTotals, DEFAULT_MAX_LINE,
    DEFAULT_MAX_UNPACKED, Document, DocumentMode, Documents, FORMAT_VERSION, LineReader,
    ReadOptions, Row, RowFormat, RowOptions, RowReader, TokenCorpus, Tokens, build_token_corpus,
    documents,
};
pub use error::{CorpusProblem, Result, TextError, TruncationError};
pub use normalizer::HangulSafe;
pub use sentencepiece::{PieceKind, SentencePiece};
pub use tokenizer::{
    DecodeStream, EncodeOptions, Encoding, LoadOptions, PadTo, Padding, Side, SpecialTokens,
    Tokenizer, Truncation, TruncationStrategy,
};

/// How far a long piece of work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: &'static str,
    /// Units done in this stage.
    pub done: u64,
    /// Units in total, where that is known.
    pub total: Option<u64>,
}
