//! Pairs of texts, and how well vectors tell which belong together.

use std::collections::HashMap;
use std::path::Path;

use malmoi_infer::embed::{EmbedOptions, cosine, embed};
use malmoi_models::{Model, Pooling};
use malmoi_tasks::metrics::{correlation, ranking};
use malmoi_tasks::{TaskError, read_records};
use malmoi_text::{EncodeOptions, Tokenizer};

use super::config::Columns;
use crate::error::TrainError;
use crate::training::Evaluation;

/// The tokens of a row: two texts, perhaps a third that is wrong, and the score of the first two.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PairTexts {
    /// Tokens of each text.
    pub texts: Vec<Vec<u32>>,
    /// The score.
    pub score: Option<f64>,
    /// Whether a text was cut.
    pub truncated: bool,
}

/// Reads the pairs of a table. Texts are cut to `max_len` tokens.
///
/// # Errors
/// A file that cannot be read, absent columns, cells that cannot be used, no pair with one of the `positive` labels.
pub fn read_pairs(
    path: &Path,
    columns: &Columns,
    tokenizer: &Tokenizer,
    max_len: usize,
    encoding: &str,
) -> Result<Vec<PairTexts>, TaskError> {
    let texts: Vec<&str> = [&columns.text_column, &columns.pair_column]
        .into_iter()
        .chain(&columns.negative_column)
        .map(String::as_str)
        .collect();
    let all: Vec<&str> = texts
        .iter()
        .copied()
        .chain(columns.label_column.as_deref())
        .collect();
    let mut pairs = Vec::new();
    let mut known = Vec::new();
    for record in read_records(path, &all, encoding)? {
        let mut pair = PairTexts::default();
        if let Some(column) = &columns.label_column {
            if columns.positive.is_empty() {
                pair.score = Some(record.number(column)?);
            } else {
                let label = record.text(column)?;
                if !columns
                    .positive
                    .iter()
                    .any(|positive| *positive == label.trim())
                {
                    if !known.contains(&label) && known.len() < 10 {
                        known.push(label);
                    }
                    continue;
                }
            }
        }
        for column in &texts {
            let text = record.text(column)?;
            let found = tokenizer.encode(&text, None, &EncodeOptions::truncated(max_len))?;
            if found.ids.is_empty() {
                return Err(record.bad(column, "no text".into(), "a text"));
            }
            pair.truncated |= !found.overflowing.is_empty();
            pair.texts.push(found.ids);
        }
        pairs.push(pair);
    }
    if pairs.is_empty() {
        return Err(TaskError::UnknownLabel {
            place: path.display().to_string(),
            label: columns.positive.join(", "),
            known: known.join(", "),
        });
    }
    Ok(pairs)
}

/// Measures vectors on pairs. With scores: correlation of the cosines. Without: each first text looks for its second one among all
/// second texts (equal ones count once).
///
/// # Errors
/// Those of the model.
pub fn evaluate(
    model: &Model,
    pairs: &[PairTexts],
    pooling: Pooling,
) -> Result<Evaluation, TrainError> {
    let options = EmbedOptions {
        pooling,
        normalize: true,
        ..EmbedOptions::default()
    };
    let (mut distinct, mut place) = (Vec::new(), HashMap::new());
    let mut of = |ids: &Vec<u32>| {
        *place.entry(ids.clone()).or_insert_with(|| {
            distinct.push(ids.clone());
            distinct.len() - 1
        })
    };
    let numbers: Vec<(usize, usize)> = pairs
        .iter()
        .map(|pair| (of(&pair.texts[0]), of(&pair.texts[1])))
        .collect();
    let vectors = embed(model, &distinct, &options)?;
    let rows = pairs.len() as u64;
    let scores: Option<Vec<f64>> = pairs.iter().map(|pair| pair.score).collect();
    if let Some(scores) = scores {
        let cosines: Vec<f64> = (numbers.iter())
            .map(|&(a, b)| cosine(&vectors[a], &vectors[b]))
            .collect();
        let metrics = [
            ("spearman", correlation::spearman(&scores, &cosines)),
            ("pearson", correlation::pearson(&scores, &cosines)),
        ];
        // The best line through the scores: what a constant scale cannot explain.
        let loss = 1.0 - metrics[1].1;
        return Ok(Evaluation::new(loss, rows, &metrics));
    }
    let mut candidates: Vec<usize> = numbers.iter().map(|(_, second)| *second).collect();
    candidates.sort_unstable();
    candidates.dedup();
    // A first text may belong to several second ones.
    let mut right: HashMap<usize, Vec<usize>> = HashMap::new();
    for (first, second) in &numbers {
        right.entry(*first).or_default().push(*second);
    }
    let mut queries: Vec<usize> = right.keys().copied().collect();
    queries.sort_unstable();
    let ranked: Vec<Vec<bool>> = queries
        .iter()
        .map(|query| {
            let mut found: Vec<(f64, usize)> = (candidates.iter())
                .filter(|candidate| *candidate != query || right[query].contains(candidate))
                .map(|&candidate| (cosine(&vectors[*query], &vectors[candidate]), candidate))
                .collect();
            found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let relevant = |(_, candidate): (f64, usize)| right[query].contains(&candidate);
            found.into_iter().map(relevant).collect()
        })
        .collect();
    let mrr = ranking::mean_reciprocal_rank(&ranked);
    let metrics = [
        ("mrr", mrr),
        ("recall_at_1", ranking::hits_at(&ranked, 1)),
        ("recall_at_10", ranking::hits_at(&ranked, 10)),
        ("ndcg_at_10", ranking::ndcg_at(&ranked, 10)),
    ];
    Ok(Evaluation::new(1.0 - mrr, rows, &metrics))
}
