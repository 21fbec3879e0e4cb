//! Weight names of the original Transformer, as the PyTorch module stores them: query, key and value are rows of one matrix.

use crate::names::{Part, Rule, layer, rule};

const Q: Part = Part::Rows { index: 0, of: 3 };
const K: Part = Part::Rows { index: 1, of: 3 };
const V: Part = Part::Rows { index: 2, of: 3 };

/// Rules of an attention layer and the norm that belongs to it.
macro_rules! attention {
    ($ours:literal, $theirs:literal, $norm:literal) => {
        &[
            rule(
                concat!($ours, ".query.weight"),
                concat!($theirs, ".in_proj_weight"),
                Q,
            ),
            rule(
                concat!($ours, ".query.bias"),
                concat!($theirs, ".in_proj_bias"),
                Q,
            ),
            rule(
                concat!($ours, ".key.weight"),
                concat!($theirs, ".in_proj_weight"),
                K,
            ),
            rule(
                concat!($ours, ".key.bias"),
                concat!($theirs, ".in_proj_bias"),
                K,
            ),
            rule(
                concat!($ours, ".value.weight"),
                concat!($theirs, ".in_proj_weight"),
                V,
            ),
            rule(
                concat!($ours, ".value.bias"),
                concat!($theirs, ".in_proj_bias"),
                V,
            ),
            layer(concat!($ours, ".output"), concat!($theirs, ".out_proj")),
            layer(concat!($ours, "_norm"), $norm),
        ]
    };
}

const ATTENTION: [&[Rule]; 3] = [
    attention!(
        "encoder.layers.{}.attention",
        "encoder.layers.{}.self_attn",
        "encoder.layers.{}.norm1"
    ),
    attention!(
        "decoder.layers.{}.attention",
        "decoder.layers.{}.self_attn",
        "decoder.layers.{}.norm1"
    ),
    attention!(
        "decoder.layers.{}.cross_attention",
        "decoder.layers.{}.multihead_attn",
        "decoder.layers.{}.norm2"
    ),
];

const RULES: &[Rule] = &[
    layer("token", "embedding"),
    layer("vocabulary", "generator"),
    layer(
        "encoder.layers.{}.feed_forward.up",
        "encoder.layers.{}.linear1",
    ),
    layer(
        "encoder.layers.{}.feed_forward.down",
        "encoder.layers.{}.linear2",
    ),
    layer(
        "encoder.layers.{}.feed_forward_norm",
        "encoder.layers.{}.norm2",
    ),
    layer("encoder.norm", "encoder.norm"),
    layer(
        "decoder.layers.{}.feed_forward.up",
        "decoder.layers.{}.linear1",
    ),
    layer(
        "decoder.layers.{}.feed_forward.down",
        "decoder.layers.{}.linear2",
    ),
    layer(
        "decoder.layers.{}.feed_forward_norm",
        "decoder.layers.{}.norm3",
    ),
    layer("decoder.norm", "decoder.norm"),
];

/// The table.
pub(super) fn rules() -> Vec<&'static [Rule]> {
    [&[RULES], &ATTENTION[..]].concat()
}
