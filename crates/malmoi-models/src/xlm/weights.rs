//! Published weight names of XLM: lists of attentions, norms and feed-forward layers instead of a list of blocks.

use crate::encoder::names::classifier;
use crate::head::Head;
use crate::names::{Rule, layer};

const RULES: &[Rule] = &[
    layer("embeddings.token", "embeddings"),
    layer("embeddings.position", "position_embeddings"),
    layer("embeddings.language", "lang_embeddings"),
    layer("embeddings.norm", "layer_norm_emb"),
    layer("layers.{}.attention.query", "attentions.{}.q_lin"),
    layer("layers.{}.attention.key", "attentions.{}.k_lin"),
    layer("layers.{}.attention.value", "attentions.{}.v_lin"),
    layer("layers.{}.attention.output", "attentions.{}.out_lin"),
    layer("layers.{}.attention_norm", "layer_norm1.{}"),
    layer("layers.{}.feed_forward.up", "ffns.{}.lin1"),
    layer("layers.{}.feed_forward.down", "ffns.{}.lin2"),
    layer("layers.{}.feed_forward_norm", "layer_norm2.{}"),
    layer("vocabulary", "pred_layer.proj"),
];

const SUMMARY: &[Rule] = &[layer("classifier", "sequence_summary.summary")];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    match head {
        Head::SequenceClassification => vec![RULES, SUMMARY],
        _ => vec![RULES, classifier(head)],
    }
}
