//! Rules that change one row of logits before a token is chosen.
//!
//! A row is worked on in double precision: cut-offs compare sums of thousands of small probabilities, and the row is tiny
//! next to the product that made it. A removed token has the logit minus infinity, so its probability is exactly 0.

use std::cmp::Ordering;

/// What has been said so far.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// Ids of the prompt and of the tokens generated since, oldest first.
    pub ids: &'a [u32],
    /// How many of them are the prompt.
    pub prompt_len: usize,
}

impl History<'_> {
    /// Number of tokens generated so far.
    pub fn new_tokens(&self) -> usize {
        self.ids.len().saturating_sub(self.prompt_len)
    }
}

/// One rule. Rules apply in the order in which they are listed; the order matters.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Adds to the logits of these ids; ids outside the vocabulary are passed over.
    LogitBias(Vec<(u32, f64)>),
    /// Lowers the logits of ids generated before (the prompt does not count).
    GeneratedPenalty {
        /// Once for every occurrence.
        frequency: f64,
        /// Once, however often.
        presence: f64,
    },
    /// Divides positive and multiplies negative logits of every id in the history by this factor (Keskar et al. 2019).
    RepetitionPenalty(f64),
    /// Removes every token that would complete an n-gram that the history already holds.
    NoRepeatNgram(usize),
    /// Removes the last token of each sequence when the history ends with the tokens before it.
    BadWords(Vec<Vec<u32>>),
    /// Removes the end tokens while fewer than this many tokens have been generated.
    MinNewTokens {
        /// Tokens to generate before an end token is allowed.
        count: usize,
        /// The end tokens.
        end_ids: Vec<u32>,
    },
    /// Divides the logits; below 1 sharpens, above 1 flattens.
    Temperature(f64),
    /// Keeps the k largest logits, and those equal to the k-th (Fan et al. 2018).
    TopK(usize),
    /// Keeps the smallest set of most probable tokens whose probabilities reach p (Holtzman et al. 2020).
    TopP(f64),
    /// Keeps tokens with at least this fraction of the largest probability (Nguyen et al. 2024).
    MinP(f64),
    /// Keeps the tokens whose information is closest to the entropy, up to this mass (Meister et al. 2023).
    TypicalP(f64),
    /// Keeps tokens with at least this probability, and always the best (Hewitt et al. 2022).
    EpsilonCutoff(f64),
    /// Keeps tokens with at least the probability min(ε, √ε · exp(−entropy)), and always the best (Hewitt et al. 2022).
    EtaCutoff(f64),
}

impl Filter {
    /// Applies the rule to one row of logits (`[V]`).
    pub fn apply(&self, logits: &mut [f64], history: &History<'_>) {
        match self {
            Self::RepetitionPenalty(penalty) => repetition_penalty(logits, history.ids, *penalty),
            Self::LogitBias(biases) => {
                for &(id, bias) in biases {
                    if let Some(logit) = logits.get_mut(id as usize) {
                        *logit += bias;
                    }
                }
            }
            Self::GeneratedPenalty {
                frequency,
                presence,
            } => generated_penalty(logits, history, *frequency, *presence),
            Self::NoRepeatNgram(n) => no_repeat_ngram(logits, history.ids, *n),
            Self::BadWords(sequences) => bad_words(logits, history.ids, sequences),
            Self::MinNewTokens { count, end_ids } => {
                if history.new_tokens() < *count {
                    end_ids.iter().for_each(|&id| remove(logits, id));
                }
            }
            Self::Temperature(temperature) => logits.iter_mut().for_each(|x| *x /= temperature),
            Self::TopK(k) => top_k(logits, *k),
            Self::TopP(p) => top_p(logits, *p),
            Self::MinP(fraction) => {
                let probs = softmax(logits);
                let threshold = fraction * probs.iter().copied().fold(0.0, f64::max);
                keep_where(logits, |i| probs[i] >= threshold);
            }
            Self::TypicalP(mass) => typical(logits, *mass),
            Self::EpsilonCutoff(epsilon) => cut_off(logits, |_| *epsilon),
            Self::EtaCutoff(epsilon) => {
                cut_off(logits, |probs| {
                    epsilon.min(epsilon.sqrt() * (-entropy(probs)).exp())
                });
            }
        }
    }
}

/// Probabilities of a row of logits (`[V]` to `[V]`). Minus infinity becomes exactly 0; a row without a finite logit becomes all
/// zeros.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return vec![0.0; logits.len()];
    }
    let mut probs: Vec<f64> = logits.iter().map(|x| (x - max).exp()).collect();
    let total: f64 = probs.iter().sum();
    probs.iter_mut().for_each(|p| *p /= total);
    probs
}

fn remove(logits: &mut [f64], id: u32) {
    if let Some(logit) = logits.get_mut(id as usize) {
        *logit = f64::NEG_INFINITY;
    }
}

fn keep_where(logits: &mut [f64], keep: impl Fn(usize) -> bool) {
    for (i, logit) in logits.iter_mut().enumerate() {
        if !keep(i) {
            *logit = f64::NEG_INFINITY;
        }
    }
}

fn repetition_penalty(logits: &mut [f64], ids: &[u32], penalty: f64) {
    // An id that was seen twice is penalised once.
    let mut seen = ids.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 {
                *logit * penalty
            } else {
                *logit / penalty
            };
        }
    }
}

fn generated_penalty(logits: &mut [f64], history: &History<'_>, frequency: f64, presence: f64) {
    let mut generated = history.ids[history.prompt_len.min(history.ids.len())..].to_vec();
    generated.sort_unstable();
    for run in generated.chunk_by(|a, b| a == b) {
        if let Some(logit) = logits.get_mut(run[0] as usize) {
            *logit -= frequency * run.len() as f64 + presence;
        }
    }
}

fn no_repeat_ngram(logits: &mut [f64], ids: &[u32], n: usize) {
    if n == 0 || ids.len() < n {
        return;
    }
    let tail = &ids[ids.len() + 1 - n..];
    for ngram in ids.windows(n) {
        if &ngram[..n - 1] == tail {
            remove(logits, ngram[n - 1]);
        }
    }
}

fn bad_words(logits: &mut [f64], ids: &[u32], sequences: &[Vec<u32>]) {
    for sequence in sequences {
        if let Some((&last, before)) = sequence.split_last()
            && ids.ends_with(before)
        {
            remove(logits, last);
        }
    }
}

fn descending(a: f64, b: f64) -> Ordering {
    b.total_cmp(&a)
}

fn top_k(logits: &mut [f64], k: usize) {
    if k == 0 || k >= logits.len() {
        return;
    }
    let mut values = logits.to_vec();
    let (_, kth, _) = values.select_nth_unstable_by(k - 1, |a, b| descending(*a, *b));
    let kth = *kth;
    keep_where_value(logits, |x| x >= kth);
}

fn keep_where_value(logits: &mut [f64], keep: impl Fn(f64) -> bool) {
    for logit in logits {
        if !keep(*logit) {
            *logit = f64::NEG_INFINITY;
        }
    }
}

fn top_p(logits: &mut [f64], p: f64) {
    if p >= 1.0 {
        return;
    }
    let probs = softmax(logits);
    let mut order: Vec<usize> = (0..probs.len()).filter(|&i| probs[i] > 0.0).collect();
    // Among equal probabilities the earlier id is preferred, as in greedy choice.
    let by_probability = |a: &usize, b: &usize| descending(probs[*a], probs[*b]).then(a.cmp(b));
    // A few tokens hold most of the mass: sort a short head first and lengthen it only when it does not reach p.
    let (mut sorted, mut cumulative, mut kept) = (0, 0.0, 0);
    let mut head = 256;
    while sorted < order.len() {
        let end = head.min(order.len());
        let rest = &mut order[sorted..];
        if end - sorted < rest.len() {
            rest.select_nth_unstable_by(end - sorted, by_probability);
        }
        order[sorted..end].sort_unstable_by(by_probability);
        for &i in &order[sorted..end] {
            // A token stays when those before it do not reach p yet; the first always stays.
            if kept > 0 && cumulative >= p {
                break;
            }
            cumulative += probs[i];
            kept += 1;
        }
        sorted = end;
        if kept < sorted {
            break;
        }
        head *= 8;
    }
    for &i in &order[kept..] {
        logits[i] = f64::NEG_INFINITY;
    }
}

/// Entropy in nats.
fn entropy(probs: &[f64]) -> f64 {
    -probs
        .iter()
        .filter(|&&p| p > 0.0)
        .map(|p| p * p.ln())
        .sum::<f64>()
}

fn typical(logits: &mut [f64], mass: f64) {
    let probs = softmax(logits);
    let entropy = entropy(&probs);
    // How far the information of a token is from the mean information; removed tokens are infinitely far.
    let distance: Vec<f64> = probs
        .iter()
        .map(|p| {
            if *p > 0.0 {
                (-p.ln() - entropy).abs()
            } else {
                f64::INFINITY
            }
        })
        .collect();
    let mut order: Vec<usize> = (0..probs.len()).collect();
    order.sort_by(|&a, &b| distance[a].total_cmp(&distance[b]));
    let mut cumulative = 0.0;
    let Some(threshold) = order.iter().find_map(|&i| {
        cumulative += probs[i];
        (cumulative >= mass).then_some(distance[i])
    }) else {
        return;
    };
    keep_where(logits, |i| distance[i] <= threshold);
}

fn cut_off(logits: &mut [f64], threshold: impl Fn(&[f64]) -> f64) {
    let probs = softmax(logits);
    let threshold = threshold(&probs);
    let best = probs.iter().copied().fold(0.0, f64::max);
    keep_where(logits, |i| probs[i] >= threshold || probs[i] == best);
}
