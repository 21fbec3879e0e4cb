//! What a model computes, as numbers on the axes of the Transformer block: enough to count its arithmetic and its memory
//! without building it.

use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::{AttentionConfig, Block, FeedForwardKind, Mask, NormPlace, Stack};

use crate::config::{Direction, ModelConfig};
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
    /// The blocks, those of one kind together.
    pub layers: Vec<LayerShape>,
    /// Whether blocks norm what goes into them (and the stack what comes out) instead of what comes out of them.
    pub pre_norm: bool,
}

/// Blocks of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// How many of them run; blocks that share weights count each time.
    pub times: usize,
    /// Attention among the stack's own tokens.
    pub attention: AttentionShape,
    /// Attention to the last hidden states of the stack before.
    pub cross: Option<AttentionShape>,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Whether a second product gates the first.
    pub gated: bool,
}

impl LayerShape {
    fn is_like(&self, other: &Self) -> bool {
        let times = self.times;
        *self
            == Self {
                times,
                ..other.clone()
            }
    }
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
    /// The computation of a model with `head`, read off its network: an architecture that is composed of the common blocks needs
    /// no line here.
    pub fn shape(&self, head: Head) -> ModelShape {
        let model = Model::blank(self.clone(), head);
        let parameters = model.parameters();
        let has = |name: String| parameters.iter().any(|info| info.name == name);
        let of = |kind, prefix: &str, stack: Stack<'_>| {
            let mut layers: Vec<LayerShape> = Vec::new();
            for block in stack.iter() {
                let layer = layer_of(block);
                match layers.iter_mut().find(|known| known.is_like(&layer)) {
                    Some(known) => known.times += 1,
                    None => layers.push(layer),
                }
            }
            StackShape {
                kind,
                lookups: lookups(&parameters),
                embedding_norm: has(format!("{prefix}embeddings.norm.gamma")),
                d_model: self.d_model(),
                layers,
                pre_norm: stack
                    .iter()
                    .any(|block| block.norm_place() != NormPlace::Post),
            }
        };
        let own = match self.direction() {
            Direction::Encoder => StackKind::Encoder,
            Direction::Decoder | Direction::EncoderDecoder => StackKind::Decoder,
        };
        let mut stacks = Vec::new();
        if let Some(source) = model.net.source_stack() {
            stacks.push(of(StackKind::Encoder, "encoder.", source));
        }
        stacks.push(of(own, "", model.net.stack()));
        // The dense layer in front of the projection, whatever the head calls itself.
        let transform = parameters
            .iter()
            .find(|info| {
                let extra = ["generator.", "detector."];
                info.name.ends_with("dense.weight")
                    && !extra.iter().any(|other| info.name.starts_with(other))
            })
            .map(|info| info.shape[0]);
        let vocabulary = head.has_vocabulary().then(|| VocabularyShape {
            d: transform.unwrap_or(self.d_model()),
            vocab_size: self.vocab_size(),
            transform,
        });
        ModelShape { stacks, vocabulary }
    }
}

fn layer_of(block: &Block) -> LayerShape {
    let attention = |config: &AttentionConfig| AttentionShape {
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        d_head: config.d_head,
        mask: config.mask,
    };
    let feed_forward = block.feed_forward.config();
    LayerShape {
        times: 1,
        attention: attention(block.attention.config()),
        cross: (block.cross_attention.as_ref()).map(|cross| attention(cross.config())),
        d_ff: feed_forward.d_ff,
        gated: feed_forward.kind == FeedForwardKind::Gated,
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
    fn the_families_are_told_apart_by_their_networks() {
        let bert = shape("bert-base", Head::MaskedLm);
        let stack = &bert.stacks[0];
        assert_eq!((stack.kind, stack.lookups), (StackKind::Encoder, 3));
        assert!(stack.embedding_norm && !stack.pre_norm);
        assert_eq!((stack.layers.len(), stack.layers[0].times), (1, 12));
        assert_eq!(stack.layers[0].attention.mask, Mask::Full);
        let vocabulary = bert.vocabulary.expect("a language-model head");
        assert_eq!(
            (vocabulary.vocab_size, vocabulary.transform),
            (30_522, Some(768))
        );
        assert_eq!(shape("bert-base", Head::None).vocabulary, None);

        let gpt1 = shape("gpt1", Head::CausalLm);
        let stack = &gpt1.stacks[0];
        assert_eq!(
            (stack.lookups, stack.embedding_norm, stack.pre_norm),
            (2, false, false)
        );
    }

    #[test]
    fn blocks_that_share_weights_count_each_time() {
        // Twelve blocks run, one has weights; the projection is as narrow as the embeddings.
        let albert = shape("albert-base", Head::MaskedLm);
        let layers = &albert.stacks[0].layers;
        assert_eq!((layers.len(), layers[0].times), (1, 12));
        assert_eq!(albert.vocabulary.expect("a head").d, 128);
    }

    #[test]
    fn blocks_of_several_kinds_are_counted_apart() {
        // Every other block of GPT-3 sees a band, and heads are not as wide as the model divided by their number.
        let gpt3 = shape("gpt3-1.3b", Head::CausalLm);
        let stack = &gpt3.stacks[0];
        assert!(stack.pre_norm);
        let times: Vec<usize> = stack.layers.iter().map(|layer| layer.times).collect();
        assert_eq!(times, [12, 12]);
        assert_ne!(
            stack.layers[0].attention.mask,
            stack.layers[1].attention.mask
        );
        let attention = &stack.layers[0].attention;
        assert_eq!((attention.n_heads, attention.d_head), (24, 128));
        assert_eq!(gpt3.vocabulary.expect("a head").transform, None);
        // Fewer keys than queries, and gates.
        let llama = shape("llama3-8b", Head::CausalLm);
        let layer = &llama.stacks[0].layers[0];
        assert_eq!(
            (layer.attention.n_heads, layer.attention.n_kv_heads),
            (32, 8)
        );
        assert!(layer.gated && layer.times == 32);
        assert_eq!(llama.stacks[0].lookups, 1);
    }

    #[test]
    fn an_encoder_and_its_decoder_are_two_stacks() {
        let t5 = shape("t5-base", Head::Seq2SeqLm);
        let [encoder, decoder] = &t5.stacks[..] else {
            panic!("{t5:?}")
        };
        assert_eq!(
            (encoder.kind, decoder.kind),
            (StackKind::Encoder, StackKind::Decoder)
        );
        assert!(encoder.layers[0].cross.is_none() && encoder.pre_norm);
        let cross = decoder.layers[0].cross.expect("attention to the source");
        assert_eq!(
            (cross.mask, decoder.layers[0].attention.mask),
            (Mask::Full, Mask::Causal)
        );
        assert_eq!(decoder.layers[0].times, 12);
        assert_eq!(t5.vocabulary.expect("a head").vocab_size, 32_128);
    }
}
