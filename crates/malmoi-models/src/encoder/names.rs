//! Names that several families publish alike.

use crate::head::Head;
use crate::names::{Rule, whole};

/// Embeddings of BERT, RoBERTa, ALBERT and ELECTRA.
pub(crate) const EMBEDDINGS: &[Rule] = &[
    whole("embeddings.token", "embeddings.word_embeddings"),
    whole("embeddings.position", "embeddings.position_embeddings"),
    whole("embeddings.segment", "embeddings.token_type_embeddings"),
    whole("embeddings.norm", "embeddings.LayerNorm"),
];

/// Blocks of BERT, RoBERTa and ELECTRA.
pub(crate) const LAYERS: &[Rule] = &[
    whole(
        "layers.{}.attention.query",
        "encoder.layer.{}.attention.self.query",
    ),
    whole(
        "layers.{}.attention.key",
        "encoder.layer.{}.attention.self.key",
    ),
    whole(
        "layers.{}.attention.value",
        "encoder.layer.{}.attention.self.value",
    ),
    whole(
        "layers.{}.attention.output",
        "encoder.layer.{}.attention.output.dense",
    ),
    whole(
        "layers.{}.attention_norm",
        "encoder.layer.{}.attention.output.LayerNorm",
    ),
    whole(
        "layers.{}.feed_forward.up",
        "encoder.layer.{}.intermediate.dense",
    ),
    whole(
        "layers.{}.feed_forward.down",
        "encoder.layer.{}.output.dense",
    ),
    whole(
        "layers.{}.feed_forward_norm",
        "encoder.layer.{}.output.LayerNorm",
    ),
];

/// The base model's pooler.
pub(crate) const POOLER: &[Rule] = &[whole("pooler", "pooler.dense")];

/// A classifier that is one dense layer.
pub(crate) const CLASSIFIER: &[Rule] = &[whole("classifier", "classifier")];

/// Start and end of an answer.
pub(crate) const SPANS: &[Rule] = &[whole("classifier", "qa_outputs")];

/// A classifier behind a dense layer of its own, both under `classifier.`.
pub(crate) const DENSE_CLASSIFIER: &[Rule] = &[
    whole("pooler", "classifier.dense"),
    whole("classifier", "classifier.out_proj"),
];

/// The name of a one-layer classifier by its head.
pub(crate) fn classifier(head: Head) -> &'static [Rule] {
    match head {
        Head::QuestionAnswering => SPANS,
        _ => CLASSIFIER,
    }
}
