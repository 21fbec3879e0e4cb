//! Published weight names of BERT.

use crate::head::Head;
use crate::names::{NameTable, Part, Rule, rule};

const RULES: &[Rule] = &[
    rule(
        "embeddings.token.weight",
        "embeddings.word_embeddings.weight",
        Part::Whole,
    ),
    rule(
        "embeddings.position.weight",
        "embeddings.position_embeddings.weight",
        Part::Whole,
    ),
    rule(
        "embeddings.segment.weight",
        "embeddings.token_type_embeddings.weight",
        Part::Whole,
    ),
    rule(
        "embeddings.norm.gamma",
        "embeddings.LayerNorm.weight",
        Part::Whole,
    ),
    rule(
        "embeddings.norm.beta",
        "embeddings.LayerNorm.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention.query.weight",
        "encoder.layer.{}.attention.self.query.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention.query.bias",
        "encoder.layer.{}.attention.self.query.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention.key.weight",
        "encoder.layer.{}.attention.self.key.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention.key.bias",
        "encoder.layer.{}.attention.self.key.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention.value.weight",
        "encoder.layer.{}.attention.self.value.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention.value.bias",
        "encoder.layer.{}.attention.self.value.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention.output.weight",
        "encoder.layer.{}.attention.output.dense.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention.output.bias",
        "encoder.layer.{}.attention.output.dense.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention_norm.gamma",
        "encoder.layer.{}.attention.output.LayerNorm.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention_norm.beta",
        "encoder.layer.{}.attention.output.LayerNorm.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward.up.weight",
        "encoder.layer.{}.intermediate.dense.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward.up.bias",
        "encoder.layer.{}.intermediate.dense.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward.down.weight",
        "encoder.layer.{}.output.dense.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward.down.bias",
        "encoder.layer.{}.output.dense.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward_norm.gamma",
        "encoder.layer.{}.output.LayerNorm.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward_norm.beta",
        "encoder.layer.{}.output.LayerNorm.bias",
        Part::Whole,
    ),
    rule("pooler.weight", "pooler.dense.weight", Part::Whole),
    rule("pooler.bias", "pooler.dense.bias", Part::Whole),
    rule(
        "vocabulary.dense.weight",
        "cls.predictions.transform.dense.weight",
        Part::Whole,
    ),
    rule(
        "vocabulary.dense.bias",
        "cls.predictions.transform.dense.bias",
        Part::Whole,
    ),
    rule(
        "vocabulary.norm.gamma",
        "cls.predictions.transform.LayerNorm.weight",
        Part::Whole,
    ),
    rule(
        "vocabulary.norm.beta",
        "cls.predictions.transform.LayerNorm.bias",
        Part::Whole,
    ),
    rule("vocabulary.bias", "cls.predictions.bias", Part::Whole),
    rule(
        "next_sentence.weight",
        "cls.seq_relationship.weight",
        Part::Whole,
    ),
    rule(
        "next_sentence.bias",
        "cls.seq_relationship.bias",
        Part::Whole,
    ),
];

const CLASSIFIER: &[Rule] = &[
    rule("classifier.weight", "classifier.weight", Part::Whole),
    rule("classifier.bias", "classifier.bias", Part::Whole),
];

const SPANS: &[Rule] = &[
    rule("classifier.weight", "qa_outputs.weight", Part::Whole),
    rule("classifier.bias", "qa_outputs.bias", Part::Whole),
];

/// The table for a model with `head`. A bare encoder carries no prefix unless the file at hand does.
pub fn table(head: Head, prefixed: bool) -> NameTable {
    let prefix = if prefixed { "bert." } else { "" };
    let head_rules = if head == Head::QuestionAnswering {
        SPANS
    } else {
        CLASSIFIER
    };
    NameTable::new(
        &[RULES, head_rules],
        prefix,
        &["cls.", "classifier.", "qa_outputs."],
    )
}

/// Tensors that repeat a tied one or that no computation reads, as published files hold them.
pub fn is_redundant(name: &str) -> bool {
    matches!(
        name,
        "cls.predictions.decoder.weight" | "cls.predictions.decoder.bias"
    ) || name.ends_with("embeddings.position_ids")
}
