//! Encoder-decoders: the context is the source, which goes through the encoder once for all its targets.

use malmoi_models::{Model, PackedBatch};

use super::{Pair, ScoreOptions, Sum, group_cost, groups, members, target_scores};
use crate::InferError;
use crate::embed::by_budget;

/// The sums of all pairs, in order.
pub(super) fn score(
    model: &Model,
    pairs: &[Pair],
    options: &ScoreOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Sum>, InferError> {
    let start = (model.config().decoder_start()).ok_or(InferError::NoSpecialToken {
        work: "scoring the target of a source",
        token: "decoder start (decoder_start_token_id in config.json)",
    })?;
    let mut sums = vec![Sum::default(); pairs.len()];
    let groups = groups(pairs);
    let (budget, vocab_size) = (options.tokens_per_batch, model.config().vocab_size());
    let costs = (groups.iter()).map(|group| group_cost(&pairs[group.clone()], budget, vocab_size));
    let mut done = 0;
    for range in by_budget(costs, budget) {
        let batch = &groups[range];
        let sources: Vec<&[u32]> = batch
            .iter()
            .map(|group| pairs[group.start].context.as_slice())
            .collect();
        let mut cache = model.read_sources(&PackedBatch::from_sequences(&sources))?;
        let all = members(batch);
        cache.select(&all.iter().map(|(slot, _)| *slot).collect::<Vec<_>>());
        let (mut sequences, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for &(_, index) in &all {
            let target = &pairs[index].target;
            sequences.push([&[start], &target[..target.len() - 1]].concat());
            targets.extend_from_slice(target);
            owners.resize(targets.len(), index);
        }
        let packed = PackedBatch::from_sequences(&sequences);
        let rows: Vec<u32> = (0..packed.n_tokens() as u32).collect();
        let logits = model.advance(&packed, &mut cache, &rows)?;
        for (owner, score) in owners.into_iter().zip(target_scores(&logits, &targets)?) {
            sums[owner].add(score);
        }
        done += all.len();
        progress(done);
    }
    Ok(sums)
}
