//! BLEU (Papineni et al. 2002) as standardised by Post (2018): corpus statistics of n-grams up to 4, on a scale of 100.

use std::collections::HashMap;

/// How text is split into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tokenization {
    /// The rules of the mteval script, version 13a: ASCII punctuation apart, points and commas inside numbers kept.
    #[default]
    Mteval13a,
    /// Characters, spaces dropped.
    Characters,
    /// White space alone.
    Whitespace,
}

/// What to do with an order that has no match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Smoothing {
    /// Count 1/2, 1/4, ... for the first, second, ... such order.
    #[default]
    Exponential,
    /// Nothing: the score is 0.
    None,
}

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BleuOptions {
    /// How text is split.
    pub tokenization: Tokenization,
    /// What to do without a match.
    pub smoothing: Smoothing,
    /// Compare in lower case.
    pub lowercase: bool,
    /// Average only over the orders that the text is long enough for (for single sentences).
    pub effective_order: bool,
}

/// A score with its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Bleu {
    /// The score, 0 to 100.
    pub score: f64,
    /// Precision of each order in percent, after smoothing.
    pub precisions: [f64; ORDER],
    /// Factor for texts shorter than the reference.
    pub brevity_penalty: f64,
    /// Tokens of the hypotheses.
    pub hypothesis_len: usize,
    /// Tokens of the closest references.
    pub reference_len: usize,
}

const ORDER: usize = 4;

/// Puts spaces around the second, or the first, of two neighbouring characters that match, reading from the left without overlap.
fn separate(
    text: &[char],
    first: impl Fn(char) -> bool,
    second: impl Fn(char) -> bool,
    space_second: bool,
) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut i = 0;
    while i < text.len() {
        if i + 1 < text.len() && first(text[i]) && second(text[i + 1]) {
            if space_second {
                out.extend([text[i], ' ', text[i + 1], ' ']);
            } else {
                out.extend([' ', text[i], ' ', text[i + 1]]);
            }
            i += 2;
        } else {
            out.push(text[i]);
            i += 1;
        }
    }
    out
}

fn tokenize_13a(text: &str) -> Vec<String> {
    let text = text
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let mut chars = vec![' '];
    for c in text.chars() {
        // All ASCII punctuation but the apostrophe, comma, hyphen and point.
        if c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.') {
            chars.extend([' ', c, ' ']);
        } else {
            chars.push(c);
        }
    }
    chars.push(' ');
    let stop = |c: char| matches!(c, '.' | ',');
    let digit = |c: char| c.is_ascii_digit();
    let chars = separate(&chars, |c| !digit(c), stop, true);
    let chars = separate(&chars, stop, |c| !digit(c), false);
    let chars = separate(&chars, digit, |c| c == '-', true);
    chars
        .iter()
        .collect::<String>()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn tokens(text: &str, options: BleuOptions) -> Vec<String> {
    let text = if options.lowercase {
        text.to_lowercase()
    } else {
        text.to_owned()
    };
    let text = text.trim_end();
    match options.tokenization {
        Tokenization::Mteval13a => tokenize_13a(text),
        Tokenization::Characters => text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(String::from)
            .collect(),
        Tokenization::Whitespace => text.split_whitespace().map(str::to_owned).collect(),
    }
}

fn ngrams(tokens: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// BLEU of a corpus. `references[r][i]` is reference `r` of sentence `i`.
pub fn corpus_bleu<S: AsRef<str>>(
    hypotheses: &[S],
    references: &[Vec<S>],
    options: BleuOptions,
) -> Bleu {
    let (mut right, mut total) = ([0usize; ORDER], [0usize; ORDER]);
    let (mut hypothesis_len, mut reference_len) = (0, 0);
    for (i, hypothesis) in hypotheses.iter().enumerate() {
        let hypothesis = tokens(hypothesis.as_ref(), options);
        let references: Vec<Vec<String>> = references
            .iter()
            .filter_map(|r| r.get(i))
            .map(|r| tokens(r.as_ref(), options))
            .collect();
        hypothesis_len += hypothesis.len();
        // The closest length counts, the shorter of two equally close.
        let lengths = references.iter().map(Vec::len);
        reference_len += lengths
            .min_by_key(|&n| (n.abs_diff(hypothesis.len()), n))
            .unwrap_or(0);
        for n in 1..=ORDER {
            let of_references: Vec<_> = references.iter().map(|r| ngrams(r, n)).collect();
            for (ngram, count) in ngrams(&hypothesis, n) {
                let most = of_references
                    .iter()
                    .filter_map(|r| r.get(ngram))
                    .max()
                    .copied()
                    .unwrap_or(0);
                right[n - 1] += count.min(most);
                total[n - 1] += count;
            }
        }
    }
    score(right, total, hypothesis_len, reference_len, options)
}

fn score(
    right: [usize; ORDER],
    total: [usize; ORDER],
    hypothesis_len: usize,
    reference_len: usize,
    options: BleuOptions,
) -> Bleu {
    let brevity_penalty = if hypothesis_len >= reference_len {
        1.0
    } else if hypothesis_len == 0 {
        0.0
    } else {
        (1.0 - reference_len as f64 / hypothesis_len as f64).exp()
    };
    let mut precisions = [0.0; ORDER];
    let mut order = ORDER;
    let mut halving = 1.0;
    for n in 0..ORDER {
        if total[n] == 0 {
            break;
        }
        if options.effective_order {
            order = n + 1;
        }
        precisions[n] = if right[n] > 0 {
            100.0 * right[n] as f64 / total[n] as f64
        } else if options.smoothing == Smoothing::Exponential {
            halving *= 2.0;
            100.0 / (halving * total[n] as f64)
        } else {
            0.0
        };
    }
    // Without any match smoothing would still give something; it must be 0.
    let score = if right.iter().all(|&r| r == 0) || precisions[..order].contains(&0.0) {
        0.0
    } else {
        brevity_penalty
            * (precisions[..order].iter().map(|p| p.ln()).sum::<f64>() / order as f64).exp()
    };
    Bleu {
        score,
        precisions,
        brevity_penalty,
        hypothesis_len,
        reference_len,
    }
}

/// BLEU of one sentence, over the orders that it is long enough for.
pub fn sentence_bleu(hypothesis: &str, references: &[&str], options: BleuOptions) -> Bleu {
    let references: Vec<Vec<&str>> = references.iter().map(|r| vec![*r]).collect();
    corpus_bleu(
        &[hypothesis],
        &references,
        BleuOptions {
            effective_order: true,
            ..options
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mteval_keeps_numbers_together_and_splits_punctuation() {
        let tokens = tokenize_13a("It's 3.5%, (1,000) 1990-1992. A.B... &quot;x&quot;");
        let expected = [
            "It's", "3.5", "%", ",", "(", "1,000", ")", "1990", "-", "1992", ".", "A", ".", "B",
            ".", ".", ".", "\"", "x", "\"",
        ];
        assert_eq!(tokens, expected);
    }

    #[test]
    fn no_match_or_no_text_is_zero() {
        assert_eq!(
            corpus_bleu(&["a b c d"], &[vec!["e f g h"]], BleuOptions::default()).score,
            0.0
        );
        assert_eq!(
            corpus_bleu(&[""], &[vec!["e f g h"]], BleuOptions::default()).score,
            0.0
        );
    }
}
