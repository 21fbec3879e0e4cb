//! BERT, layer by layer.
//!
//! Embeddings are the norm of token + position + segment; the encoder is a stack of post-norm blocks that see both
//! sides; the pooler is a tanh layer on the first token. Where we differ from the published code: batches are packed,
//! and vocabulary logits are computed only for the rows that need them.

use malmoi_nn::Activation;

use crate::encoder::{Encoder, EncoderConfig, Pooling, VocabularyHead};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &EncoderConfig, head: Head) -> Encoder {
    let mut net = Encoder::new(config, head);
    if matches!(
        head,
        Head::None
            | Head::Pretraining
            | Head::NextSentence
            | Head::SequenceClassification
            | Head::MultipleChoice
    ) {
        net = net.with_pooler(config, Pooling::with(Activation::Tanh));
    }
    if matches!(head, Head::MaskedLm | Head::Pretraining) {
        net = net.with_vocabulary(VocabularyHead::transformed(config, config.activation));
    }
    if matches!(head, Head::NextSentence | Head::Pretraining) {
        net = net.with_pair_classes(config, 0.0);
    }
    net
}
