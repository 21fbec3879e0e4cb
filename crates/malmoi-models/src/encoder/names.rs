//! Names that several families publish alike.

use crate::head::Head;
use crate::names::{Rule, layer};

/// Embeddings of BERT, RoBERTa, ALBERT and ELECTRA.
pub(crate) const EMBEDDINGS: &[Rule] = &[
    layer("embeddings.token", "embeddings.word_embeddings"),
    layer("embeddings.position", "embeddings.position_embeddings"),
    layer("embeddings.segment", "embeddings.token_type_embeddings"),
    layer("embeddings.norm", "embeddings.LayerNorm"),
];

/// Blocks of BERT, RoBERTa and ELECTRA.
pub(crate) const LAYERS: &[Rule] = &[
    layer(
        "layers.{}.attention.query",
        "encoder.layer.{}.attention.self.query",
    ),
    layer(
        "layers.{}.attention.key",
        "encoder.layer.{}.attention.self.key",
    ),
    layer(
        "layers.{}.attention.value",
        "encoder.layer.{}.attention.self.value",
    ),
    layer(
        "layers.{}.attention.output",
        "encoder.layer.{}.attention.output.dense",
    ),
    layer(
        "layers.{}.attention_norm",
        "encoder.layer.{}.attention.output.LayerNorm",
    ),
    layer(
        "layers.{}.feed_forward.up",
        "encoder.layer.{}.intermediate.dense",
    ),
    layer(
        "layers.{}.feed_forward.down",
        "encoder.layer.{}.output.dense",
    ),
    layer(
        "layers.{}.feed_forward_norm",
        "encoder.layer.{}.output.LayerNorm",
    ),
];

/// The base model's pooler.
pub(crate) const POOLER: &[Rule] = &[layer("pooler", "pooler.dense")];

/// A classifier that is one dense layer.
pub(crate) const CLASSIFIER: &[Rule] = &[layer("classifier", "classifier")];

/// Start and end of an answer.
pub(crate) const SPANS: &[Rule] = &[layer("classifier", "qa_outputs")];

/// A classifier behind a dense layer of its own, both under `classifier.`.
pub(crate) const DENSE_CLASSIFIER: &[Rule] = &[
    layer("pooler", "classifier.dense"),
    layer("classifier", "classifier.out_proj"),
];

/// The name of a one-layer classifier by its head.
pub(crate) fn classifier(head: Head) -> &'static [Rule] {
    match head {
        Head::QuestionAnswering => SPANS,
        _ => CLASSIFIER,
    }
}
