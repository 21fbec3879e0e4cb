//! Beam search.
//!
//! Each prompt keeps its best running hypotheses by summed log-probability. A step looks at the best extensions of all of
//! them; those that end are scored by sum / (generated tokens)^length_penalty and kept apart, the best others go on. The
//! rules for ties, for what may finish and for when a prompt is done are those of the widely used Python library, so that
//! a published checkpoint gives the same sequences and scores here.

use malmoi_models::{KvCache, Model};
use serde::{Deserialize, Serialize};

use crate::InferError;
use crate::generate::{beginnings, check, feed, prefill};
use crate::sampling::{Filter, History, Row, SamplingError, SamplingSettings, filtered};

/// What to search for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BeamOptions {
    /// Hypotheses kept for each prompt; 1 or more.
    pub num_beams: usize,
    /// Hypotheses returned for each prompt, best first; at most `num_beams`.
    pub num_return_sequences: usize,
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Exponent of the length that a summed log-probability is divided by; above 0 favours longer texts.
    pub length_penalty: f64,
    /// Stop as soon as `num_beams` hypotheses have ended; otherwise go on while a running one could still beat the worst of them.
    pub early_stopping: bool,
    /// Tokens that end a text.
    pub end_ids: Vec<u32>,
    /// Rules on the choice of tokens; only those that hold without drawing apply (penalties, n-grams, bad words, minimum length).
    pub sampling: SamplingSettings,
}

impl Default for BeamOptions {
    fn default() -> Self {
        Self {
            num_beams: 4,
            num_return_sequences: 1,
            max_new_tokens: 64,
            length_penalty: 1.0,
            early_stopping: false,
            end_ids: Vec::new(),
            sampling: SamplingSettings::default(),
        }
    }
}

impl BeamOptions {
    fn validate(&self) -> Result<(), InferError> {
        let wrong = |name, value: String, expected: String| {
            Err(InferError::Setting {
                name,
                value,
                expected,
            })
        };
        if self.num_beams == 0 {
            return wrong("num_beams", "0".into(), "1 or more".into());
        }
        if self.num_return_sequences == 0 || self.num_return_sequences > self.num_beams {
            let expected = format!("1 to num_beams = {}", self.num_beams);
            return wrong(
                "num_return_sequences",
                self.num_return_sequences.to_string(),
                expected,
            );
        }
        if !self.length_penalty.is_finite() {
            return wrong(
                "length_penalty",
                self.length_penalty.to_string(),
                "a finite number".into(),
            );
        }
        if self.sampling.do_sample {
            return wrong(
                "do_sample",
                "true".into(),
                "false with num_beams above 1: beam search does not draw".into(),
            );
        }
        self.sampling.validate()?;
        Ok(())
    }
}

/// One text found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hypothesis {
    /// The new tokens, the end token included.
    pub ids: Vec<u32>,
    /// Summed log-probability / (number of new tokens)^length_penalty.
    pub score: f64,
    /// Whether it ended with an end token; otherwise the length ended it.
    pub ended: bool,
}

/// A hypothesis that goes on: where its cache is, its tokens (prompt included) and their summed log-probability.
#[derive(Debug)]
struct Running {
    slot: usize,
    ids: Vec<u32>,
    sum: f64,
}

/// A prompt's state.
#[derive(Debug)]
struct Search {
    prompt_len: usize,
    max_new_tokens: usize,
    running: Vec<Running>,
    /// Best first, at most `num_beams`.
    finished: Vec<Hypothesis>,
    done: bool,
}

/// An extension of a running hypothesis by one token.
#[derive(Clone, Copy)]
struct Extension {
    beam: usize,
    token: u32,
    sum: f64,
}

/// The best hypotheses of each prompt, best first: `num_return_sequences` each. Prompts are ids of any lengths.
///
/// # Errors
/// Those of [`generate`](crate::generate::generate), and [`InferError::Setting`].
pub fn beam_search<S: AsRef<[u32]>>(
    model: &Model,
    prompts: &[S],
    options: &BeamOptions,
) -> Result<Vec<Vec<Hypothesis>>, InferError> {
    let mut search = BeamSearch::new(model, prompts, options.clone())?;
    while search.step(model)? {}
    Ok(search.finish())
}

/// A search that goes step by step, so that other work can come between.
#[derive(Debug)]
pub struct BeamSearch {
    options: BeamOptions,
    rules: Vec<Filter>,
    searches: Vec<Search>,
    cache: KvCache,
    logits: Vec<f32>,
}

impl BeamSearch {
    /// Reads the prompts.
    ///
    /// # Errors
    /// Those of [`beam_search`].
    pub fn new<S: AsRef<[u32]>>(
        model: &Model,
        prompts: &[S],
        options: BeamOptions,
    ) -> Result<Self, InferError> {
        check(model, prompts, options.max_new_tokens)?;
        options.validate()?;
        let max_len = model.config().position_limit();
        let start = |(slot, ids): (usize, Vec<u32>)| Search {
            prompt_len: ids.len(),
            max_new_tokens: options.max_new_tokens.min(max_len - ids.len()),
            running: vec![Running {
                slot,
                ids,
                sum: 0.0,
            }],
            finished: Vec::new(),
            done: false,
        };
        let searches = (beginnings(model, prompts).into_iter().enumerate())
            .map(start)
            .collect();
        let (cache, logits) = match prompts.is_empty() {
            true => (KvCache::default(), Vec::new()),
            false => prefill(model, prompts)?,
        };
        Ok(Self {
            rules: options.sampling.constraints(&options.end_ids),
            options,
            searches,
            cache,
            logits,
        })
    }

    /// Extends every running hypothesis by a token; whether there is more to do.
    ///
    /// # Errors
    /// Those of [`beam_search`].
    pub fn step(&mut self, model: &Model) -> Result<bool, InferError> {
        let vocab_size = model.config().vocab_size();
        for search in self.searches.iter_mut().filter(|search| !search.done) {
            search.step(&self.logits, vocab_size, &self.rules, &self.options)?;
        }
        // Lay the surviving hypotheses out one after another and make their caches follow.
        let mut slots = Vec::new();
        let mut tokens = Vec::new();
        for running in (self.searches.iter_mut())
            .filter(|search| !search.done)
            .flat_map(|search| &mut search.running)
        {
            slots.push(running.slot);
            running.slot = tokens.len();
            tokens.extend(running.ids.last());
        }
        if slots.is_empty() {
            return Ok(false);
        }
        self.cache.select(&slots);
        self.logits = feed(model, &mut self.cache, &tokens)?;
        Ok(true)
    }

    /// The best hypotheses of each prompt.
    pub fn finish(self) -> Vec<Vec<Hypothesis>> {
        let best = |mut search: Search| {
            search.finished.truncate(self.options.num_return_sequences);
            search.finished
        };
        self.searches.into_iter().map(best).collect()
    }
}

impl Search {
    /// Extends the running hypotheses by one token; `logits` (`[slots, V]`) are those after their last tokens.
    fn step(
        &mut self,
        logits: &[f32],
        vocab_size: usize,
        rules: &[Filter],
        options: &BeamOptions,
    ) -> Result<(), InferError> {
        let n = options.num_beams;
        // Enough extensions that n of them do not end, however many do.
        let extensions = self.best_extensions(
            (1 + options.end_ids.len().max(1)) * n,
            logits,
            vocab_size,
            rules,
        )?;
        if extensions.is_empty() && self.finished.is_empty() {
            return Err(SamplingError::NothingLeft.into());
        }
        let generated = self.running[0].ids.len() - self.prompt_len + 1;
        let last = generated >= self.max_new_tokens;
        let divisor = (generated as f64).powf(options.length_penalty);
        let mut running = Vec::with_capacity(n);
        for (rank, extension) in extensions.iter().enumerate() {
            let ends = options.end_ids.contains(&extension.token);
            if ends || last {
                // An ending that is not among the n best is neither kept nor continued.
                if rank < n {
                    self.finish(extension, extension.sum / divisor, ends);
                }
            } else if running.len() < n {
                let from = &self.running[extension.beam];
                let mut ids = from.ids.clone();
                ids.push(extension.token);
                running.push(Running {
                    slot: from.slot,
                    ids,
                    sum: extension.sum,
                });
            }
        }
        // A stable sort: of equal scores the one that ended earlier stays ahead.
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(n);
        self.running = running;
        let full = self.finished.len() >= n;
        let hopeless = || {
            let best_running = self
                .running
                .first()
                .map_or(f64::NEG_INFINITY, |best| best.sum / divisor);
            self.finished
                .last()
                .is_some_and(|worst| best_running <= worst.score)
        };
        self.done =
            last || self.running.is_empty() || (full && (options.early_stopping || hopeless()));
        Ok(())
    }

    fn finish(&mut self, extension: &Extension, score: f64, ended: bool) {
        let mut ids = self.running[extension.beam].ids[self.prompt_len..].to_vec();
        ids.push(extension.token);
        self.finished.push(Hypothesis { ids, score, ended });
    }

    /// The `count` extensions with the largest sums, best first; of equal sums the lower (beam, token) first.
    fn best_extensions(
        &self,
        count: usize,
        logits: &[f32],
        vocab_size: usize,
        rules: &[Filter],
    ) -> Result<Vec<Extension>, InferError> {
        let mut all = Vec::new();
        for (beam, running) in self.running.iter().enumerate() {
            let row = &logits[running.slot * vocab_size..(running.slot + 1) * vocab_size];
            let history = History {
                ids: &running.ids,
                prompt_len: self.prompt_len,
            };
            let mut scores = Row::new(log_softmax(filtered(row, &[], &history)?.logits()));
            rules
                .iter()
                .for_each(|rule| rule.apply(&mut scores, &history));
            // No beam gives more than all of them together.
            Filter::TopK(count).apply(&mut scores, &history);
            let open = scores
                .logits()
                .iter()
                .enumerate()
                .filter(|(_, score)| **score > f64::NEG_INFINITY);
            all.extend(open.map(|(place, score)| Extension {
                beam,
                token: scores.id(place),
                sum: running.sum + score,
            }));
        }
        let order = |a: &Extension, b: &Extension| {
            b.sum
                .total_cmp(&a.sum)
                .then((a.beam, a.token).cmp(&(b.beam, b.token)))
        };
        if count < all.len() {
            all.select_nth_unstable_by(count, order);
            all.truncate(count);
        }
        all.sort_unstable_by(order);
        Ok(all)
    }
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = max + logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    logits.iter().map(|x| x - log_sum).collect()
}
