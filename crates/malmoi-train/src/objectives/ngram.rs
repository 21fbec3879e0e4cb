//! N-gram masking (Lan et al. 2020, section 4.1, after Joshi et al. 2020): runs of up to N words are hidden together, a run of n words
//! with a probability proportional to 1/n, until a share of the tokens is hidden.

use malmoi_kernels::random::Key;

/// Marks the tokens of chosen words.
///
/// `words` are positions of tokens, word by word, from the front to the back. `order` visits every word once as the start of a run and
/// `lengths[w]` is the number of words that a run from word `w` wants. A run ends early where the next word does not stand right behind
/// (a special token is between them) and is shortened until it fits into what is left of `budget` tokens; one that would hide a word
/// twice, or that does not fit even as a single word, is left out.
pub fn choose(
    words: &[Vec<usize>],
    order: &[usize],
    lengths: &[usize],
    budget: usize,
    n_tokens: usize,
) -> Vec<bool> {
    let mut chosen = vec![false; n_tokens];
    let mut left = budget;
    for &first in order {
        if left == 0 {
            break;
        }
        let Some(&wanted) = lengths.get(first) else {
            continue;
        };
        let mut run = first..(first + 1).min(words.len());
        while run.len() < wanted && run.end < words.len() && neighbours(words, run.end - 1) {
            run.end += 1;
        }
        while !run.is_empty() && tokens(&words[run.clone()]) > left {
            run.end -= 1;
        }
        let places = || words[run.clone()].iter().flatten().copied();
        if run.is_empty() || places().any(|place| chosen.get(place).copied().unwrap_or(true)) {
            continue;
        }
        places().for_each(|place| chosen[place] = true);
        left -= tokens(&words[run.clone()]);
    }
    chosen
}

/// Whether the word after `word` stands right behind it.
fn neighbours(words: &[Vec<usize>], word: usize) -> bool {
    let (here, next) = (words[word].last(), words[word + 1].first());
    here.zip(next)
        .is_some_and(|(&here, &next)| here + 1 == next)
}

fn tokens(words: &[Vec<usize>]) -> usize {
    words.iter().map(Vec::len).sum()
}

/// The length of a run for a draw in [0, 1): n with probability `1/n / (1 + 1/2 + … + 1/longest)`.
pub fn length(draw: f64, longest: usize) -> usize {
    let total: f64 = (1..=longest).map(|n| 1.0 / n as f64).sum();
    let mut below = 0.0;
    for n in 1..longest {
        below += 1.0 / n as f64 / total;
        if draw < below {
            return n;
        }
    }
    longest.max(1)
}

/// Marks a share `rate` of the tokens of `words` (at least one token where there are any) with draws from the generator.
pub fn sample(
    words: &[Vec<usize>],
    longest: usize,
    rate: f64,
    n_tokens: usize,
    key: Key,
) -> Vec<bool> {
    let all = tokens(words);
    let budget = ((all as f64 * rate).round() as usize).clamp(all.min(1), all);
    let order: Vec<usize> = key
        .fold(0)
        .permutation(words.len())
        .into_iter()
        .map(|word| word as usize)
        .collect();
    let draws = key.fold(1);
    let lengths: Vec<usize> = (0..words.len() as u64)
        .map(|word| length(draws.uniform_f64_at(word), longest))
        .collect();
    choose(words, &order, &lengths, budget, n_tokens)
}

#[cfg(test)]
mod tests {
    use malmoi_kernels::random::Purpose;

    use super::*;

    #[test]
    fn runs_stop_at_gaps_and_shrink_to_the_budget() {
        // Words at 1, 2-3, 4, then a special token at 5, then 6.
        let words = [vec![1], vec![2, 3], vec![4], vec![6]];
        let marked = |order: &[usize], lengths: &[usize], budget| -> Vec<usize> {
            let chosen = choose(&words, order, lengths, budget, 8);
            (0..8).filter(|&place| chosen[place]).collect()
        };
        assert_eq!(marked(&[1], &[3, 3, 3, 3], 9), [2, 3, 4]);
        assert_eq!(marked(&[0], &[3, 3, 3, 3], 3), [1, 2, 3]);
        // Word 1 has two tokens and does not fit into one; word 3 does.
        assert_eq!(marked(&[1, 3], &[2; 4], 1), [6]);
        // The run from word 0 would hide word 1 again.
        assert_eq!(marked(&[1, 0, 3], &[2, 1, 1, 1], 9), [2, 3, 6]);
    }

    #[test]
    fn lengths_follow_the_published_distribution() {
        // 1/1 : 1/2 : 1/3 are 6/11, 3/11 and 2/11.
        let at = |draw| length(draw, 3);
        assert_eq!([at(0.0), at(0.545), at(0.546)], [1, 1, 2]);
        assert_eq!([at(0.818), at(0.819), at(0.9999)], [2, 3, 3]);
        assert_eq!(length(0.7, 1), 1);
    }

    #[test]
    fn the_sampler_hides_the_share_asked_for_and_whole_words_only() {
        // 60 words of one to three tokens.
        let mut place = 0;
        let words: Vec<Vec<usize>> = (0..60)
            .map(|word| {
                let word: Vec<usize> = (place..place + 1 + word % 3).collect();
                place += word.len();
                word
            })
            .collect();
        let mut long_runs = 0;
        for step in 0..200 {
            let key = Key::new(5, Purpose::Masking, step);
            let chosen = sample(&words, 3, 0.15, place, key);
            let count = chosen.iter().filter(|&&c| c).count();
            // The last words may not fit any more: a word of three tokens leaves at most two unused.
            assert!((16..=18).contains(&count), "{count} of {place}");
            for word in &words {
                let hidden = word.iter().filter(|&&place| chosen[place]).count();
                assert!(hidden == 0 || hidden == word.len());
            }
            let pairs = words
                .windows(2)
                .filter(|w| chosen[w[0][0]] && chosen[w[1][0]]);
            long_runs += pairs.count();
        }
        // Single words alone would meet at random in about 0.15² · 59 pairs a step, 265 in all.
        assert!(long_runs > 500, "{long_runs}");
    }
}
