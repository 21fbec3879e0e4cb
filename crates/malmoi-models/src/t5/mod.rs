//! T5 and mT5: Raffel et al. (2020), "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer"; Xue et
//! al. (2021), "mT5: A Massively Multilingual Pre-trained Text-to-Text Transformer".

mod config;
mod model;
mod weights;

pub use config::{OutputScale, T5Config};

use crate::published::{Published, heads};

/// T5.
pub static T5: Published = Published {
    model_type: "t5",
    heads: heads!("T5": None, Seq2SeqLm, EncoderOnly, SequenceClassification, TokenClassification),
    prefix: "",
    unprefixed: &["classification_head.", "classifier."],
    tied: &[("token.weight", "lm_head.weight")],
    // Copies of the embedding, and a bias of cross-attention that old files hold and nothing reads.
    redundant: &[
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "EncDecAttention.relative_attention_bias.weight",
    ],
};

/// mT5.
pub static MT5: Published = Published {
    model_type: "mt5",
    heads: heads!("MT5": None, Seq2SeqLm, EncoderOnly, SequenceClassification, TokenClassification),
    ..T5
};
