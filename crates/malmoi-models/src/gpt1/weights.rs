//! Published weight names of GPT-1. Its dense layers are stored `[d_in, d_out]`; `c_attn` packs query, key and value.

use crate::names::{NameTable, Part, Rule, rule};

const Q: Part = Part::Block { index: 0, of: 3 };
const K: Part = Part::Block { index: 1, of: 3 };
const V: Part = Part::Block { index: 2, of: 3 };

const RULES: &[Rule] = &[
    rule("token.weight", "tokens_embed.weight", Part::Whole),
    rule("position.weight", "positions_embed.weight", Part::Whole),
    rule(
        "layers.{}.attention.query.weight",
        "h.{}.attn.c_attn.weight",
        Q,
    ),
    rule("layers.{}.attention.query.bias", "h.{}.attn.c_attn.bias", Q),
    rule(
        "layers.{}.attention.key.weight",
        "h.{}.attn.c_attn.weight",
        K,
    ),
    rule("layers.{}.attention.key.bias", "h.{}.attn.c_attn.bias", K),
    rule(
        "layers.{}.attention.value.weight",
        "h.{}.attn.c_attn.weight",
        V,
    ),
    rule("layers.{}.attention.value.bias", "h.{}.attn.c_attn.bias", V),
    rule(
        "layers.{}.attention.output.weight",
        "h.{}.attn.c_proj.weight",
        Part::Transposed,
    ),
    rule(
        "layers.{}.attention.output.bias",
        "h.{}.attn.c_proj.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention_norm.gamma",
        "h.{}.ln_1.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.attention_norm.beta",
        "h.{}.ln_1.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward.up.weight",
        "h.{}.mlp.c_fc.weight",
        Part::Transposed,
    ),
    rule(
        "layers.{}.feed_forward.up.bias",
        "h.{}.mlp.c_fc.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward.down.weight",
        "h.{}.mlp.c_proj.weight",
        Part::Transposed,
    ),
    rule(
        "layers.{}.feed_forward.down.bias",
        "h.{}.mlp.c_proj.bias",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward_norm.gamma",
        "h.{}.ln_2.weight",
        Part::Whole,
    ),
    rule(
        "layers.{}.feed_forward_norm.beta",
        "h.{}.ln_2.bias",
        Part::Whole,
    ),
    rule(
        "choice.weight",
        "multiple_choice_head.summary.weight",
        Part::Whole,
    ),
    rule(
        "choice.bias",
        "multiple_choice_head.summary.bias",
        Part::Whole,
    ),
];

/// The table; the original files carry no `transformer.` prefix, later ones do.
pub fn table(prefixed: bool) -> NameTable {
    NameTable::new(
        &[RULES],
        if prefixed { "transformer." } else { "" },
        &["multiple_choice_head."],
    )
}

/// The tied copy of the embedding, and the buffers of old files.
pub fn is_redundant(name: &str) -> bool {
    name == "lm_head.weight" || name.ends_with(".attn.bias") || name.ends_with("position_ids")
}
