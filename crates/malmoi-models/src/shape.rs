//! What a model computes, as numbers on the axes of the Transformer block: enough to count its arithmetic and its memory
//! without building it.

use malmoi_nn::{Mask, NormPlace};

use crate::config::ModelConfig;
use crate::head::Head;

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
    /// Whether training drops values (embeddings, branches or probabilities).
    pub dropout: bool,
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
    /// The computation of a model with `head`.
    pub fn shape(&self, head: Head) -> ModelShape {
        let d = self.d_model();
        let stack = StackShape {
            kind: if self.is_causal() {
                StackKind::Decoder
            } else {
                StackKind::Encoder
            },
            lookups: 2,
            embedding_norm: false,
            d_model: d,
            n_layers: self.n_layers(),
            n_own_layers: self.n_layers(),
            attention: AttentionShape {
                n_heads: self.n_heads(),
                n_kv_heads: self.n_heads(),
                d_head: self.d_head(),
                mask: if self.is_causal() {
                    Mask::Causal
                } else {
                    Mask::Full
                },
            },
            cross: None,
            d_ff: self.d_ff(),
            gated: false,
            norm_place: NormPlace::Post,
            final_norm: false,
            dropout: true,
        };
        let vocabulary = matches!(
            head,
            Head::MaskedLm | Head::Pretraining | Head::CausalLm | Head::DoubleHeads
        )
        .then(|| VocabularyShape {
            d,
            vocab_size: self.vocab_size(),
            transform: None,
        });
        match self {
            Self::Bert(config) => ModelShape {
                stacks: vec![StackShape {
                    lookups: 3,
                    embedding_norm: true,
                    dropout: config.dropout > 0.0 || config.attention_dropout > 0.0,
                    ..stack
                }],
                vocabulary: vocabulary.map(|vocabulary| VocabularyShape {
                    transform: Some(d),
                    ..vocabulary
                }),
            },
            Self::Gpt1(config) => ModelShape {
                stacks: vec![StackShape {
                    dropout: config.residual_dropout > 0.0 || config.attention_dropout > 0.0,
                    ..stack
                }],
                vocabulary,
            },
            Self::Gpt2(config) => ModelShape {
                stacks: vec![StackShape {
                    norm_place: NormPlace::Pre,
                    final_norm: true,
                    dropout: config.residual_dropout > 0.0 || config.attention_dropout > 0.0,
                    ..stack
                }],
                vocabulary,
            },
        }
    }
}
