//! Question answering: exact match and F1 after normalisation, in the ways of SQuAD (Rajpurkar et al. 2016) and KorQuAD (Lim et
//! al. 2019).

use std::collections::HashMap;
use std::hash::Hash;

use super::{PrecisionRecall, mean};

/// Exact match and F1 of one prediction, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerScore {
    /// 1 when the normalised texts are equal.
    pub exact_match: f64,
    /// Overlap of words (SQuAD) or characters (KorQuAD).
    pub f1: f64,
}

fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Lower case, no ASCII punctuation, no English articles, single spaces.
pub fn squad_normalize(text: &str) -> String {
    let text: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    let mut out = String::with_capacity(text.len());
    // A word ends where letters and digits end, not only at spaces.
    for piece in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
        if matches!(word, "a" | "an" | "the") {
            out.push(' ');
            out.push_str(&piece[word.len()..]);
        } else {
            out.push_str(piece);
        }
    }
    collapse(&out)
}

/// Quotes, angle and round brackets become spaces; lower case, no ASCII punctuation, single spaces.
pub fn korquad_normalize(text: &str) -> String {
    let spaced: String = text
        .chars()
        .map(|c| {
            if matches!(
                c,
                '\'' | '"' | '《' | '》' | '<' | '>' | '〈' | '〉' | '(' | ')' | '‘' | '’'
            ) {
                ' '
            } else {
                c
            }
        })
        .collect();
    let text: String = spaced
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    collapse(&text)
}

/// F1 of two bags; two empty ones agree.
fn bag_f1<T: Eq + Hash>(prediction: &[T], answer: &[T]) -> f64 {
    if prediction.is_empty() || answer.is_empty() {
        return f64::from(prediction.is_empty() && answer.is_empty());
    }
    let mut counts: HashMap<&T, usize> = HashMap::new();
    for item in answer {
        *counts.entry(item).or_default() += 1;
    }
    let mut same = 0.0;
    for item in prediction {
        if let Some(count) = counts.get_mut(item).filter(|count| **count > 0) {
            *count -= 1;
            same += 1.0;
        }
    }
    PrecisionRecall::from_counts(same, prediction.len() as f64, answer.len() as f64).f1
}

fn best<A: AsRef<str>>(answers: &[A], score: impl Fn(&str) -> AnswerScore) -> AnswerScore {
    let mut best = AnswerScore {
        exact_match: 0.0,
        f1: 0.0,
    };
    for answer in answers {
        let score = score(answer.as_ref());
        best.exact_match = best.exact_match.max(score.exact_match);
        best.f1 = best.f1.max(score.f1);
    }
    best
}

/// SQuAD: the best of the answers; F1 over words.
pub fn squad<A: AsRef<str>>(prediction: &str, answers: &[A]) -> AnswerScore {
    let prediction = squad_normalize(prediction);
    let words: Vec<&str> = prediction.split_whitespace().collect();
    best(answers, |answer| {
        let answer = squad_normalize(answer);
        AnswerScore {
            exact_match: f64::from(answer == prediction),
            f1: bag_f1(&words, &answer.split_whitespace().collect::<Vec<_>>()),
        }
    })
}

/// KorQuAD: the best of the answers; F1 over characters, spaces ignored.
pub fn korquad<A: AsRef<str>>(prediction: &str, answers: &[A]) -> AnswerScore {
    let letters = |text: &str| {
        text.chars()
            .filter(|c| !c.is_whitespace())
            .collect::<Vec<char>>()
    };
    let prediction = korquad_normalize(prediction);
    let of_prediction = letters(&prediction);
    best(answers, |answer| {
        let answer = korquad_normalize(answer);
        AnswerScore {
            exact_match: f64::from(answer == prediction),
            f1: bag_f1(&of_prediction, &letters(&answer)),
        }
    })
}

/// Means over a corpus, on a scale of 100: (exact match, F1).
pub fn corpus(scores: &[AnswerScore]) -> (f64, f64) {
    (
        100.0 * mean(scores.iter().map(|s| s.exact_match)),
        100.0 * mean(scores.iter().map(|s| s.f1)),
    )
}
