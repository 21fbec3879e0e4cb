//! Measuring a model on the validation text.

use std::collections::BTreeMap;

use malmoi_models::Model;

use crate::data::{Counts, Examples, MicroBatch};
use crate::error::TrainError;
use crate::training::Evaluation;

/// Measures on `batches` batches spread evenly over the examples, or on all examples.
///
/// Beside the loss (tokens plus pairs, what training minimises) there are `perplexity` (of the tokens), `accuracy` of the predicted tokens, `baseline_accuracy` (what always predicting the most frequent one would score) and, where there are pairs of
/// segments, `token_loss` and `pair_accuracy`. Replaced-token detection has `detection_loss` and `detection_accuracy`; there `accuracy`
/// is the generator's.
///
/// # Errors
/// Those of the model and of the examples, and [`TrainError::Corpus`] when there is nothing to predict.
pub fn evaluate(
    model: &Model,
    examples: &dyn Examples,
    batch_size: usize,
    batches: Option<usize>,
) -> Result<Evaluation, TrainError> {
    let all = examples.evaluation_count();
    let count = batches.map_or(all, |batches| all.min((batches * batch_size) as u64));
    let mut frequency: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut token_loss, mut correct, mut targets) = (0.0, 0.0, 0_u64);
    let (mut pair_loss, mut pairs_right, mut pairs) = (0.0, 0.0, 0_u64);
    let (mut found_loss, mut found_right, mut tokens, mut factor) = (0.0, 0.0, 0_u64, 0.0);
    for first in (0..count).step_by(batch_size) {
        let list = (first..count.min(first + batch_size as u64))
            // Example k of `count`, spread over all of them.
            .map(|k| {
                examples.evaluation((u128::from(k) * u128::from(all) / u128::from(count)) as u64)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let micro = MicroBatch::pack(&list);
        if micro.targets.is_empty() {
            continue;
        }
        for &target in &micro.targets {
            *frequency.entry(target).or_default() += 1;
        }
        let counts = Counts::of(std::slice::from_ref(&micro));
        let report = model.loss(&micro.batch, &micro.labels(counts))?;
        // Weights are 1/count, so each term is a mean; the first is that of the predicted tokens.
        for (index, part) in report.parts.iter().enumerate() {
            let right = part.correct.unwrap_or(0.0);
            if index == 0 {
                token_loss += part.loss * counts.targets as f64;
                correct += right * counts.targets as f64;
            } else if let Some(detection) = micro.detection {
                factor = f64::from(detection.factor);
                found_loss += part.loss * counts.tokens as f64;
                found_right += right * counts.tokens as f64;
                tokens += counts.tokens as u64;
            } else {
                pair_loss += part.loss * counts.pairs as f64;
                pairs_right += right * counts.pairs as f64;
            }
        }
        targets += counts.targets as u64;
        pairs += counts.pairs as u64;
    }
    if targets == 0 {
        return Err(TrainError::Corpus {
            corpus: "the validation text".into(),
            problem: "no token to predict; add text".into(),
        });
    }
    let token_loss = token_loss / targets as f64;
    let most_frequent = frequency.values().max().copied().unwrap_or(0);
    let mean = |sum: f64, count: u64| match count {
        0 => 0.0,
        count => sum / count as f64,
    };
    let loss = token_loss + mean(pair_loss, pairs) + factor * mean(found_loss, tokens);
    let mut metrics = vec![
        ("perplexity", token_loss.exp()),
        ("accuracy", correct / targets as f64),
        ("baseline_accuracy", most_frequent as f64 / targets as f64),
    ];
    if pairs + tokens > 0 {
        metrics.push(("token_loss", token_loss));
    }
    if tokens > 0 {
        metrics.push(("detection_loss", mean(found_loss, tokens)));
        metrics.push(("detection_accuracy", mean(found_right, tokens)));
    }
    if pairs > 0 {
        metrics.push(("pair_accuracy", mean(pairs_right, pairs)));
    }
    Ok(Evaluation::new(loss, targets, &metrics))
}
