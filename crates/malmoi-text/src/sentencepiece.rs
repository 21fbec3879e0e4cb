//! SentencePiece unigram models (`spiece.model`): the file, its normaliser and its segmentation.
//!
//! Kudo and Richardson, "SentencePiece: A simple and language independent subword tokenizer and detokenizer for neural
//! text processing", EMNLP 2018; Kudo, "Subword Regularization", ACL 2018 (the unigram model).
//!
//! The stock parts of the `tokenizers` format only approximate the published normaliser (they do not compose decomposed
//! Hangul, and they match control symbols in the text), so both steps are implemented here.

mod charsmap;
mod model;
mod proto;

pub use model::{PieceKind, SentencePiece};
