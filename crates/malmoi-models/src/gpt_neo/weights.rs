//! Published weight names of GPT-Neo: those of GPT-2, but for attention, and all dense layers stored as ours are.

use crate::gpt2::weights::AROUND;
use crate::names::{Rule, layer};

/// The table; a bare model carries no prefix.
pub const RULES: &[&[Rule]] = &[
    AROUND,
    &[
        layer("layers.{}.attention_norm", "h.{}.ln_1"),
        layer("layers.{}.attention.query", "h.{}.attn.attention.q_proj"),
        layer("layers.{}.attention.key", "h.{}.attn.attention.k_proj"),
        layer("layers.{}.attention.value", "h.{}.attn.attention.v_proj"),
        layer("layers.{}.attention.output", "h.{}.attn.attention.out_proj"),
        layer("layers.{}.feed_forward_norm", "h.{}.ln_2"),
        layer("layers.{}.feed_forward.up", "h.{}.mlp.c_fc"),
        layer("layers.{}.feed_forward.down", "h.{}.mlp.c_proj"),
    ],
];
