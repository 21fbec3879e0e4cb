//! Published weight names of XLM: lists of attentions, norms and feed-forward layers instead of a list of blocks.

use crate::encoder::names::classifier;
use crate::head::Head;
use crate::names::{Rule, whole};

const RULES: &[Rule] = &[
    whole("embeddings.token", "embeddings"),
    whole("embeddings.position", "position_embeddings"),
    whole("embeddings.language", "lang_embeddings"),
    whole("embeddings.norm", "layer_norm_emb"),
    whole("layers.{}.attention.query", "attentions.{}.q_lin"),
    whole("layers.{}.attention.key", "attentions.{}.k_lin"),
    whole("layers.{}.attention.value", "attentions.{}.v_lin"),
    whole("layers.{}.attention.output", "attentions.{}.out_lin"),
    whole("layers.{}.attention_norm", "layer_norm1.{}"),
    whole("layers.{}.feed_forward.up", "ffns.{}.lin1"),
    whole("layers.{}.feed_forward.down", "ffns.{}.lin2"),
    whole("layers.{}.feed_forward_norm", "layer_norm2.{}"),
    whole("vocabulary", "pred_layer.proj"),
];

const SUMMARY: &[Rule] = &[whole("classifier", "sequence_summary.summary")];

/// The table for a head.
pub fn rules(head: Head) -> Vec<&'static [Rule]> {
    match head {
        Head::SequenceClassification => vec![RULES, SUMMARY],
        _ => vec![RULES, classifier(head)],
    }
}
