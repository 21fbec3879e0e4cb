//! BERT: Devlin et al. (2018), "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".

mod config;
mod model;
mod weights;

pub use config::BertConfig;
