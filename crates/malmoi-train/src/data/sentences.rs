//! Examples of sentences whose vectors are trained.

use malmoi_models::{Labels, Pooling, SentenceLoss, SentenceTargets};

use super::Example;
use crate::embedding::LossKind;

/// What is learned about the sentences of an example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SentenceRule {
    /// The loss.
    pub loss: LossKind,
    /// Factor on the cosines.
    pub scale: f64,
    /// How a sequence becomes a vector.
    pub pooling: Pooling,
    /// Sentences of an example.
    pub group: usize,
}

impl SentenceRule {
    /// The labels of a batch with these scores.
    pub(super) fn labels(&self, scores: &[f32]) -> Labels {
        let (scale, targets) = (self.scale, scores.into());
        Labels::Sentences(SentenceTargets {
            group: self.group,
            pooling: self.pooling,
            loss: match self.loss {
                LossKind::Contrastive => SentenceLoss::InBatchNegatives { scale },
                LossKind::Similarity => SentenceLoss::CosineRegression(targets),
                LossKind::Cosent => SentenceLoss::CosineOrder { targets, scale },
            },
        })
    }
}

/// The rule of some examples, which is the same for all, and their scores.
pub(super) fn of(examples: &[Example]) -> Option<(SentenceRule, Vec<f32>)> {
    let (rule, _) = examples.first()?.sentences?;
    let scores = examples.iter().filter_map(|e| Some(e.sentences?.1));
    Some((rule, scores.collect()))
}
