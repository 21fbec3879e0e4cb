//! ELECTRA, layer by layer: BERT whose embeddings may be narrower than its hidden states, without a pooler. The generator
//! fills blanks; the discriminator says of every token whether it was replaced.

use malmoi_nn::Activation;

use super::pair::Generator;
use crate::encoder::{Encoder, EncoderConfig, Pooling, VocabularyHead};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &EncoderConfig, head: Head) -> Encoder {
    let mut net = Encoder::new(config, head);
    if config.d_embedding != config.common.sizes.d_model {
        net = net.with_projection(config);
    }
    match head {
        Head::ReplacedTokens => {
            let generator = config.generator.as_deref().map(Generator::new);
            net.with_detector(config).with_generator(generator)
        }
        // Heads have the exact GELU whatever `hidden_act` says; only the discriminator's follows it.
        Head::MaskedLm => {
            net.with_vocabulary(VocabularyHead::transformed(config, Activation::Gelu))
        }
        Head::SequenceClassification => net.with_pooler(
            config,
            Pooling {
                dropout: config.classifier_dropout,
                activation: Activation::Gelu,
            },
        ),
        Head::MultipleChoice => net.with_pooler(config, Pooling::with(Activation::Gelu)),
        _ => net,
    }
}
