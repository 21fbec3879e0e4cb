//! BERT: Devlin et al. (2018), "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".

mod config;
mod model;
mod weights;

use crate::encoder::Family;
use crate::head::Head;

/// BERT.
pub static FAMILY: Family = Family {
    model_type: "bert",
    heads: &[
        (Head::None, "BertModel"),
        (Head::Pretraining, "BertForPreTraining"),
        (Head::MaskedLm, "BertForMaskedLM"),
        (Head::NextSentence, "BertForNextSentencePrediction"),
        (
            Head::SequenceClassification,
            "BertForSequenceClassification",
        ),
        (Head::TokenClassification, "BertForTokenClassification"),
        (Head::QuestionAnswering, "BertForQuestionAnswering"),
        (Head::MultipleChoice, "BertForMultipleChoice"),
    ],
    causal_heads: &[],
    sizes: config::presets,
    read: config::read,
    write: crate::encoder::bert_json,
    d_ff: None,
    pair_loss: "nsp",
    build: model::build,
    rules: weights::rules,
    prefix: "bert.",
    unprefixed: &["cls.", "classifier.", "qa_outputs."],
    tied: &[
        ("embeddings.token.weight", "cls.predictions.decoder.weight"),
        ("vocabulary.bias", "cls.predictions.decoder.bias"),
    ],
};
