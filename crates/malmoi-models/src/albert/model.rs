//! ALBERT, layer by layer: BERT with narrow embeddings behind a projection, and blocks shared across layers. Pretraining asks
//! whether two segments stand in their order. Where we differ from the published Python code: dropout follows the
//! feed-forward too, as in the authors' own release (all published models have a rate of zero there).

use malmoi_nn::Activation;

use crate::encoder::{Encoder, EncoderConfig, Pooling, VocabularyHead};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &EncoderConfig, head: Head) -> Encoder {
    let mut net = Encoder::new(config, head).with_projection(config);
    if matches!(
        head,
        Head::None | Head::Pretraining | Head::SequenceClassification | Head::MultipleChoice
    ) {
        net = net.with_pooler(config, Pooling::with(Activation::Tanh));
    }
    if matches!(head, Head::MaskedLm | Head::Pretraining) {
        net = net.with_vocabulary(VocabularyHead::transformed(config, config.activation));
    }
    if head == Head::Pretraining {
        net = net.with_pair_classes(config, config.classifier_dropout);
    }
    net
}
