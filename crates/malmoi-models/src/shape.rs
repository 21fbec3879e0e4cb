//! What a model computes, as numbers on the axes of the Transformer block: enough to count its arithmetic and its memory
//! without building it.

use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::{Mask, NormPlace};

use crate::config::ModelConfig;
use crate::head::Head;
use crate::model::Model;

/// The computation of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelShape {
    /// Stacks of blocks in the order in which they run: an encoder, a decoder, or an encoder and the decoder that looks at it.
    pub stacks: Vec<StackShape>,
    /// The projection to the vocabulary, where the head has one.
    pub vocabulary: Option<VocabularyShape>,
}

/// Embeddings and the blocks above them.
#[derive(Clone, Debug, PartialEq)]
pub struct StackShape {
    /// What the stack is.
    pub kind: StackKind,
    /// Vectors that are summed for a token: token, position, segment.
    pub lookups: usize,
    /// Whether the sum is normed.
    pub embedding_norm: bool,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks that run, whether or not they share weights.
    pub n_layers: usize,
    /// Blocks that have weights of their own.
    pub n_own_layers: usize,
    /// Attention among the stack's own tokens.
    pub attention: AttentionShape,
    /// Attention to the last hidden states of the stack before.
    pub cross: Option<AttentionShape>,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Whether a second product gates the first.
    pub gated: bool,
    /// Where the norms stand.
    pub norm_place: NormPlace,
    /// Whether a norm follows the last block.
    pub final_norm: bool,
}

/// What a stack is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackKind {
    /// Every token of a text sees all others.
    Encoder,
    /// A token sees those before it; generates.
    Decoder,
}

/// An attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Which keys a query sees.
    pub mask: Mask,
}

/// From hidden states to vocabulary logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VocabularyShape {
    /// Width of the projection's input.
    pub d: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the dense layer with activation and norm before the projection, where there is one; its input is `d_model` wide.
    pub transform: Option<usize>,
}

impl ModelConfig {
    /// The computation of a model with `head`, read off the parameters that its network has: an architecture that is composed
    /// of the common blocks needs no line here.
    pub fn shape(&self, head: Head) -> ModelShape {
        let parameters = Model::blank(self.clone(), head).parameters();
        let of = |name: &str| {
            let found = parameters.iter().find(|info| info.name == name);
            found.map(|info| info.shape.as_slice())
        };
        let mut prefixes: Vec<&str> = Vec::new();
        for info in &parameters {
            if let Some((prefix, _)) = info.name.split_once("layers.")
                && matches!(prefix, "" | "encoder." | "decoder.")
                && !prefixes.contains(&prefix)
            {
                prefixes.push(prefix);
            }
        }
        let stacks = prefixes.iter().map(|prefix| {
            let kind = match *prefix {
                "encoder." => StackKind::Encoder,
                "decoder." => StackKind::Decoder,
                _ if self.is_causal() => StackKind::Decoder,
                _ => StackKind::Encoder,
            };
            let n_own_layers = (0..)
                .take_while(|i| of(&format!("{prefix}layers.{i}.attention.query.weight")).is_some())
                .count();
            let attention = |name: &str, mask| {
                let rows = |part: &str| {
                    of(&format!("{prefix}layers.0.{name}.{part}.weight")).map(|shape| shape[0])
                };
                Some(AttentionShape {
                    n_heads: rows("query")? / self.d_head(),
                    n_kv_heads: rows("key")? / self.d_head(),
                    d_head: self.d_head(),
                    mask,
                })
            };
            let up = of(&format!("{prefix}layers.0.feed_forward.up.weight"));
            // A norm behind the last block is what pre-norm models need and post-norm models lack.
            let final_norm = of(&format!("{prefix}norm.gamma")).is_some();
            let own_mask = match kind {
                StackKind::Encoder => Mask::Full,
                StackKind::Decoder => Mask::Causal,
            };
            StackShape {
                kind,
                lookups: lookups(&parameters),
                embedding_norm: of("embeddings.norm.gamma").is_some(),
                d_model: up.map_or(self.d_model(), |shape| shape[1]),
                // Blocks that share weights run more often than they exist.
                n_layers: if prefix.is_empty() {
                    self.get().depth()
                } else {
                    n_own_layers
                },
                n_own_layers,
                attention: attention("attention", own_mask).unwrap_or(AttentionShape {
                    n_heads: self.n_heads(),
                    n_kv_heads: self.n_heads(),
                    d_head: self.d_head(),
                    mask: own_mask,
                }),
                cross: attention("cross_attention", Mask::Full),
                d_ff: up.map_or(self.d_ff(), |shape| shape[0]),
                gated: of(&format!("{prefix}layers.0.feed_forward.gate.weight")).is_some(),
                norm_place: if final_norm {
                    NormPlace::Pre
                } else {
                    NormPlace::Post
                },
                final_norm,
            }
        });
        let stacks = stacks.collect();
        let projects = matches!(
            head,
            Head::MaskedLm | Head::Pretraining | Head::CausalLm | Head::DoubleHeads
        );
        let transform = of("vocabulary.dense.weight").map(|shape| shape[0]);
        let vocabulary = projects.then(|| VocabularyShape {
            d: transform.unwrap_or(self.d_model()),
            vocab_size: self.vocab_size(),
            transform,
        });
        ModelShape { stacks, vocabulary }
    }
}

/// Tables whose rows are summed for a token.
fn lookups(parameters: &[ParameterInfo]) -> usize {
    const TABLES: [&str; 4] = ["token", "position", "segment", "language"];
    let is_table = |info: &&ParameterInfo| {
        let name = info.name.strip_prefix("embeddings.").unwrap_or(&info.name);
        name.strip_suffix(".weight")
            .is_some_and(|name| TABLES.contains(&name))
    };
    parameters.iter().filter(is_table).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(preset: &str, head: Head) -> ModelShape {
        ModelConfig::preset(preset).expect("a preset").shape(head)
    }

    #[test]
    fn the_families_are_told_apart_by_their_parameters() {
        let bert = shape("bert-base", Head::MaskedLm);
        let stack = &bert.stacks[0];
        assert_eq!((stack.kind, stack.lookups), (StackKind::Encoder, 3));
        assert!(stack.embedding_norm && !stack.final_norm);
        assert_eq!(stack.norm_place, NormPlace::Post);
        assert_eq!(stack.attention.mask, Mask::Full);
        let vocabulary = bert.vocabulary.expect("a language-model head");
        assert_eq!(
            (vocabulary.vocab_size, vocabulary.transform),
            (30_522, Some(768))
        );
        assert_eq!(shape("bert-base", Head::None).vocabulary, None);

        let gpt1 = shape("gpt1", Head::CausalLm);
        assert_eq!(gpt1.stacks[0].norm_place, NormPlace::Post);
        assert_eq!(
            (gpt1.stacks[0].lookups, gpt1.stacks[0].embedding_norm),
            (2, false)
        );

        // Twelve blocks run, one has weights; the projection is as narrow as the embeddings.
        let albert = shape("albert-base", Head::MaskedLm);
        let stack = &albert.stacks[0];
        assert_eq!((stack.n_layers, stack.n_own_layers), (12, 1));
        assert_eq!(albert.vocabulary.expect("a head").d, 128);

        // Heads that are not as wide as the model divided by their number.
        let gpt3 = shape("gpt3-1.3b", Head::CausalLm);
        let stack = &gpt3.stacks[0];
        assert_eq!(
            (stack.d_model, stack.d_ff, stack.n_layers),
            (2048, 8192, 24)
        );
        assert_eq!((stack.attention.n_heads, stack.attention.d_head), (24, 128));
        assert_eq!(stack.norm_place, NormPlace::Pre);
        assert_eq!(gpt3.vocabulary.expect("a head").transform, None);
    }
}
