//! Published weight names of LLaMA.

use crate::names::{Rule, layer};

/// The table; a bare model carries no prefix.
pub const RULES: &[&[Rule]] = &[&[
    layer("token", "embed_tokens"),
    layer("layers.{}.attention_norm", "layers.{}.input_layernorm"),
    layer("layers.{}.attention.query", "layers.{}.self_attn.q_proj"),
    layer("layers.{}.attention.key", "layers.{}.self_attn.k_proj"),
    layer("layers.{}.attention.value", "layers.{}.self_attn.v_proj"),
    layer("layers.{}.attention.output", "layers.{}.self_attn.o_proj"),
    layer(
        "layers.{}.feed_forward_norm",
        "layers.{}.post_attention_layernorm",
    ),
    layer("layers.{}.feed_forward.gate", "layers.{}.mlp.gate_proj"),
    layer("layers.{}.feed_forward.up", "layers.{}.mlp.up_proj"),
    layer("layers.{}.feed_forward.down", "layers.{}.mlp.down_proj"),
    layer("norm", "norm"),
    layer("vocabulary", "lm_head"),
    layer("classifier", "score"),
]];
