//! What the encoder families share: one network of exchangeable parts, one configuration, and the names they publish alike.
//!
//! BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ALBERT, ELECTRA and XLM are the same post-norm encoder with other embeddings and
//! other heads. A [`Family`] is a folder: its published keys (`config.rs`), which parts it has (`model.rs`) and its table of
//! names (`weights.rs`). Everything that runs is here.

mod config;
mod embeddings;
mod family;
pub(crate) mod names;
mod network;

pub(crate) use config::{
    BERT_DEFAULTS, BUFFERS, BertDefaults, Dropouts, bert_json, read_bert_keys,
};
pub use config::{EncoderConfig, Positions, Segments};
pub use embeddings::Embeddings;
pub(crate) use family::USUAL;
pub use family::{EncoderTraits, Family};
pub use network::{Detector, Encoder, Pooling, VocabularyHead};
