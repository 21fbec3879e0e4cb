//! Counting pre-tokenised words inside a bound on memory.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizer as _};

use crate::Progress;
use crate::error::{Result, TextError};

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CountReport {
    /// Lines (sentences) read.
    pub lines: u64,
    /// Words read, repetitions included.
    pub words: u64,
    /// Distinct words that were kept.
    pub distinct: u64,
    /// Words (repetitions included) that were dropped to stay inside the memory bound; 0 when the counts are exact.
    pub dropped: u64,
    /// Words seen at most this often may have been dropped; 0 when the counts are exact.
    pub dropped_up_to: u64,
}

/// Distinct words with their counts, in byte order.
pub(super) struct WordCounts {
    pub words: Vec<(String, u64)>,
    pub report: CountReport,
}

/// Lines that are cut into words at once. The bound is checked after each batch, so where it strikes does not depend on the
/// number of threads.
const BATCH: usize = 8_192;
/// A batch also ends after this many bytes, for files with long lines.
const BATCH_BYTES: usize = 4 << 20;
/// Memory of one entry besides its characters: the string header, its count, the slot of the hash map at its usual load,
/// the allocator's header and rounding.
const ENTRY: usize = 72;

impl WordCounts {
    /// Counts the words of all lines; keeps the memory of the counts below `memory` bytes by dropping the rarest words.
    pub(super) fn count(
        mut lines: impl Iterator<Item = Result<String>>,
        tokenizer: &tokenizers::Tokenizer,
        memory: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let mut counts: HashMap<String, u64> = HashMap::new();
        let mut bytes = 0;
        let mut report = CountReport::default();
        let mut at_end = false;
        while !at_end {
            let mut batch = Vec::with_capacity(BATCH);
            let mut size = 0;
            while batch.len() < BATCH && size < BATCH_BYTES {
                match lines.next() {
                    Some(line) => {
                        let line = line?;
                        size += line.len();
                        batch.push(line);
                    }
                    None => {
                        at_end = true;
                        break;
                    }
                }
            }
            report.lines += batch.len() as u64;
            let partial = batch
                .par_iter()
                .try_fold(HashMap::new, |mut map: HashMap<String, u64>, line| {
                    split_words(tokenizer, line, |word| match map.get_mut(word) {
                        Some(count) => *count += 1,
                        None => {
                            map.insert(word.to_owned(), 1);
                        }
                    })?;
                    Ok::<_, TextError>(map)
                })
                .try_reduce(HashMap::new, |mut a, mut b| {
                    if a.len() < b.len() {
                        std::mem::swap(&mut a, &mut b);
                    }
                    for (word, count) in b {
                        *a.entry(word).or_default() += count;
                    }
                    Ok(a)
                })?;
            for (word, count) in partial {
                report.words += count;
                let length = word.len();
                let entry = counts.entry(word).or_default();
                if *entry == 0 {
                    bytes += length + ENTRY;
                }
                *entry += count;
            }
            if bytes > memory {
                prune(&mut counts, &mut bytes, memory / 2, &mut report);
            }
            progress(Progress {
                stage: "count words",
                done: report.lines,
                total: None,
            });
        }
        let mut words: Vec<(String, u64)> = counts.into_iter().collect();
        words.par_sort_unstable();
        report.distinct = words.len() as u64;
        Ok(Self { words, report })
    }
}

/// Drops the rarest words, whole count classes at a time, until the counts take at most `target` bytes.
fn prune(
    counts: &mut HashMap<String, u64>,
    bytes: &mut usize,
    target: usize,
    report: &mut CountReport,
) {
    let mut classes: HashMap<u64, usize> = HashMap::new();
    for (word, count) in counts.iter() {
        *classes.entry(*count).or_default() += word.len() + ENTRY;
    }
    let mut classes: Vec<(u64, usize)> = classes.into_iter().collect();
    classes.sort_unstable();
    let mut threshold = 0;
    let mut left = *bytes;
    for (count, size) in classes {
        if left <= target {
            break;
        }
        threshold = count;
        left -= size;
    }
    let mut dropped = 0;
    counts.retain(|_, count| {
        let keep = *count > threshold;
        if !keep {
            dropped += *count;
        }
        keep
    });
    counts.shrink_to_fit();
    *bytes = left;
    report.dropped += dropped;
    report.dropped_up_to = report.dropped_up_to.max(threshold);
}

/// Cuts a line into words as the tokenizer does; special tokens that stand in the text are left out.
pub(super) fn split_words(
    tokenizer: &tokenizers::Tokenizer,
    line: &str,
    mut word: impl FnMut(&str),
) -> Result<()> {
    let mut text = tokenizer
        .get_added_vocabulary()
        .extract_and_normalize(tokenizer.get_normalizer(), line);
    if let Some(splitter) = tokenizer.get_pre_tokenizer() {
        splitter
            .pre_tokenize(&mut text)
            .map_err(|e| TextError::Encode(e.to_string()))?;
    }
    for (piece, _, tokens) in text.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
        if tokens.is_none() && !piece.is_empty() {
            word(piece);
        }
    }
    Ok(())
}
