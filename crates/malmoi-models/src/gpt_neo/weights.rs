//! Published weight names of GPT-Neo: those of GPT-2, but for attention, and all dense layers stored as ours are.

use crate::names::{NameTable, Rule, layer};

const RULES: &[Rule] = &[
    layer("token", "wte"),
    layer("position", "wpe"),
    layer("layers.{}.attention_norm", "h.{}.ln_1"),
    layer("layers.{}.attention.query", "h.{}.attn.attention.q_proj"),
    layer("layers.{}.attention.key", "h.{}.attn.attention.k_proj"),
    layer("layers.{}.attention.value", "h.{}.attn.attention.v_proj"),
    layer("layers.{}.attention.output", "h.{}.attn.attention.out_proj"),
    layer("layers.{}.feed_forward_norm", "h.{}.ln_2"),
    layer("layers.{}.feed_forward.up", "h.{}.mlp.c_fc"),
    layer("layers.{}.feed_forward.down", "h.{}.mlp.c_proj"),
    layer("norm", "ln_f"),
    layer("vocabulary", "lm_head"),
    layer("classifier", "score"),
];

/// The table; a bare model carries no prefix.
pub(super) fn table(prefix: &str) -> NameTable {
    NameTable::new(&[RULES], prefix, &["lm_head.", "score."])
}

/// The mask buffers of old files.
pub(super) fn is_redundant(name: &str) -> bool {
    name.ends_with(".attn.attention.bias") || name.ends_with(".attn.attention.masked_bias")
}
