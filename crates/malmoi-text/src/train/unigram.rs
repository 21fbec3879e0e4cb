//! The unigram language model (Kudo, "Subword Regularization", ACL 2018).
//!
//! Start with many frequent substrings; estimate their probabilities by expectation-maximisation over all segmentations of
//! the counted words; drop the pieces whose loss costs the likelihood least; repeat until the vocabulary has its size. The
//! constants (shrinking factor 0.75, two EM steps a round, pieces below an expected count of 0.5 dropped, digamma in the
//! M step) are those of SentencePiece.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use serde_json::{Value, json};

use super::{Alphabet, TrainOptions, unknown};
use crate::Progress;
use crate::error::{Result, TextError};
use crate::trie::Trie;

/// Largest number of candidate pieces (SentencePiece's `seed_sentencepiece_size`).
const SEEDS: usize = 1_000_000;
/// Share of the pieces that survive a round.
const SHRINK: f64 = 0.75;
const EM_STEPS: usize = 2;
/// Words are cut into this many parts for expectation and pruning, whatever the number of threads: partial sums are then
/// the same, and added in the same order.
const PARTS: usize = 16;

/// A piece and its log-probability.
type Piece = (String, f64);

/// The model part of `tokenizer.json`.
pub(super) fn model(pieces: &[Piece], options: &TrainOptions) -> Value {
    let unk = unknown(options).unwrap_or("<unk>");
    let unk_id = pieces.iter().position(|(piece, _)| piece == unk);
    json!({"type": "Unigram", "unk_id": unk_id, "vocab": pieces, "byte_fallback": options.byte_fallback})
}

pub(super) fn train(
    words: &[(String, u64)],
    alphabet: &Alphabet,
    special: &[String],
    options: &TrainOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value> {
    let byte_pieces: Vec<String> = if options.byte_fallback {
        (0..=255_u8).map(|byte| format!("<0x{byte:02X}>")).collect()
    } else {
        Vec::new()
    };
    let reserved = special.len() + byte_pieces.len();
    let needed = reserved + alphabet.kept.len();
    if needed > options.vocab_size {
        return Err(TextError::Training(format!(
            "the special tokens, bytes and alphabet take {needed} entries, vocab_size is {}; raise it, or set a smaller \
             limit_alphabet",
            options.vocab_size
        )));
    }
    let target = options.vocab_size - reserved;
    let sentences = cut_at_unknown(words, &alphabet.kept);
    let mut pieces = seeds(&sentences, &alphabet.kept, options.max_piece_length);
    let desired = target + target / 10;
    let mut round = 0;
    loop {
        for _ in 0..EM_STEPS {
            pieces = em_step(pieces, &sentences, &alphabet.kept);
        }
        round += 1;
        progress(Progress {
            stage: "unigram rounds",
            done: round,
            total: None,
        });
        if pieces.len() <= desired.max(alphabet.kept.len()) {
            break;
        }
        let before = pieces.len();
        pieces = prune(pieces, &sentences, desired, &alphabet.kept);
        if pieces.len() >= before {
            break;
        }
    }
    let pieces = finish(pieces, target, &alphabet.kept);
    let mut vocab: Vec<Piece> = special.iter().map(|token| (token.clone(), 0.0)).collect();
    vocab.extend(byte_pieces.into_iter().map(|piece| (piece, 0.0)));
    vocab.extend(pieces);
    Ok(model(&vocab, options))
}

/// Cuts words at characters outside the alphabet, and adds up what became equal.
fn cut_at_unknown(words: &[(String, u64)], alphabet: &[char]) -> Vec<(String, u64)> {
    let known = |c: char| alphabet.binary_search(&c).is_ok();
    let mut parts: Vec<(String, u64)> = words
        .iter()
        .flat_map(|(word, count)| {
            word.split(move |c| !known(c))
                .filter(|part| !part.is_empty())
                .map(move |part| (part.to_owned(), *count))
        })
        .collect();
    parts.par_sort_unstable();
    parts.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1 += later.1;
        }
        same
    });
    parts
}

/// Script class of a character; a piece does not mix classes, as SentencePiece's `split_by_unicode_script` and
/// `split_by_number` have it. `None` (the space mark) goes with everything.
fn class(c: char) -> Option<u8> {
    Some(match c {
        '\u{2581}' => return None,
        '가'..='힣' | '\u{1100}'..='\u{11ff}' | 'ㄱ'..='\u{318e}' => 0,
        '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' => 1,
        c if c.is_numeric() => 2,
        c if c.is_alphabetic() || unicode_normalization::char::is_combining_mark(c) => 3,
        _ => 4,
    })
}

/// Characters, and the frequent substrings of the words, best (count times length) first.
///
/// The candidates are the substrings that cannot be made longer without becoming rarer: the inner nodes of the suffix tree,
/// found from the sorted suffixes, and suffixes that occur in one word only.
fn seeds(words: &[(String, u64)], alphabet: &[char], longest: usize) -> Vec<Piece> {
    let mut text: Vec<char> = Vec::new();
    let mut word_of: Vec<u32> = Vec::new();
    for (index, (word, _)) in words.iter().enumerate() {
        text.extend(word.chars());
        text.push('\0');
        word_of.resize(text.len(), index as u32);
    }
    // The part of a suffix that may become a piece: inside its word, one script, at most `longest` characters.
    let reach: Vec<u8> = (0..text.len())
        .into_par_iter()
        .map(|start| {
            let mut seen = None;
            let mut length = 0;
            while length < longest && text[start + length] != '\0' {
                let c = text[start + length];
                // A space mark begins a piece and stands nowhere else.
                if length > 0 && c == '\u{2581}' {
                    break;
                }
                match (class(c), seen) {
                    (Some(new), Some(old)) if new != old => break,
                    (new, old) => seen = new.or(old),
                }
                length += 1;
            }
            length as u8
        })
        .collect();
    let part = |start: u32| {
        let start = start as usize;
        &text[start..start + usize::from(reach[start])]
    };
    let mut suffixes: Vec<u32> = (0..text.len() as u32)
        .filter(|&start| reach[start as usize] >= 2)
        .collect();
    suffixes.par_sort_unstable_by(|&a, &b| part(a).cmp(part(b)).then(a.cmp(&b)));
    let weight = |start: u32| words[word_of[start as usize] as usize].1;
    let mut found: Vec<(u64, u32, u8)> = Vec::new();
    // Open nodes of the suffix tree on the path to the current suffix: (depth, weight below it, a suffix through it). The
    // root stays at the bottom.
    let mut open: Vec<(usize, u64, u32)> = vec![(0, 0, 0)];
    let mut close = |open: &mut Vec<(usize, u64, u32)>, depth: usize| {
        while let Some((length, sum, start)) = open.pop_if(|node| node.0 > depth) {
            if length >= 2 && sum >= 2 {
                found.push((sum, start, length as u8));
            }
            match open.last_mut() {
                Some(parent) if parent.0 >= depth => parent.1 += sum,
                _ => open.push((depth, sum, start)),
            }
        }
    };
    let mut previous: Option<u32> = None;
    for &suffix in &suffixes {
        let common = previous.map_or(0, |previous| {
            part(previous)
                .iter()
                .zip(part(suffix))
                .take_while(|(a, b)| a == b)
                .count()
        });
        close(&mut open, common);
        let length = part(suffix).len();
        match open.last_mut() {
            Some(top) if top.0 == length => top.1 += weight(suffix),
            _ => open.push((length, weight(suffix), suffix)),
        }
        previous = Some(suffix);
    }
    close(&mut open, 0);
    found.par_sort_unstable_by(|a, b| {
        let score = |f: &(u64, u32, u8)| f.0 * u64::from(f.2);
        score(b)
            .cmp(&score(a))
            .then_with(|| part(a.1)[..usize::from(a.2)].cmp(&part(b.1)[..usize::from(b.2)]))
    });
    found.truncate(SEEDS.saturating_sub(alphabet.len()));
    let mut counts: HashMap<char, u64> = HashMap::new();
    for (word, count) in words {
        for c in word.chars() {
            *counts.entry(c).or_default() += count;
        }
    }
    let mut pieces: Vec<Piece> = alphabet
        .iter()
        .map(|c| (c.to_string(), counts.get(c).copied().unwrap_or(1) as f64))
        .collect();
    pieces.extend(found.into_iter().map(|(sum, start, length)| {
        let piece: String = part(start)[..usize::from(length)].iter().collect();
        (piece, (sum * u64::from(length)) as f64)
    }));
    let total: f64 = pieces.iter().map(|piece| piece.1).sum();
    for piece in &mut pieces {
        piece.1 = (piece.1 / total).ln();
    }
    pieces
}

fn trie_of(pieces: &[Piece]) -> Trie {
    Trie::new(
        pieces
            .iter()
            .enumerate()
            .map(|(id, (piece, _))| (piece.as_bytes(), id as u32)),
    )
}

/// Runs `work` on each part of the words, in parallel; results in the order of the parts.
fn over_parts<T: Send>(
    words: &[(String, u64)],
    work: impl Fn(&[(String, u64)]) -> T + Sync + Send,
) -> Vec<T> {
    let size = words.len().div_ceil(PARTS).max(1);
    words.par_chunks(size).map(work).collect()
}

/// One step of expectation-maximisation. Pieces of the alphabet always stay.
fn em_step(pieces: Vec<Piece>, words: &[(String, u64)], alphabet: &[char]) -> Vec<Piece> {
    let trie = trie_of(&pieces);
    let partial = over_parts(words, |words| {
        let mut expected = vec![0.0; pieces.len()];
        let mut lattice = Lattice::default();
        for (word, count) in words {
            lattice.fill(word, &trie, &pieces, None);
            lattice.add_expected(*count as f64, &mut expected);
        }
        expected
    });
    let mut expected = vec![0.0; pieces.len()];
    for part in partial {
        for (sum, value) in expected.iter_mut().zip(part) {
            *sum += value;
        }
    }
    let mut kept: Vec<Piece> = pieces
        .into_iter()
        .zip(expected)
        .filter_map(|((piece, _), count)| {
            let required = is_required(&piece, alphabet);
            // Half an occurrence is the published threshold.
            (count >= 0.5 || required).then_some((piece, count.max(0.5)))
        })
        .collect();
    let total: f64 = kept.iter().map(|piece| piece.1).sum();
    let log_total = digamma(total);
    for piece in &mut kept {
        piece.1 = digamma(piece.1) - log_total;
    }
    kept
}

fn is_required(piece: &str, alphabet: &[char]) -> bool {
    let mut characters = piece.chars();
    matches!((characters.next(), characters.next()), (Some(c), None) if alphabet.binary_search(&c).is_ok())
}

/// Drops the pieces whose loss costs least, at most a quarter of them.
fn prune(
    pieces: Vec<Piece>,
    words: &[(String, u64)],
    desired: usize,
    alphabet: &[char],
) -> Vec<Piece> {
    let trie = trie_of(&pieces);
    // What a piece would be written with if it were gone.
    let alternatives: Vec<Vec<u32>> = pieces
        .par_iter()
        .enumerate()
        .map_init(Lattice::default, |lattice, (id, (piece, _))| {
            lattice.fill(piece, &trie, &pieces, Some(id as u32));
            lattice.best().unwrap_or_default()
        })
        .collect();
    let partial = over_parts(words, |words| {
        let mut frequency = vec![0_u64; pieces.len()];
        let mut lattice = Lattice::default();
        for (word, count) in words {
            lattice.fill(word, &trie, &pieces, None);
            for id in lattice.best().unwrap_or_default() {
                frequency[id as usize] += count;
            }
        }
        frequency
    });
    let mut frequency = vec![0_u64; pieces.len()];
    for part in partial {
        for (sum, value) in frequency.iter_mut().zip(part) {
            *sum += value;
        }
    }
    let total: f64 = frequency.iter().map(|&f| f as f64).sum();
    let log_total = total.ln();
    let mut keep: Vec<bool> = vec![false; pieces.len()];
    let mut kept = 0;
    let mut candidates: Vec<(f64, usize)> = Vec::new();
    for (id, (piece, _)) in pieces.iter().enumerate() {
        let alternative = &alternatives[id];
        if is_required(piece, alphabet) || (alternative.is_empty() && frequency[id] > 0) {
            keep[id] = true;
            kept += 1;
        } else if frequency[id] > 0 {
            let own = frequency[id] as f64;
            let log_own = own.ln() - log_total;
            // Without the piece its occurrences become occurrences of the alternative's pieces.
            let log_new_total = (total + own * (alternative.len() as f64 - 1.0)).ln();
            let log_alternative: f64 = alternative
                .iter()
                .map(|&other| (frequency[other as usize] as f64 + own).ln() - log_new_total)
                .sum();
            candidates.push((own / total * (log_own - log_alternative), id));
        }
    }
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let size = desired.max((pieces.len() as f64 * SHRINK) as usize);
    for (_, id) in candidates.into_iter().take(size.saturating_sub(kept)) {
        keep[id] = true;
    }
    pieces
        .into_iter()
        .zip(keep)
        .filter_map(|(piece, keep)| keep.then_some(piece))
        .collect()
}

/// The alphabet, then the most probable pieces; by falling probability, equal ones by text.
fn finish(pieces: Vec<Piece>, target: usize, alphabet: &[char]) -> Vec<Piece> {
    let order = |a: &Piece, b: &Piece| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0));
    let (mut chosen, mut rest): (Vec<Piece>, Vec<Piece>) = pieces
        .into_iter()
        .partition(|(piece, _)| is_required(piece, alphabet));
    rest.sort_by(order);
    let present: HashSet<String> = chosen.iter().map(|piece| piece.0.clone()).collect();
    let worst = chosen
        .iter()
        .chain(&rest)
        .map(|piece| piece.1)
        .fold(0.0, f64::min);
    for c in alphabet {
        let piece = c.to_string();
        if !present.contains(&piece) {
            chosen.push((piece, worst));
        }
    }
    rest.truncate(target.saturating_sub(chosen.len()));
    chosen.extend(rest);
    for piece in &mut chosen {
        // Six digits, as SentencePiece writes them: every JSON reader then reads the same number, and texts with equally
        // good segmentations come out the same everywhere.
        piece.1 = (piece.1 * 1e6).round() / 1e6;
    }
    chosen.sort_by(order);
    chosen
}

/// All segmentations of one word. Buffers are kept between words.
#[derive(Default)]
struct Lattice {
    /// Pieces that end at each byte: (start, id, log-probability).
    ending: Vec<Vec<(u32, u32, f64)>>,
    forward: Vec<f64>,
    backward: Vec<f64>,
    length: usize,
}

impl Lattice {
    /// Collects the pieces of a word; `without` leaves one piece out.
    fn fill(&mut self, word: &str, trie: &Trie, pieces: &[Piece], without: Option<u32>) {
        self.length = word.len();
        if self.ending.len() <= self.length {
            self.ending.resize(self.length + 1, Vec::new());
        }
        for list in &mut self.ending[..=self.length] {
            list.clear();
        }
        for (start, _) in word.char_indices() {
            trie.prefixes(&word.as_bytes()[start..], |length, id| {
                if Some(id) != without {
                    self.ending[start + length].push((start as u32, id, pieces[id as usize].1));
                }
            });
        }
    }

    /// Adds to `expected` how often each piece is used over all segmentations, times `weight`.
    fn add_expected(&mut self, weight: f64, expected: &mut [f64]) {
        self.forward.clear();
        self.forward.resize(self.length + 1, f64::NEG_INFINITY);
        self.backward.clear();
        self.backward.resize(self.length + 1, f64::NEG_INFINITY);
        self.forward[0] = 0.0;
        self.backward[self.length] = 0.0;
        for end in 1..=self.length {
            let mut sum = f64::NEG_INFINITY;
            for &(start, _, score) in &self.ending[end] {
                sum = log_add(sum, self.forward[start as usize] + score);
            }
            self.forward[end] = sum;
        }
        for end in (1..=self.length).rev() {
            let after = self.backward[end];
            for &(start, _, score) in &self.ending[end] {
                let slot = &mut self.backward[start as usize];
                *slot = log_add(*slot, after + score);
            }
        }
        let total = self.forward[self.length];
        if total == f64::NEG_INFINITY {
            return;
        }
        for end in 1..=self.length {
            let after = self.backward[end] - total;
            for &(start, id, score) in &self.ending[end] {
                let share = (self.forward[start as usize] + score + after).exp();
                expected[id as usize] += weight * share;
            }
        }
    }

    /// The most probable segmentation as ids; `None` when there is none.
    fn best(&mut self) -> Option<Vec<u32>> {
        self.forward.clear();
        self.forward.push(0.0);
        // How each byte is best reached: (start of the last piece, its id).
        let mut back: Vec<(u32, u32)> = vec![(u32::MAX, 0)];
        for pieces in &self.ending[1..=self.length] {
            let mut best = f64::NEG_INFINITY;
            let mut from = (u32::MAX, 0);
            for &(start, id, score) in pieces {
                let sum = self.forward[start as usize] + score;
                if sum > best {
                    best = sum;
                    from = (start, id);
                }
            }
            self.forward.push(best);
            back.push(from);
        }
        let mut path = Vec::new();
        let mut end = self.length;
        while end > 0 {
            let (start, id) = back[end];
            if start == u32::MAX {
                return None;
            }
            path.push(id);
            end = start as usize;
        }
        path.reverse();
        Some(path)
    }
}

/// ln(exp(a) + exp(b)).
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        return high;
    }
    high + (low - high).exp().ln_1p()
}

/// The digamma function for positive arguments: recurrence up to 7, then the asymptotic series in x − 1/2.
fn digamma(mut x: f64) -> f64 {
    let mut result = 0.0;
    while x < 7.0 {
        result -= 1.0 / x;
        x += 1.0;
    }
    x -= 0.5;
    let inverse = 1.0 / (x * x);
    let (second, third) = (inverse * inverse, inverse * inverse * inverse);
    result + x.ln() + inverse / 24.0 - 7.0 / 960.0 * second + 31.0 / 8064.0 * third
        - 127.0 / 30720.0 * second * second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digamma_of_known_arguments() {
        // Abramowitz and Stegun, table 6.1: psi(1) = -0.5772156649, psi(2) = 0.4227843351, psi(1/2) = -1.9635100260.
        for (x, expected) in [
            (1.0, -0.577_215_664_9),
            (2.0, 0.422_784_335_1),
            (0.5, -1.963_510_026_0),
        ] {
            assert!((digamma(x) - expected).abs() < 1e-7, "{x}: {}", digamma(x));
        }
    }

    /// Every substring of length two or more with its count, by brute force.
    fn brute(words: &[(String, u64)]) -> HashMap<String, u64> {
        let mut counts = HashMap::new();
        for (word, count) in words {
            let characters: Vec<char> = word.chars().collect();
            for start in 0..characters.len() {
                for end in start + 2..=characters.len() {
                    let piece: String = characters[start..end].iter().collect();
                    *counts.entry(piece).or_default() += count;
                }
            }
        }
        counts
    }

    #[test]
    fn candidates_have_their_true_counts_and_are_maximal() {
        let words: Vec<(String, u64)> = [
            ("ababc", 3),
            ("abab", 2),
            ("babc", 1),
            ("xyz", 5),
            ("xyw", 4),
            ("q", 9),
        ]
        .map(|(w, c)| (w.to_owned(), c))
        .to_vec();
        let counts = brute(&words);
        let mut alphabet: Vec<char> = words.iter().flat_map(|w| w.0.chars()).collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        let pieces = seeds(&words, &alphabet, 16);
        let total: f64 = {
            let letters: u64 = words
                .iter()
                .map(|(w, c)| w.chars().count() as u64 * c)
                .sum();
            let found: u64 = pieces[alphabet.len()..]
                .iter()
                .map(|(p, _)| counts[p] * p.chars().count() as u64)
                .sum();
            (letters + found) as f64
        };
        let found: HashMap<&str, f64> = pieces[alphabet.len()..]
            .iter()
            .map(|(p, s)| (p.as_str(), *s))
            .collect();
        assert_eq!(found.len(), pieces.len() - alphabet.len(), "no piece twice");
        for (piece, score) in &found {
            let expected = (counts[*piece] * piece.chars().count() as u64) as f64 / total;
            assert!((score.exp() - expected).abs() < 1e-12, "{piece}");
        }
        // A substring that is not a candidate can be made longer to the right without becoming rarer.
        for (piece, count) in &counts {
            if found.contains_key(piece.as_str()) || *count < 2 {
                continue;
            }
            let longer = counts.iter().any(|(other, c)| {
                other.len() > piece.len() && other.starts_with(piece.as_str()) && c == count
            });
            assert!(longer, "{piece} ({count}) is missing");
        }
    }
}
