//! Published weight names of GPT-1: the blocks of GPT-2, which kept its names, and its own embeddings and choice head.

use crate::gpt2::BLOCKS;
use crate::names::{NameTable, Rule, layer};

const RULES: &[Rule] = &[
    layer("token", "tokens_embed"),
    layer("position", "positions_embed"),
    layer("choice", "multiple_choice_head.summary"),
    layer("classifier", "score"),
];

/// The table; the original files carry no `transformer.` prefix, later ones do.
pub(super) fn table(prefix: &str) -> NameTable {
    NameTable::new(
        &[RULES, BLOCKS],
        prefix,
        &["multiple_choice_head.", "lm_head.", "score."],
    )
}

/// The tied copy of the embedding, and the buffers of old files.
pub(super) fn is_redundant(name: &str) -> bool {
    name == "lm_head.weight" || name.ends_with(".attn.bias") || name.ends_with("position_ids")
}
