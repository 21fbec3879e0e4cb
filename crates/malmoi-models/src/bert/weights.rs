//! Published weight names of BERT.

use crate::head::Head;
use crate::names::{NameTable, Part, Rule, layer, rule};

/// Embeddings, blocks and pooler.
const RULES: &[Rule] = &[
    layer("embeddings.token", "embeddings.word_embeddings"),
    layer("embeddings.position", "embeddings.position_embeddings"),
    layer("embeddings.segment", "embeddings.token_type_embeddings"),
    layer("embeddings.norm", "embeddings.LayerNorm"),
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
    layer("pooler", "pooler.dense"),
];

/// The heads of pretraining.
const PRETRAINING: &[Rule] = &[
    layer("vocabulary.dense", "cls.predictions.transform.dense"),
    layer("vocabulary.norm", "cls.predictions.transform.LayerNorm"),
    rule("vocabulary.bias", "cls.predictions.bias", Part::Whole),
    layer("next_sentence", "cls.seq_relationship"),
];

const CLASSIFIER: &[Rule] = &[layer("classifier", "classifier")];

const SPANS: &[Rule] = &[layer("classifier", "qa_outputs")];

/// The table for a model with `head`. A bare encoder carries no prefix unless the file at hand does.
pub(super) fn table(head: Head, prefix: &str) -> NameTable {
    let head_rules = if head == Head::QuestionAnswering {
        SPANS
    } else {
        CLASSIFIER
    };
    NameTable::new(
        &[RULES, PRETRAINING, head_rules],
        prefix,
        &["cls.", "classifier.", "qa_outputs."],
    )
}

/// Tensors that repeat a tied one or that no computation reads, as published files hold them.
pub(super) fn is_redundant(name: &str) -> bool {
    matches!(
        name,
        "cls.predictions.decoder.weight" | "cls.predictions.decoder.bias"
    ) || name.ends_with("embeddings.position_ids")
}
