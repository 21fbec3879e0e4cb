//! Translation edit rate (Snover et al. 2006): edits per reference word, where moving a block of words is one edit; on a scale of 100.
//!
//! Moves are searched greedily with the limits of the published tool, so that scores compare.

use std::cmp::Reverse;

/// Longest block that is moved.
const MAX_BLOCK: usize = 10;
/// Farthest distance between the places of a block in hypothesis and reference.
const MAX_DISTANCE: usize = 50;
/// Moves tried for one sentence.
const MAX_CANDIDATES: usize = 1000;
/// Distance from the diagonal within which edits are searched.
const BEAM: usize = 25;

/// One step of turning the hypothesis into the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Keep,
    Substitute,
    /// Drop a word of the hypothesis.
    Drop,
    /// Add a word of the reference.
    Add,
}

/// Edit distance near the diagonal, and the edits. On equal cost substitution goes before dropping, and dropping before adding.
fn edits(hypothesis: &[&str], reference: &[&str]) -> (usize, Vec<Edit>) {
    const FAR: usize = usize::MAX / 2;
    let (n, m) = (hypothesis.len(), reference.len());
    let slope = if n == 0 { 1.0 } else { m as f64 / n as f64 };
    let beam = if slope / 2.0 > BEAM as f64 {
        (slope / 2.0 + BEAM as f64).ceil() as usize
    } else {
        BEAM
    };
    let mut table = vec![vec![(FAR, Edit::Keep); m + 1]; n + 1];
    for (j, cell) in table[0].iter_mut().enumerate() {
        *cell = (j, Edit::Add);
    }
    for i in 1..=n {
        let diagonal = (i as f64 * slope).floor() as usize;
        let first = diagonal.saturating_sub(beam);
        let end = if i == n {
            m + 1
        } else {
            (diagonal + beam).min(m + 1)
        };
        for j in first..end {
            if j == 0 {
                table[i][0] = (table[i - 1][0].0 + 1, Edit::Drop);
                continue;
            }
            let equal = hypothesis[i - 1] == reference[j - 1];
            let diagonal = table[i - 1][j - 1].0 + usize::from(!equal);
            let mut best = (diagonal, if equal { Edit::Keep } else { Edit::Substitute });
            for (cost, edit) in [
                (table[i - 1][j].0 + 1, Edit::Drop),
                (table[i][j - 1].0 + 1, Edit::Add),
            ] {
                if cost < best.0 {
                    best = (cost, edit);
                }
            }
            table[i][j] = best;
        }
    }
    let mut trace = Vec::new();
    let (mut i, mut j) = (n, m);
    while i > 0 || j > 0 {
        let edit = if i == 0 { Edit::Add } else { table[i][j].1 };
        trace.push(edit);
        i -= usize::from(edit != Edit::Add);
        j -= usize::from(edit != Edit::Drop && j > 0);
    }
    trace.reverse();
    (table[n][m].0, trace)
}

/// Where each reference word sits in the hypothesis, and which words on both sides are wrong.
struct Alignment {
    /// For each reference word one more than the hypothesis word it is aligned to, or comes after; 0 is the beginning.
    after: Vec<usize>,
    reference_wrong: Vec<bool>,
    hypothesis_wrong: Vec<bool>,
}

fn align(trace: &[Edit]) -> Alignment {
    let mut alignment = Alignment {
        after: Vec::new(),
        reference_wrong: Vec::new(),
        hypothesis_wrong: Vec::new(),
    };
    for edit in trace {
        let wrong = *edit != Edit::Keep;
        if *edit != Edit::Add {
            alignment.hypothesis_wrong.push(wrong);
        }
        if *edit != Edit::Drop {
            alignment.after.push(alignment.hypothesis_wrong.len());
            alignment.reference_wrong.push(wrong);
        }
    }
    alignment
}

/// Moves `words[start..start + length]` so that it comes after the first `target` words (counted before the move; a target inside the block
/// counts from its end).
fn moved<'a>(words: &[&'a str], start: usize, length: usize, target: usize) -> Vec<&'a str> {
    let block = &words[start..start + length];
    if target < start {
        [
            &words[..target],
            block,
            &words[target..start],
            &words[start + length..],
        ]
        .concat()
    } else {
        let target = if target > start + length {
            target
        } else {
            (target + length).min(words.len())
        };
        let target = target.max(start + length);
        [
            &words[..start],
            &words[start + length..target],
            block,
            &words[target..],
        ]
        .concat()
    }
}

/// A move to compare: gain, length of the block, its start, its target, and the new word order.
type Candidate<'a> = (i64, usize, Reverse<usize>, Reverse<usize>, Vec<&'a str>);

/// The move that saves most edits: the gain and the new word order. Among equal gains the longer block, then the earlier one, then the
/// earlier target wins, then the alphabetically later result.
fn best_move<'a>(
    words: &[&'a str],
    reference: &[&str],
    candidates: &mut usize,
) -> Option<(i64, Vec<&'a str>)> {
    let (before, trace) = edits(words, reference);
    let alignment = align(&trace);
    let mut best: Option<Candidate<'a>> = None;
    'search: for start in 0..words.len() {
        for place in 0..reference.len() {
            if start.abs_diff(place) > MAX_DISTANCE {
                continue;
            }
            let common = words[start..]
                .iter()
                .zip(&reference[place..])
                .take(MAX_BLOCK)
                .take_while(|(a, b)| a == b)
                .count();
            for length in 1..=common {
                let after = alignment.after[place];
                let right_already = !alignment.hypothesis_wrong[start..start + length]
                    .contains(&true)
                    || !alignment.reference_wrong[place..place + length].contains(&true);
                // `after` is one more than the aligned word.
                if right_already || (start + 1..start + length + 1).contains(&after) {
                    continue;
                }
                let mut previous = None;
                let before_block = if place == 0 {
                    0
                } else {
                    alignment.after[place - 1]
                };
                let inside = alignment.after[place..place + length].iter().copied();
                for target in std::iter::once(before_block).chain(inside) {
                    if previous == Some(target) {
                        continue;
                    }
                    previous = Some(target);
                    let shifted = moved(words, start, length, target);
                    let gain = before as i64 - edits(&shifted, reference).0 as i64;
                    *candidates += 1;
                    let candidate = (gain, length, Reverse(start), Reverse(target), shifted);
                    if best.as_ref().is_none_or(|best| candidate > *best) {
                        best = Some(candidate);
                    }
                }
                if *candidates >= MAX_CANDIDATES {
                    break 'search;
                }
            }
        }
    }
    best.map(|(gain, _, _, _, shifted)| (gain, shifted))
}

/// Least edits found, moves included.
fn sentence_edits(hypothesis: &[&str], reference: &[&str]) -> usize {
    if reference.is_empty() {
        return hypothesis.len();
    }
    let mut words = hypothesis.to_vec();
    let (mut moves, mut candidates) = (0, 0);
    while let Some((gain, shifted)) = best_move(&words, reference, &mut candidates) {
        if candidates >= MAX_CANDIDATES || gain <= 0 {
            break;
        }
        moves += 1;
        words = shifted;
    }
    moves + edits(&words, reference).0
}

/// TER of a corpus. `references[r][i]` is reference `r` of sentence `i`: the fewest edits over the references count, and their mean
/// length. Words are compared in lower case.
pub fn corpus_ter<S: AsRef<str>>(hypotheses: &[S], references: &[Vec<S>]) -> f64 {
    let (mut total, mut length) = (0.0, 0.0);
    for (i, hypothesis) in hypotheses.iter().enumerate() {
        let hypothesis = hypothesis.as_ref().to_lowercase();
        let words: Vec<&str> = hypothesis.split_whitespace().collect();
        let references: Vec<String> = references
            .iter()
            .filter_map(|r| r.get(i))
            .map(|r| r.as_ref().to_lowercase())
            .collect();
        let references: Vec<Vec<&str>> = references
            .iter()
            .map(|r| r.split_whitespace().collect())
            .collect();
        total += references
            .iter()
            .map(|r| sentence_edits(&words, r))
            .min()
            .unwrap_or(0) as f64;
        length += super::mean(references.iter().map(|r| r.len() as f64));
    }
    if length > 0.0 {
        100.0 * total / length
    } else {
        // Words where there should be none are all wrong.
        if total > 0.0 { 100.0 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ter(hypothesis: &str, reference: &str) -> f64 {
        corpus_ter(&[hypothesis], &[vec![reference]])
    }

    #[test]
    fn a_moved_block_is_one_edit() {
        // Six words; without moves this would cost four edits.
        assert!((ter("d e a b c f", "a b c d e f") - 100.0 / 6.0).abs() < 1e-9);
        assert!((ter("b c d a", "a b c d") - 25.0).abs() < 1e-9);
    }

    #[test]
    fn substitutions_and_missing_words_count() {
        assert_eq!(ter("a b c d", "a x c d"), 25.0);
        assert_eq!(ter("A B", "a b"), 0.0);
        assert_eq!(ter("", "a b"), 100.0);
        assert_eq!(ter("a", ""), 100.0);
        assert_eq!(ter("", ""), 0.0);
    }
}
