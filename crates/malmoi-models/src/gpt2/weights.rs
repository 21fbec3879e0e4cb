//! Published weight names of GPT-2. Its dense layers are stored `[d_in, d_out]`; `c_attn` packs query, key and value.

use crate::names::{NameTable, Part, Rule, rule};

const Q: Part = Part::Block { index: 0, of: 3 };
const K: Part = Part::Block { index: 1, of: 3 };
const V: Part = Part::Block { index: 2, of: 3 };

const RULES: &[Rule] = &[
    rule("token.weight", "wte.weight", Part::Whole),
    rule("position.weight", "wpe.weight", Part::Whole),
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
    rule("norm.gamma", "ln_f.weight", Part::Whole),
    rule("norm.beta", "ln_f.bias", Part::Whole),
    rule("classifier.weight", "score.weight", Part::Whole),
];

/// The table; the original files carry no `transformer.` prefix, later ones do.
pub fn table(prefixed: bool) -> NameTable {
    NameTable::new(
        &[RULES],
        if prefixed { "transformer." } else { "" },
        &["score."],
    )
}

/// The tied copy of the embedding, and the mask buffers of old files.
pub fn is_redundant(name: &str) -> bool {
    name == "lm_head.weight" || name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
}
