//! Tokenizers, Hangul-safe normalisation, corpora and data-set readers.
//!
//! | to | use |
//! |---|---|
//! | load a tokenizer from a model directory | [`Tokenizer::load`] |
//! | encode | [`Tokenizer::encode`], [`Tokenizer::encode_batch`] with [`EncodeOptions`]; [`Tokenizer::encode_ids`] |
//! | decode | [`Tokenizer::decode`]; id by id, whole characters only: [`Tokenizer::decode_stream`] |
//! | know its ids | [`Tokenizer::vocab_size`], [`Tokenizer::special`], [`Tokenizer::vocabulary_hash`] |
//! | group tokens into words | [`Tokenizer::whole_words`] |
//! | save it for Rust and Python | [`Tokenizer::save`] |
//! | train one | [`train`](fn@train), [`train_from_iter`] with [`TrainOptions`] |
//! | stream text files as documents | [`documents`](fn@documents) with [`CorpusOptions`] |
//! | tokenise a corpus once | [`build_token_corpus`], or [`CorpusBuilder`] sentence by sentence |
//! | read it, memory-mapped | [`TokenCorpus`]: documents, sentences, or any span of [`Tokens`] |
//! | see how a tokenizer treats Korean text | [`inspect`] |
//! | read a data set | [`RowReader`]: TSV, CSV, JSON lines |
//!
//! Errors are [`TextError`]. Everything gives the same result for any number of threads.
//!
//! ```
//! use malmoi_text::{Algorithm, EncodeOptions, TrainOptions, train_from_iter};
//!
//! let lines = ["오늘 영화가 좋았다", "어제 영화도 좋았다", "내일 영화를 본다"];
//! let options = TrainOptions::new(Algorithm::Bpe, 300);
//! let trained = train_from_iter(lines.iter().map(|l| Ok(l.to_string())), &options, &mut |_| {})?;
//! let encoding = trained.tokenizer.encode("영화가", None, &EncodeOptions::default())?;
//! assert_eq!(trained.tokenizer.decode(&encoding.ids, true)?, "영화가");
//! # Ok::<(), malmoi_text::TextError>(())
//! ```

mod corpus;
mod doctor;
mod error;
mod map;
mod normalizer;
mod sentencepiece;
mod tokenizer;
mod train;
mod trie;

pub use corpus::{
    BuildOptions, CorpusBuilder, CorpusOptions, CorpusTotals, DEFAULT_MAX_LINE,
    DEFAULT_MAX_UNPACKED, Document, DocumentMode, Documents, FORMAT_VERSION, LineReader,
    ReadOptions, Row, RowFormat, RowOptions, RowReader, TokenCorpus, Tokens, build_token_corpus,
    documents,
};
pub use doctor::{InspectReport, WordReport, inspect};
pub use error::{CorpusProblem, Result, TextError, TruncationError};
pub use normalizer::HangulSafe;
pub use sentencepiece::{PieceKind, SentencePiece};
pub use tokenizer::{
    DecodeStream, EncodeOptions, Encoding, LoadOptions, PadTo, Padding, Side, SpecialTokens,
    Tokenizer, Truncation, TruncationStrategy,
};

pub use train::{
    Algorithm, CountReport, Layout, TrainOptions, TrainReport, Trained, train, train_from_iter,
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
