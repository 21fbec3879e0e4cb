//! DistilBERT, layer by layer: BERT of half the depth without segments and without a pooler. Sequences are classified from
//! the first token through a ReLU layer.

use malmoi_nn::Activation;

use crate::encoder::{Encoder, EncoderConfig, Pooling, VocabularyHead};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &EncoderConfig, head: Head) -> Encoder {
    let net = Encoder::new(config, head);
    match head {
        Head::MaskedLm => {
            net.with_vocabulary(VocabularyHead::transformed(config, config.activation))
        }
        Head::SequenceClassification | Head::MultipleChoice => {
            net.with_pooler(config, Pooling::with(Activation::Relu))
        }
        Head::TokenClassification => net.with_classifier_dropout(config.dropout),
        _ => net,
    }
}
