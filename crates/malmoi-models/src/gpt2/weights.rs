//! Published weight names of GPT-2. Its dense layers are stored `[d_in, d_out]`; `c_attn` packs query, key and value.

use crate::names::{Part, Rule, layer, layer_in};

const Q: Part = Part::Block { index: 0, of: 3 };
const K: Part = Part::Block { index: 1, of: 3 };
const V: Part = Part::Block { index: 2, of: 3 };
const T: Part = Part::Transposed;

/// The blocks of GPT-1 and GPT-2.
pub const BLOCKS: &[Rule] = &[
    layer("layers.{}.attention_norm", "h.{}.ln_1"),
    layer_in("layers.{}.attention.query", "h.{}.attn.c_attn", Q),
    layer_in("layers.{}.attention.key", "h.{}.attn.c_attn", K),
    layer_in("layers.{}.attention.value", "h.{}.attn.c_attn", V),
    layer_in("layers.{}.attention.output", "h.{}.attn.c_proj", T),
    layer("layers.{}.feed_forward_norm", "h.{}.ln_2"),
    layer_in("layers.{}.feed_forward.up", "h.{}.mlp.c_fc", T),
    layer_in("layers.{}.feed_forward.down", "h.{}.mlp.c_proj", T),
];

/// What GPT-2 and GPT-Neo have around their blocks.
pub const AROUND: &[Rule] = &[
    layer("token", "wte"),
    layer("position", "wpe"),
    layer("norm", "ln_f"),
    layer("vocabulary", "lm_head"),
    layer("classifier", "score"),
];

/// The table; the original files carry no `transformer.` prefix, later ones do.
pub const RULES: &[&[Rule]] = &[BLOCKS, AROUND];
