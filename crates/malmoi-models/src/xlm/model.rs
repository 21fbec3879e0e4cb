//! XLM, layer by layer: post-norm blocks on the norm of token + position + language; the projection to the vocabulary reads
//! hidden states as they are. A causal model sees only the left and, unlike GPT, its labels are the next tokens already.
//! Where we differ from the published code: batches are packed, so no mask multiplies the hidden states.

use malmoi_nn::Activation;

use crate::encoder::{Encoder, EncoderConfig, VocabularyHead};
use crate::head::Head;

/// The network for a head.
pub fn build(config: &EncoderConfig, head: Head) -> Encoder {
    let net = Encoder::new(config, head);
    match head {
        Head::MaskedLm | Head::CausalLm => {
            net.with_vocabulary(VocabularyHead::plain(config, Activation::Identity))
        }
        Head::TokenClassification => net.with_classifier_dropout(config.dropout),
        _ => net,
    }
}
