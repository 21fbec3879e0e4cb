//! Published weight names of T5. A block's parts are numbered: self-attention 0, cross-attention 1 in the decoder, feed-forward
//! last. The position bias of a side is stored with its first block.

use malmoi_nn::FeedForwardKind;

use crate::names::{Rule, layer};

const RULES: &[Rule] = &[
    layer("token", "shared"),
    layer("vocabulary", "lm_head"),
    layer("sequence.dense", "classification_head.dense"),
    layer("sequence.output", "classification_head.out_proj"),
    layer("classifier", "classifier"),
    layer(
        "encoder.relative",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    ),
    layer("encoder.norm", "encoder.final_layer_norm"),
    layer(
        "encoder.layers.{}.attention_norm",
        "encoder.block.{}.layer.0.layer_norm",
    ),
    layer(
        "encoder.layers.{}.feed_forward_norm",
        "encoder.block.{}.layer.1.layer_norm",
    ),
    layer(
        "decoder.relative",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    ),
    layer("decoder.norm", "decoder.final_layer_norm"),
    layer(
        "decoder.layers.{}.attention_norm",
        "decoder.block.{}.layer.0.layer_norm",
    ),
    layer(
        "decoder.layers.{}.cross_attention_norm",
        "decoder.block.{}.layer.1.layer_norm",
    ),
    layer(
        "decoder.layers.{}.feed_forward_norm",
        "decoder.block.{}.layer.2.layer_norm",
    ),
];

/// Rules of the four projections of an attention layer.
macro_rules! attention {
    ($ours:literal, $theirs:literal) => {
        &[
            layer(concat!($ours, ".query"), concat!($theirs, ".q")),
            layer(concat!($ours, ".key"), concat!($theirs, ".k")),
            layer(concat!($ours, ".value"), concat!($theirs, ".v")),
            layer(concat!($ours, ".output"), concat!($theirs, ".o")),
        ]
    };
}

/// Rules of a feed-forward layer, plain and gated.
macro_rules! feed_forward {
    ($ours:literal, $theirs:literal) => {
        (
            &[
                layer(concat!($ours, ".up"), concat!($theirs, ".wi")),
                layer(concat!($ours, ".down"), concat!($theirs, ".wo")),
            ],
            &[
                layer(concat!($ours, ".gate"), concat!($theirs, ".wi_0")),
                layer(concat!($ours, ".up"), concat!($theirs, ".wi_1")),
                layer(concat!($ours, ".down"), concat!($theirs, ".wo")),
            ],
        )
    };
}

const ATTENTION: [&[Rule]; 3] = [
    attention!(
        "encoder.layers.{}.attention",
        "encoder.block.{}.layer.0.SelfAttention"
    ),
    attention!(
        "decoder.layers.{}.attention",
        "decoder.block.{}.layer.0.SelfAttention"
    ),
    attention!(
        "decoder.layers.{}.cross_attention",
        "decoder.block.{}.layer.1.EncDecAttention"
    ),
];

const FEED_FORWARD: [(&[Rule], &[Rule]); 2] = [
    feed_forward!(
        "encoder.layers.{}.feed_forward",
        "encoder.block.{}.layer.1.DenseReluDense"
    ),
    feed_forward!(
        "decoder.layers.{}.feed_forward",
        "decoder.block.{}.layer.2.DenseReluDense"
    ),
];

/// The table for plain or gated feed-forward layers. No name carries a prefix.
pub(super) fn rules(kind: FeedForwardKind) -> Vec<&'static [Rule]> {
    let feed_forward = FEED_FORWARD.map(|(plain, gated)| match kind {
        FeedForwardKind::Plain => plain,
        FeedForwardKind::Gated => gated,
    });
    [&[RULES], &ATTENTION[..], &feed_forward].concat()
}
