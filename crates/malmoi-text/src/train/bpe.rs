//! Byte-pair merges (Sennrich et al., 2016) for WordPiece and byte-level BPE.
//!
//! The most frequent pair of neighbours is merged until the vocabulary is full. Of equally frequent pairs the one with the
//! smaller ids goes first, so the result is a function of the counts alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::{Algorithm, Alphabet, TrainOptions, unknown};
use crate::Progress;
use crate::error::{Result, TextError};
use crate::tokenizer::spec;

type Pair = (u32, u32);

/// Stands for a character outside the alphabet: nothing merges over it.
const GAP: u32 = u32::MAX;
/// Prefix of a WordPiece that continues a word.
const CONTINUES: &str = "##";
/// Words per task when pairs are counted; fixed, so that the work is cut the same way for any number of threads.
const CHUNK: usize = 16_384;

pub(super) fn train(
    words: &[(String, u64)],
    alphabet: &Alphabet,
    special: &[String],
    options: &TrainOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value> {
    let wordpiece = options.algorithm == Algorithm::WordPiece;
    let mut vocab = Vocab::default();
    for token in special {
        vocab.id(token);
    }
    for c in &alphabet.kept {
        vocab.id(c.encode_utf8(&mut [0; 4]));
    }
    if wordpiece {
        // Characters that occur inside words get their continuing form, in the order of the alphabet.
        let inside: HashSet<char> = words.iter().flat_map(|(w, _)| w.chars().skip(1)).collect();
        for c in alphabet.kept.iter().filter(|c| inside.contains(c)) {
            vocab.id(&format!("{CONTINUES}{c}"));
        }
    }
    if vocab.tokens.len() > options.vocab_size {
        return Err(TextError::Training(format!(
            "the special tokens and the alphabet take {} entries, vocab_size is {}; raise it, or set a smaller \
             limit_alphabet",
            vocab.tokens.len(),
            options.vocab_size
        )));
    }
    let mut state = Merger::new(words, &vocab, wordpiece);
    let mut merges = Vec::new();
    let room = (options.vocab_size - vocab.tokens.len()) as u64;
    while vocab.tokens.len() < options.vocab_size {
        let Some((pair, _)) = state.next_pair(options.min_frequency.max(1)) else {
            break;
        };
        let (left, right) = (
            vocab.tokens[pair.0 as usize].clone(),
            vocab.tokens[pair.1 as usize].clone(),
        );
        let tail = match wordpiece {
            true => right.strip_prefix(CONTINUES).unwrap_or(&right),
            false => &right,
        };
        let merged = vocab.id(&format!("{left}{tail}"));
        state.merge(pair, merged);
        merges.push((left, right));
        if merges.len() % 256 == 0 {
            progress(Progress {
                stage: "merge pairs",
                done: merges.len() as u64,
                total: Some(room),
            });
        }
    }
    progress(Progress {
        stage: "merge pairs",
        done: room,
        total: Some(room),
    });
    let map: Map<String, Value> = vocab
        .tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    Ok(if wordpiece {
        spec::wordpiece(map, unknown(options).unwrap_or("[UNK]"))
    } else {
        spec::bpe(map, &merges, None, None)
    })
}

/// Tokens by id, and ids by token.
#[derive(Default)]
struct Vocab {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Vocab {
    /// The id of a token; a new one when it is not known yet.
    fn id(&mut self, token: &str) -> u32 {
        if let Some(&id) = self.ids.get(token) {
            return id;
        }
        let id = self.tokens.len() as u32;
        self.tokens.push(token.to_owned());
        self.ids.insert(token.to_owned(), id);
        id
    }
}

/// The words as symbols, and the counts of neighbouring pairs.
struct Merger {
    words: Vec<Vec<u32>>,
    counts: Vec<u64>,
    pairs: HashMap<Pair, PairStats>,
    /// Candidates; an entry is stale when its count is not the pair's count any more.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

/// How often a pair occurs, and in which words (possibly words where it no longer does).
#[derive(Default)]
struct PairStats {
    count: u64,
    words: Vec<u32>,
}

impl Merger {
    fn new(words: &[(String, u64)], vocab: &Vocab, wordpiece: bool) -> Self {
        let symbols: Vec<Vec<u32>> = words
            .par_iter()
            .map(|(word, _)| {
                word.char_indices()
                    .map(|(at, c)| {
                        let plain = c.encode_utf8(&mut [0; 4]).to_owned();
                        let form = if wordpiece && at > 0 {
                            format!("{CONTINUES}{plain}")
                        } else {
                            plain
                        };
                        vocab.ids.get(&form).copied().unwrap_or(GAP)
                    })
                    .collect()
            })
            .collect();
        let counts: Vec<u64> = words.iter().map(|(_, count)| *count).collect();
        // Each chunk counts its own words; sums do not depend on their order, and the lists of words are put together in
        // the order of the chunks.
        let partial: Vec<HashMap<Pair, PairStats>> = symbols
            .par_chunks(CHUNK)
            .enumerate()
            .map(|(chunk, words)| {
                let mut pairs: HashMap<Pair, PairStats> = HashMap::new();
                for (index, word) in words.iter().enumerate() {
                    let index = (chunk * CHUNK + index) as u32;
                    for pair in neighbours(word) {
                        let stats = pairs.entry(pair).or_default();
                        stats.count += counts[index as usize];
                        if stats.words.last() != Some(&index) {
                            stats.words.push(index);
                        }
                    }
                }
                pairs
            })
            .collect();
        let mut pairs: HashMap<Pair, PairStats> = HashMap::new();
        for part in partial {
            for (pair, stats) in part {
                let whole = pairs.entry(pair).or_default();
                whole.count += stats.count;
                whole.words.extend(stats.words);
            }
        }
        let queue = pairs
            .iter()
            .map(|(&pair, stats)| (stats.count, Reverse(pair)))
            .collect();
        Self {
            words: symbols,
            counts,
            pairs,
            queue,
        }
    }

    /// The most frequent pair, if it occurs often enough.
    fn next_pair(&mut self, min_frequency: u64) -> Option<(Pair, u64)> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.pairs.get(&pair).map_or(0, |stats| stats.count);
            if now == count {
                if count < min_frequency {
                    return None;
                }
                return Some((pair, count));
            }
            if now > 0 && now < count {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    /// Replaces a pair by one symbol everywhere.
    fn merge(&mut self, pair: Pair, merged: u32) {
        let Some(stats) = self.pairs.remove(&pair) else {
            return;
        };
        // Net change of each pair, and the words in which new pairs appeared.
        let mut changes: HashMap<Pair, (i64, Vec<u32>)> = HashMap::new();
        for index in stats.words {
            let word = &mut self.words[index as usize];
            if !neighbours(word).any(|p| p == pair) {
                continue;
            }
            let weight = self.counts[index as usize] as i64;
            for old in neighbours(word) {
                changes.entry(old).or_default().0 -= weight;
            }
            let mut write = 0;
            let mut read = 0;
            while read < word.len() {
                let is_pair = read + 1 < word.len() && (word[read], word[read + 1]) == pair;
                word[write] = if is_pair { merged } else { word[read] };
                write += 1;
                read += 1 + usize::from(is_pair);
            }
            word.truncate(write);
            for new in neighbours(word) {
                let change = changes.entry(new).or_default();
                change.0 += weight;
                if (new.0 == merged || new.1 == merged) && change.1.last() != Some(&index) {
                    change.1.push(index);
                }
            }
        }
        for (changed, (delta, words)) in changes {
            if changed == pair || (delta == 0 && words.is_empty()) {
                continue;
            }
            let stats = self.pairs.entry(changed).or_default();
            stats.count = stats.count.saturating_add_signed(delta);
            let has_grown = delta > 0;
            stats.words.extend(words);
            if stats.count == 0 {
                self.pairs.remove(&changed);
            } else if has_grown {
                let count = stats.count;
                self.queue.push((count, Reverse(changed)));
            }
        }
    }
}

/// Neighbouring symbols of a word; none over a gap.
fn neighbours(word: &[u32]) -> impl Iterator<Item = Pair> + '_ {
    word.windows(2)
        .map(|pair| (pair[0], pair[1]))
        .filter(|&(a, b)| a != GAP && b != GAP)
}
