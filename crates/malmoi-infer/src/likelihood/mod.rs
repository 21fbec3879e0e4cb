//! How probable a text is behind another one, under any kind of language model.
//!
//! - A decoder says it token by token: the sum of `log p(token | everything before it)`.
//! - An encoder-decoder says it of a target, given the context as its source.
//! - A masked language model has no such probability; its pseudo-log-likelihood takes its place (Salazar et al. 2020): each token of
//!   the text is hidden in turn and predicted from everything else.
//!
//! Texts are scored in packed batches; a context that several texts share goes through the model once. What comes out does not depend
//! on how many tokens a batch holds, beyond the rounding of sums taken in another order.

mod causal;
mod masked;
mod targets;
#[cfg(test)]
mod tests;

use malmoi_models::{Direction, Head};
use malmoi_text::{EncodeOptions, Encoding};
use rayon::prelude::*;

use crate::generate::log_probability;
use crate::sampling::SamplingError;
use crate::{InferError, Pipeline, describe};

/// Logits that are held at once: 128 MiB of them.
const LOGITS: usize = 1 << 25;

/// How a masked language model scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pseudo {
    /// One token is hidden at a time (Salazar et al. 2020).
    #[default]
    Token,
    /// The rest of its word is hidden with it, so that a rare word of many pieces does not look probable because each piece gives the
    /// others away (Kauf and Ivanova 2023).
    Word,
}

/// How texts are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreOptions {
    /// Tokens that go through the model together, at most (a longer text goes alone).
    pub tokens_per_batch: usize,
    /// How a masked language model scores.
    pub pseudo: Pseudo,
}

impl Default for ScoreOptions {
    fn default() -> Self {
        Self {
            tokens_per_batch: 2048,
            pseudo: Pseudo::Token,
        }
    }
}

/// The score of a text behind a context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Natural logarithm of the probability of its tokens, or the pseudo-log-likelihood.
    pub log_likelihood: f64,
    /// Tokens scored.
    pub tokens: usize,
    /// Whether each of them was the most probable one.
    pub greedy: bool,
    /// Whether the context lost its beginning because both together are longer than the model's positions.
    pub truncated: bool,
    /// Whether the first token is not scored because nothing stands before it and the tokenizer has no token that starts texts.
    pub without_first: bool,
}

/// A context and what should follow it, as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Pair {
    /// What stands before (of an encoder-decoder: the source).
    context: Vec<u32>,
    /// What is scored.
    target: Vec<u32>,
    /// What stands behind: end tokens that encoders expect.
    after: Vec<u32>,
}

/// A context and a text within the model's positions, and what had to give way.
struct Fitted {
    pair: Pair,
    /// Whether the context was cut.
    truncated: bool,
    /// Whether the first token of the text had to become context.
    without_first: bool,
}

/// The sum over the tokens of a target.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sum {
    log_likelihood: f64,
    greedy: bool,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            log_likelihood: 0.0,
            greedy: true,
        }
    }
}

impl Sum {
    fn add(&mut self, (log_probability, greedy): (f64, bool)) {
        self.log_likelihood += log_probability;
        self.greedy &= greedy;
    }
}

/// Logarithm of the probability of a target in each row of logits `[M, V]`, and whether it is the most probable token.
fn target_scores(logits: &[f32], targets: &[u32]) -> Result<Vec<(f64, bool)>, InferError> {
    let vocab_size = logits.len() / targets.len().max(1);
    (logits.par_chunks_exact(vocab_size.max(1)))
        .zip(targets)
        .map(|(row, &target)| {
            let log_probability = log_probability(row, target);
            if !log_probability.is_finite() {
                let (id, value) = (target as usize, row[target as usize]);
                return Err(SamplingError::NotFinite { id, value }.into());
            }
            let best = row[target as usize];
            // Of equal logits the first counts as the most probable.
            let before = row[..target as usize].iter().all(|x| *x < best);
            let greedy = before && row[target as usize + 1..].iter().all(|x| *x <= best);
            Ok((log_probability, greedy))
        })
        .collect()
}

/// The cost of a sequence towards a budget of tokens, when the logits of `rows` of its tokens are wanted too.
fn cost(tokens: usize, rows: usize, tokens_per_batch: usize, vocab_size: usize) -> usize {
    tokens.max((rows * vocab_size * tokens_per_batch).div_ceil(LOGITS))
}

/// The cost of a context that goes through the model once, with the texts behind it.
fn group_cost(pairs: &[Pair], tokens_per_batch: usize, vocab_size: usize) -> usize {
    let rows: usize = pairs.iter().map(|pair| pair.target.len()).sum();
    let tokens = pairs[0].context.len() + rows;
    cost(tokens, rows, tokens_per_batch, vocab_size)
}

/// The texts of some groups, each with the number of its group among these.
fn members(groups: &[std::ops::Range<usize>]) -> Vec<(usize, usize)> {
    let groups = groups.iter().enumerate();
    groups
        .flat_map(|(slot, group)| group.clone().map(move |index| (slot, index)))
        .collect()
}

/// Runs of neighbours with the same context.
fn groups(pairs: &[Pair]) -> Vec<std::ops::Range<usize>> {
    let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, pair) in pairs.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if pairs[group.start].context == pair.context => group.end = i + 1,
            _ => groups.push(i..i + 1),
        }
    }
    groups
}

impl Pipeline {
    /// Scores each text behind its context: `(context, text)`. The tokens of the text are those of context and text written together
    /// that reach into the text; of an encoder-decoder, those of the text alone. `progress` is told how many texts are done.
    ///
    /// # Errors
    /// [`InferError::WrongModel`] for a model without a language-model head, [`InferError::TextTooLong`] for a text that does not fit
    /// the model's positions, [`InferError::TooShort`] for one without tokens, [`InferError::NoSpecialToken`], [`InferError::Batch`].
    pub fn likelihoods(
        &self,
        texts: &[(&str, &str)],
        options: &ScoreOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Scored>, InferError> {
        let (direction, head) = (self.model.config().direction(), self.model.head());
        let masked = matches!(head, Head::MaskedLm | Head::Pretraining);
        let found = (self.pairs(texts).into_iter()).collect::<Result<Vec<_>, _>>()?;
        let (pairs, notes): (Vec<Pair>, Vec<_>) = found
            .into_iter()
            .map(|fitted| (fitted.pair, (fitted.truncated, fitted.without_first)))
            .unzip();
        let sums = match (direction, head) {
            (Direction::Decoder, Head::CausalLm | Head::DoubleHeads) => {
                causal::score(&self.model, &pairs, options, progress)?
            }
            (Direction::EncoderDecoder, Head::Seq2SeqLm) => {
                targets::score(&self.model, &pairs, options, progress)?
            }
            (Direction::Encoder, _) if masked => self.masked(&pairs, options, progress)?,
            _ => {
                return Err(InferError::WrongModel {
                    work: "scoring text",
                    expected: "a language-model head (GPT-2, T5, or BERT with its masked-language-model head)",
                    found: describe(&self.model),
                });
            }
        };
        let results = sums.iter().zip(&pairs).zip(notes);
        Ok(results
            .map(|((sum, pair), (truncated, without_first))| Scored {
                log_likelihood: sum.log_likelihood,
                greedy: sum.greedy,
                tokens: pair.target.len(),
                truncated,
                without_first,
            })
            .collect())
    }

    /// Which texts [`Pipeline::likelihoods`] can score: those that fit the model's positions.
    ///
    /// # Errors
    /// Those of the tokenizer, [`InferError::TooShort`].
    pub fn fitting(&self, texts: &[(&str, &str)]) -> Result<Vec<bool>, InferError> {
        let pairs = self.pairs(texts).into_iter();
        pairs
            .map(|pair| match pair {
                Ok(_) => Ok(true),
                Err(InferError::TextTooLong { .. }) => Ok(false),
                Err(error) => Err(error),
            })
            .collect()
    }

    /// Tokens of contexts and texts, as the model reads them.
    fn pairs(&self, texts: &[(&str, &str)]) -> Vec<Result<Fitted, InferError>> {
        let direction = self.model.config().direction();
        let rows = texts.par_iter().enumerate();
        rows.map(|(row, (context, text))| match direction {
            Direction::EncoderDecoder => self.source_pair(context, text, row),
            Direction::Decoder | Direction::Encoder => self.joint_pair(context, text, row),
        })
        .collect()
    }

    /// Context and text in one sequence, as decoders and encoders read them.
    fn joint_pair(&self, context: &str, text: &str, row: usize) -> Result<Fitted, InferError> {
        let whole = [context, text].concat();
        let encoding = self
            .tokenizer
            .encode(&whole, None, &EncodeOptions::default())?;
        let (start, end) = written(&encoding);
        // A token that reaches over the border belongs to the text.
        let split = (start..end).find(|&i| encoding.byte_offsets[i].1 > context.len());
        let mut split = split.unwrap_or(end);
        let mut ids = encoding.ids.clone();
        let causal = self.model.config().direction() == Direction::Decoder;
        let (mut start, mut end) = (start, end);
        let mut without_first = false;
        if causal && split == 0 {
            let special = self.tokenizer.special();
            match special.bos.or(special.eos) {
                Some(first) => {
                    ids.insert(0, first);
                    (start, end, split) = (start + 1, end + 1, split + 1);
                }
                None => {
                    without_first = true;
                    split = 1;
                }
            }
        }
        if split >= end {
            return Err(InferError::TooShort {
                found: 0,
                expected: 1,
            });
        }
        // A decoder does not read the last token, it predicts it.
        let unread = usize::from(causal);
        let after = if causal { &[] } else { &ids[end..] };
        let max_len = self.model.config().max_len();
        let length = end + after.len() - unread;
        let surplus = length.saturating_sub(max_len);
        // What goes first is the beginning of the context; what the tokenizer puts before a text stays.
        if surplus > split - start || (causal && surplus == split) {
            return Err(InferError::TextTooLong {
                row: row + 1,
                tokens: end - split,
                max_len,
            });
        }
        let pair = Pair {
            context: [&ids[..start], &ids[start + surplus..split]].concat(),
            target: ids[split..end].to_vec(),
            after: after.to_vec(),
        };
        Ok(Fitted {
            pair,
            truncated: surplus > 0,
            without_first,
        })
    }

    /// The context as the source of an encoder-decoder and the text as its target.
    fn source_pair(&self, context: &str, text: &str, row: usize) -> Result<Fitted, InferError> {
        let encoding = self
            .tokenizer
            .encode(context, None, &EncodeOptions::default())?;
        let (start, end) = written(&encoding);
        let target = self.tokenizer.encode_ids(text, false)?;
        let max_len = self.model.config().max_len();
        if target.is_empty() {
            return Err(InferError::TooShort {
                found: 0,
                expected: 1,
            });
        }
        if target.len() > max_len {
            return Err(InferError::TextTooLong {
                row: row + 1,
                tokens: target.len(),
                max_len,
            });
        }
        let surplus = encoding.ids.len().saturating_sub(max_len).min(end - start);
        let mut source = encoding.ids;
        source.drain(start..start + surplus);
        if source.is_empty() {
            source.extend(self.tokenizer.special().eos);
        }
        let pair = Pair {
            context: source,
            target,
            after: Vec::new(),
        };
        Ok(Fitted {
            pair,
            truncated: surplus > 0,
            without_first: false,
        })
    }
}

/// Where the tokens of the text itself begin and end between those that the tokenizer puts around it.
fn written(encoding: &Encoding) -> (usize, usize) {
    let special = &encoding.special_tokens_mask;
    let start = special.iter().take_while(|flag| **flag == 1).count();
    let behind = special[start..].iter().rev().take_while(|flag| **flag == 1);
    (start, special.len() - behind.count())
}
