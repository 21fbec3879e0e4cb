//! Rules that change one row of logits before a token is chosen.
//!
//! A row is worked on in double precision: cut-offs compare sums of thousands of small probabilities. A removed token has the
//! logit minus infinity, so its probability is exactly 0; cut-offs drop such tokens from the row, so that what follows them
//! works on the few that are left.

use super::Row;

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
    /// Applies the rule to one row.
    pub fn apply(&self, row: &mut Row, history: &History<'_>) {
        match self {
            Self::RepetitionPenalty(penalty) => repetition_penalty(row, history.ids, *penalty),
            Self::LogitBias(biases) => {
                for &(id, bias) in biases {
                    row.change(id, |logit| logit + bias);
                }
            }
            Self::GeneratedPenalty {
                frequency,
                presence,
            } => generated_penalty(row, history, *frequency, *presence),
            Self::NoRepeatNgram(n) => no_repeat_ngram(row, history.ids, *n),
            Self::BadWords(sequences) => bad_words(row, history.ids, sequences),
            Self::MinNewTokens { count, end_ids } => {
                if history.new_tokens() < *count {
                    end_ids.iter().for_each(|&id| row.remove(id));
                }
            }
            Self::Temperature(temperature) => row.divide(*temperature),
            Self::TopK(k) => top_k(row, *k),
            Self::TopP(p) => top_p(row, *p),
            Self::MinP(fraction) => {
                // p >= fraction * largest p, in logarithms.
                let least = row.largest() + fraction.ln();
                row.keep(|_, logit| logit >= least);
            }
            Self::TypicalP(mass) => typical(row, *mass),
            Self::EpsilonCutoff(epsilon) => cut_off(row, |_| *epsilon),
            Self::EtaCutoff(epsilon) => {
                cut_off(row, |probs| {
                    epsilon.min(epsilon.sqrt() * (-entropy(probs)).exp())
                });
            }
        }
    }
}

fn repetition_penalty(row: &mut Row, ids: &[u32], penalty: f64) {
    // An id that was seen twice is penalised once.
    let mut seen = ids.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        row.change(id, |logit| {
            if logit < 0.0 {
                logit * penalty
            } else {
                logit / penalty
            }
        });
    }
}

fn generated_penalty(row: &mut Row, history: &History<'_>, frequency: f64, presence: f64) {
    let mut generated = history.ids[history.prompt_len.min(history.ids.len())..].to_vec();
    generated.sort_unstable();
    for run in generated.chunk_by(|a, b| a == b) {
        let penalty = frequency * run.len() as f64 + presence;
        row.change(run[0], |logit| logit - penalty);
    }
}

fn no_repeat_ngram(row: &mut Row, ids: &[u32], n: usize) {
    if n == 0 || ids.len() < n {
        return;
    }
    let tail = &ids[ids.len() + 1 - n..];
    for ngram in ids.windows(n) {
        if &ngram[..n - 1] == tail {
            row.remove(ngram[n - 1]);
        }
    }
}

fn bad_words(row: &mut Row, ids: &[u32], sequences: &[Vec<u32>]) {
    for sequence in sequences {
        if let Some((&last, before)) = sequence.split_last()
            && ids.ends_with(before)
        {
            row.remove(last);
        }
    }
}

fn top_k(row: &mut Row, k: usize) {
    if k == 0 || k >= row.logits().len() {
        return;
    }
    let kth = kth_largest(row.logits(), k);
    row.keep(|_, logit| logit >= kth);
}

/// The `k`-th largest of more than `k` values, from 1 on.
fn kth_largest(values: &[f64], k: usize) -> f64 {
    // The best so far, and the k-th of them: nearly all values lie below it and cost one comparison.
    let room = 2 * k.max(64);
    let mut best = Vec::with_capacity(room);
    let mut kth = f64::NEG_INFINITY;
    for &value in values {
        if value > kth {
            best.push(value);
            if best.len() == room {
                kth = cut_to(&mut best, k);
            }
        }
    }
    if best.len() < k {
        // All others are minus infinity.
        return kth;
    }
    cut_to(&mut best, k)
}

/// Leaves the `k` largest values and returns the least of them.
fn cut_to(values: &mut Vec<f64>, k: usize) -> f64 {
    let (_, kth, _) = values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let kth = *kth;
    values.truncate(k);
    kth
}

/// Goes through the places from the largest key to the smallest (of equal ones the first place first) and returns the one with
/// which the sum of their probabilities reaches `mass`; `None` when even all of them don't.
fn reaching(keys: &[f64], probs: &[f64], mass: f64) -> Option<usize> {
    const FEW: usize = 256;
    let order = |a: &usize, b: &usize| keys[*b].total_cmp(&keys[*a]).then(a.cmp(b));
    let walk = |places: &mut [usize], mut sum: f64| {
        places.sort_unstable_by(order);
        places.iter().copied().find(|&place| {
            sum += probs[place];
            sum >= mass
        })
    };
    if keys.len() > FEW {
        // A few tokens hold most of the mass, as a rule.
        let least = kth_largest(keys, FEW);
        let mut best: Vec<usize> = (0..keys.len()).filter(|&i| keys[i] >= least).collect();
        let found = walk(&mut best, 0.0);
        if found.is_some() {
            return found;
        }
    }
    // Where they don't, the half in which the sum passes the mass is halved again.
    let mut places: Vec<usize> = (0..keys.len()).collect();
    let mut rest = &mut places[..];
    let mut before = 0.0;
    while rest.len() > FEW {
        let middle = rest.len() / 2;
        rest.select_nth_unstable_by(middle, order);
        let (upper, lower) = rest.split_at_mut(middle);
        let sum = before + upper.iter().map(|&place| probs[place]).sum::<f64>();
        rest = if sum >= mass {
            upper
        } else {
            before = sum;
            lower
        };
    }
    walk(rest, before)
}

fn top_p(row: &mut Row, p: f64) {
    if p >= 1.0 {
        return;
    }
    let probs = row.probabilities();
    if let Some(last) = reaching(&probs, &probs, p) {
        let least = probs[last];
        row.keep(|place, _| probs[place] > least || probs[place] == least && place <= last);
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

fn typical(row: &mut Row, mass: f64) {
    let probs = row.probabilities();
    let entropy = entropy(&probs);
    // How close the information of a token is to the mean information; removed tokens are infinitely far.
    let closeness: Vec<f64> = probs
        .iter()
        .map(|p| {
            if *p > 0.0 {
                -(-p.ln() - entropy).abs()
            } else {
                f64::NEG_INFINITY
            }
        })
        .collect();
    if let Some(last) = reaching(&closeness, &probs, mass) {
        row.keep(|place, _| closeness[place] >= closeness[last]);
    }
}

fn cut_off(row: &mut Row, threshold: impl Fn(&[f64]) -> f64) {
    let probs = row.probabilities();
    let threshold = threshold(&probs);
    let best = probs.iter().copied().fold(0.0, f64::max);
    row.keep(|place, _| probs[place] >= threshold || probs[place] == best);
}
