//! Published weight names of GPT-1: the blocks of GPT-2, which kept its names, and its own embeddings and choice head.

use crate::gpt2::weights::BLOCKS;
use crate::names::{Rule, layer};

/// The table; the original files carry no `transformer.` prefix, later ones do.
pub const RULES: &[&[Rule]] = &[
    BLOCKS,
    &[
        layer("token", "tokens_embed"),
        layer("position", "positions_embed"),
        layer("choice", "multiple_choice_head.summary"),
        layer("classifier", "score"),
    ],
];
