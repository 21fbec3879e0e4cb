//! RoBERTa, layer by layer: BERT whose positions start behind the padding token's row, and whose sequence classifier has a
//! tanh layer of its own, with dropout on both sides, instead of the base model's pooler.

use malmoi_nn::Activation;

use crate::encoder::{Encoder, EncoderConfig, Pooling, VocabularyHead};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &EncoderConfig, head: Head) -> Encoder {
    let net = Encoder::new(config, head);
    match head {
        Head::None | Head::MultipleChoice => {
            net.with_pooler(config, Pooling::with(Activation::Tanh))
        }
        Head::SequenceClassification => net.with_pooler(
            config,
            Pooling {
                dropout: config.classifier_dropout,
                activation: Activation::Tanh,
            },
        ),
        // The published head has the exact GELU whatever `hidden_act` says.
        Head::MaskedLm => {
            net.with_vocabulary(VocabularyHead::transformed(config, Activation::Gelu))
        }
        _ => net,
    }
}
