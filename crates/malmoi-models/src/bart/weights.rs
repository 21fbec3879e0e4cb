//! Published weight names of BART.

use crate::names::{Part, Rule, layer, rule};

/// A buffer that generation once wrote to; zeros in every published file.
pub(super) const LOGITS_BIAS: &str = "final_logits_bias";

/// Rules of an attention layer and the norm that belongs to it.
macro_rules! attention {
    ($ours:literal, $theirs:literal) => {
        &[
            layer(concat!($ours, ".query"), concat!($theirs, ".q_proj")),
            layer(concat!($ours, ".key"), concat!($theirs, ".k_proj")),
            layer(concat!($ours, ".value"), concat!($theirs, ".v_proj")),
            layer(concat!($ours, ".output"), concat!($theirs, ".out_proj")),
            layer(concat!($ours, "_norm"), concat!($theirs, "_layer_norm")),
        ]
    };
}

/// Rules of one side beside its attention.
macro_rules! side {
    ($side:literal) => {
        &[
            layer(
                concat!($side, ".position"),
                concat!($side, ".embed_positions"),
            ),
            layer(
                concat!($side, ".embedding_norm"),
                concat!($side, ".layernorm_embedding"),
            ),
            layer(
                concat!($side, ".layers.{}.feed_forward.up"),
                concat!($side, ".layers.{}.fc1"),
            ),
            layer(
                concat!($side, ".layers.{}.feed_forward.down"),
                concat!($side, ".layers.{}.fc2"),
            ),
            layer(
                concat!($side, ".layers.{}.feed_forward_norm"),
                concat!($side, ".layers.{}.final_layer_norm"),
            ),
        ]
    };
}

/// The table; a bare model carries no prefix.
pub(super) const RULES: [&[Rule]; 6] = [
    &[
        rule("token.weight", "shared.weight", Part::Whole),
        layer("sequence.dense", "classification_head.dense"),
        layer("sequence.output", "classification_head.out_proj"),
    ],
    side!("encoder"),
    side!("decoder"),
    attention!("encoder.layers.{}.attention", "encoder.layers.{}.self_attn"),
    attention!("decoder.layers.{}.attention", "decoder.layers.{}.self_attn"),
    attention!(
        "decoder.layers.{}.cross_attention",
        "decoder.layers.{}.encoder_attn"
    ),
];
