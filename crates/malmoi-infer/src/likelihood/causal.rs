//! Decoders: one pass over context and text; a context that several texts share is read once and its keys and values are kept.

use malmoi_models::{Model, PackedBatch};

use super::{Pair, ScoreOptions, Sum, cost, group_cost, groups, members, target_scores};
use crate::InferError;
use crate::embed::by_budget;

/// The sums of all pairs, in order.
pub(super) fn score(
    model: &Model,
    pairs: &[Pair],
    options: &ScoreOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Sum>, InferError> {
    let mut sums = vec![Sum::default(); pairs.len()];
    let mut done = 0;
    let (shared, single): (Vec<_>, Vec<_>) =
        groups(pairs).into_iter().partition(|group| group.len() > 1);
    let (budget, vocab_size) = (options.tokens_per_batch, model.config().vocab_size());
    let whole = single.iter().map(|group| {
        let pair = &pairs[group.start];
        let rows = pair.target.len();
        cost(pair.context.len() + rows - 1, rows, budget, vocab_size)
    });
    for range in by_budget(whole, budget) {
        let batch: Vec<usize> = single[range].iter().map(|group| group.start).collect();
        in_one_pass(model, pairs, &batch, &mut sums)?;
        done += batch.len();
        progress(done);
    }
    let parts = (shared.iter()).map(|group| group_cost(&pairs[group.clone()], budget, vocab_size));
    for range in by_budget(parts, budget) {
        let batch = &shared[range];
        with_cache(model, pairs, batch, &mut sums)?;
        done += batch.iter().map(|group| group.len()).sum::<usize>();
        progress(done);
    }
    Ok(sums)
}

/// Context and text go through the model as one sequence.
fn in_one_pass(
    model: &Model,
    pairs: &[Pair],
    indices: &[usize],
    sums: &mut [Sum],
) -> Result<(), InferError> {
    let mut sequences = Vec::with_capacity(indices.len());
    let (mut rows, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    let mut base = 0;
    for &index in indices {
        let pair = &pairs[index];
        let read = pair.target.len() - 1;
        sequences.push([&pair.context[..], &pair.target[..read]].concat());
        // The token before each scored one predicts it.
        let first = base + pair.context.len() - 1;
        rows.extend((first..=first + read).map(|row| row as u32));
        targets.extend_from_slice(&pair.target);
        owners.resize(targets.len(), index);
        base += pair.context.len() + read;
    }
    let logits = model.logits(&PackedBatch::from_sequences(&sequences), &rows)?;
    for (owner, score) in owners.into_iter().zip(target_scores(&logits, &targets)?) {
        sums[owner].add(score);
    }
    Ok(())
}

/// Contexts go through the model first, then the texts behind them.
fn with_cache(
    model: &Model,
    pairs: &[Pair],
    groups: &[std::ops::Range<usize>],
    sums: &mut [Sum],
) -> Result<(), InferError> {
    let contexts: Vec<&[u32]> = groups
        .iter()
        .map(|group| pairs[group.start].context.as_slice())
        .collect();
    let batch = PackedBatch::from_sequences(&contexts);
    let last: Vec<u32> = batch.sequences().map(|rows| rows.end as u32 - 1).collect();
    let mut cache = model.new_cache(groups.len());
    let logits = model.advance(&batch, &mut cache, &last)?;
    let vocab_size = logits.len() / groups.len();
    for (group, row) in groups.iter().zip(logits.chunks_exact(vocab_size)) {
        for index in group.clone() {
            let first = &pairs[index].target[..1];
            sums[index].add(target_scores(row, first)?[0]);
        }
    }
    // What follows the first token of each text is predicted from the tokens before it.
    let mut longer = members(groups);
    longer.retain(|(_, index)| pairs[*index].target.len() > 1);
    if longer.is_empty() {
        return Ok(());
    }
    cache.select(&longer.iter().map(|(slot, _)| *slot).collect::<Vec<_>>());
    let mut sequences = Vec::with_capacity(longer.len());
    let (mut positions, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    for &(_, index) in &longer {
        let pair = &pairs[index];
        let read = &pair.target[..pair.target.len() - 1];
        let start = pair.context.len() as u32;
        positions.extend(start..start + read.len() as u32);
        targets.extend_from_slice(&pair.target[1..]);
        owners.resize(targets.len(), index);
        sequences.push(read);
    }
    let batch = PackedBatch::from_sequences(&sequences).with_positions(positions);
    let rows: Vec<u32> = (0..batch.n_tokens() as u32).collect();
    let logits = model.advance(&batch, &mut cache, &rows)?;
    for (owner, score) in owners.into_iter().zip(target_scores(&logits, &targets)?) {
        sums[owner].add(score);
    }
    Ok(())
}
