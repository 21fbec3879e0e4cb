//! chrF (Popović 2015) and chrF++ (Popović 2017): F-score of character n-grams, and of words, on a scale of 100.

use std::collections::HashMap;
use std::hash::Hash;

const CHARACTER_ORDER: usize = 6;
/// Recall counts this much more than precision.
const BETA: f64 = 2.0;

/// Hypothesis, reference and matching n-grams of one order.
#[derive(Debug, Clone, Copy, Default)]
struct Matches {
    hypothesis: usize,
    reference: usize,
    same: usize,
}

fn matches<T: Eq + Hash>(hypothesis: &[T], reference: &[T], n: usize) -> Matches {
    let mut counts: HashMap<&[T], usize> = HashMap::new();
    for ngram in reference.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    let of_reference = counts.values().sum();
    let mut same = 0;
    let mut of_hypothesis = 0;
    for ngram in hypothesis.windows(n) {
        of_hypothesis += 1;
        if let Some(count) = counts.get_mut(ngram).filter(|count| **count > 0) {
            *count -= 1;
            same += 1;
        }
    }
    // A reference too short for this order says nothing about the hypothesis.
    Matches {
        hypothesis: if of_reference == 0 { 0 } else { of_hypothesis },
        reference: of_reference,
        same,
    }
}

/// Words with one leading or trailing punctuation mark split off.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let punctuation = |c: char| c.is_ascii_punctuation();
        let last = word
            .char_indices()
            .next_back()
            .filter(|(at, c)| *at > 0 && punctuation(*c));
        if let Some((at, _)) = last {
            words.extend([&word[..at], &word[at..]]);
        } else if word.len() > 1 && word.starts_with(punctuation) {
            words.extend([&word[..1], &word[1..]]);
        } else {
            words.push(word);
        }
    }
    words
}

fn statistics(hypothesis: &str, reference: &str, word_order: usize) -> Vec<Matches> {
    let letters = |text: &str| {
        text.chars()
            .filter(|c| !c.is_whitespace())
            .collect::<Vec<char>>()
    };
    let (h, r) = (letters(hypothesis), letters(reference));
    let (hw, rw) = (words(hypothesis), words(reference));
    let of_characters = (1..=CHARACTER_ORDER).map(|n| matches(&h, &r, n));
    of_characters
        .chain((1..=word_order).map(|n| matches(&hw, &rw, n)))
        .collect()
}

/// F-score of the precision and recall averaged over the orders that both sides are long enough for.
fn f_score(statistics: &[Matches]) -> f64 {
    let usable: Vec<&Matches> = statistics
        .iter()
        .filter(|m| m.hypothesis > 0 && m.reference > 0)
        .collect();
    let mean = |of: fn(&Matches) -> usize| {
        super::mean(usable.iter().map(|m| m.same as f64 / of(m) as f64))
    };
    let (precision, recall) = (mean(|m| m.hypothesis), mean(|m| m.reference));
    let factor = BETA * BETA;
    100.0
        * super::ratio(
            (1.0 + factor) * precision * recall,
            factor * precision + recall,
        )
}

/// chrF of a corpus (`word_order` 0) or chrF++ (2). `references[r][i]` is reference `r` of sentence `i`; of several references the best
/// counts for each sentence.
pub fn corpus_chrf<S: AsRef<str>>(
    hypotheses: &[S],
    references: &[Vec<S>],
    word_order: usize,
) -> f64 {
    let mut total = vec![Matches::default(); CHARACTER_ORDER + word_order];
    for (i, hypothesis) in hypotheses.iter().enumerate() {
        let mut best: Option<(f64, Vec<Matches>)> = None;
        for reference in references.iter().filter_map(|r| r.get(i)) {
            let statistics = statistics(hypothesis.as_ref(), reference.as_ref(), word_order);
            let score = f_score(&statistics);
            if best.as_ref().is_none_or(|(most, _)| score > *most) {
                best = Some((score, statistics));
            }
        }
        for (total, one) in total
            .iter_mut()
            .zip(best.into_iter().flat_map(|(_, statistics)| statistics))
        {
            total.hypothesis += one.hypothesis;
            total.reference += one.reference;
            total.same += one.same;
        }
    }
    f_score(&total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_is_split_off_words() {
        assert_eq!(
            words("\"Hi there, you!) . 좋다."),
            ["\"", "Hi", "there", ",", "you!", ")", ".", "좋다", "."]
        );
    }

    #[test]
    fn equal_texts_score_100_and_strangers_0() {
        assert!((corpus_chrf(&["abc def"], &[vec!["abc def"]], 2) - 100.0).abs() < 1e-9);
        assert_eq!(corpus_chrf(&["abc"], &[vec!["xyz"]], 0), 0.0);
        assert_eq!(corpus_chrf(&[""], &[vec![""]], 0), 0.0);
    }
}
