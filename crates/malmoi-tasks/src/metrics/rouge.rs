//! ROUGE (Lin 2004) without stemming: overlap of n-grams and longest common subsequences of lower-cased ASCII words.

use std::collections::HashMap;

use super::PrecisionRecall;

/// Lower-cased runs of ASCII letters and digits.
fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn ngrams(words: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    if n > 0 {
        for ngram in words.windows(n) {
            *counts.entry(ngram).or_default() += 1;
        }
    }
    counts
}

/// ROUGE-N.
pub fn rouge_n(prediction: &str, reference: &str, n: usize) -> PrecisionRecall {
    let (prediction, reference) = (words(prediction), words(reference));
    let (p, r) = (ngrams(&prediction, n), ngrams(&reference, n));
    let same: usize = p
        .iter()
        .map(|(ngram, count)| (*count).min(r.get(ngram).copied().unwrap_or(0)))
        .sum();
    let total = |counts: &HashMap<&[String], usize>| counts.values().sum::<usize>() as f64;
    PrecisionRecall::from_counts(same as f64, total(&p), total(&r))
}

/// `table[i][j]`: length of the longest common subsequence of the first `i` of `a` and the first `j` of `b`.
fn lcs_table(a: &[String], b: &[String]) -> Vec<Vec<usize>> {
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            table[i][j] = if a[i - 1] == b[j - 1] {
                table[i - 1][j - 1] + 1
            } else {
                table[i - 1][j].max(table[i][j - 1])
            };
        }
    }
    table
}

/// ROUGE-L: the longest common subsequence.
pub fn rouge_l(prediction: &str, reference: &str) -> PrecisionRecall {
    let (prediction, reference) = (words(prediction), words(reference));
    let same = lcs_table(&reference, &prediction)[reference.len()][prediction.len()];
    PrecisionRecall::from_counts(same as f64, prediction.len() as f64, reference.len() as f64)
}

/// Marks the places in `a` of one longest common subsequence with `b`. Among equally long ones, the backward search goes up in `a`
/// unless going back in `b` is strictly better, as the reference implementation does.
fn mark_lcs(a: &[String], b: &[String], marks: &mut [bool]) {
    let table = lcs_table(a, b);
    let (mut i, mut j) = (a.len(), b.len());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            marks[i - 1] = true;
            i -= 1;
            j -= 1;
        } else if table[i][j - 1] > table[i - 1][j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
}

/// ROUGE-Lsum: sentences on lines; each reference sentence is matched with the union of its common subsequences with all predicted
/// sentences, and no word counts more often than it occurs on either side.
pub fn rouge_l_sum(prediction: &str, reference: &str) -> PrecisionRecall {
    let sentences = |text: &str| {
        text.lines()
            .map(words)
            .filter(|s| !s.is_empty())
            .collect::<Vec<_>>()
    };
    let (prediction, reference) = (sentences(prediction), sentences(reference));
    let count = |sentences: &[Vec<String>]| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for word in sentences.iter().flatten() {
            *counts.entry(word.clone()).or_default() += 1;
        }
        counts
    };
    let (mut left_prediction, mut left_reference) = (count(&prediction), count(&reference));
    let mut same = 0.0;
    for sentence in &reference {
        let mut marks = vec![false; sentence.len()];
        prediction
            .iter()
            .for_each(|other| mark_lcs(sentence, other, &mut marks));
        for (word, _) in sentence.iter().zip(&marks).filter(|(_, marked)| **marked) {
            if let (Some(p), Some(r)) =
                (left_prediction.get_mut(word), left_reference.get_mut(word))
                && *p > 0
                && *r > 0
            {
                *p -= 1;
                *r -= 1;
                same += 1.0;
            }
        }
    }
    let total = |sentences: &[Vec<String>]| sentences.iter().map(Vec::len).sum::<usize>() as f64;
    PrecisionRecall::from_counts(same, total(&prediction), total(&reference))
}
