//! A model with its tokenizer: from text to text.

use std::path::Path;

use malmoi_models::{Direction, Head, Mode, Model, ModelError, OpenOptions, Precision};
use malmoi_text::{EncodeOptions, Tokenizer, Truncation};
use serde::Serialize;

use crate::InferError;
use crate::beam::{BeamOptions, beam_search};
use crate::embed::EmbedOptions;
use crate::fill_mask::{Sequence, fill_blanks};
use crate::generate::{FinishReason, Flow, GenerateOptions, generate};
use crate::masked_accuracy::{MaskedAccuracy, masked_accuracy};
use crate::perplexity::{Perplexity, WindowOptions, negative_log_likelihood};
use crate::text_stream::TextStream;

/// Tokens that go through an encoder together when a pipeline batches texts.
const TOKENS_PER_BATCH: usize = 2048;

/// Why a model directory cannot be used as a pipeline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer.
    #[error(transparent)]
    Text(#[from] malmoi_text::TextError),
    /// They do not fit together.
    #[error(transparent)]
    Mismatch(#[from] InferError),
}

/// A model with its tokenizer.
#[derive(Debug)]
pub struct Pipeline {
    /// The model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    end_ids: Vec<u32>,
}

/// What is tolerated when a pipeline is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct PipelineOptions {
    /// The head to open the model with; by default the one that `architectures` names.
    pub head: Option<Head>,
    /// Accept keys of `config.json` that are not known.
    pub accept_unknown_config: bool,
    /// Accept a tokenizer with fewer tokens than the model's vocabulary, beyond rounding up.
    pub accept_smaller_tokenizer: bool,
    /// Arithmetic of the model.
    pub precision: Precision,
}

/// A continued text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Continuation {
    /// The new text, without the prompt and without the stop string.
    pub text: String,
    /// The new tokens.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Natural logarithm of each token's probability; empty unless asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_probabilities: Vec<f64>,
    /// Score of a beam search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// A word for a blank.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filling {
    /// The token as the vocabulary writes it.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Its probability.
    pub probability: f64,
    /// The whole word that results, together with what stands next to the blank without a space.
    pub word: String,
    /// The text with this blank filled.
    pub text: String,
}

/// The vector of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Embedding {
    /// `d_model` values.
    pub vector: Vec<f32>,
    /// Tokens that went in, special ones included.
    pub tokens: usize,
    /// Whether the end of the text was cut off.
    pub truncated: bool,
}

impl Pipeline {
    /// Opens a model directory with its tokenizer.
    ///
    /// # Errors
    /// [`OpenError`]: the model, the tokenizer, or [`InferError::Vocabulary`].
    pub fn open(dir: &Path, options: &PipelineOptions) -> Result<Self, OpenError> {
        let tokenizer = Tokenizer::load(dir)?;
        let open = OpenOptions {
            head: options.head,
            mode: Mode::Inference,
            accept_unknown_config: options.accept_unknown_config,
            precision: options.precision,
            ..Default::default()
        };
        let model = Model::open(dir, &open)?;
        Ok(Self::with_options(model, tokenizer, options)?)
    }

    /// Puts a model and a tokenizer together.
    ///
    /// # Errors
    /// [`InferError::Vocabulary`] when they do not fit.
    pub fn new(model: Model, tokenizer: Tokenizer) -> Result<Self, InferError> {
        Self::with_options(model, tokenizer, &PipelineOptions::default())
    }

    fn with_options(
        model: Model,
        tokenizer: Tokenizer,
        options: &PipelineOptions,
    ) -> Result<Self, InferError> {
        let (have, need) = (tokenizer.vocab_size(), model.config().vocab_size());
        if have > need
            || (have < need && !options.accept_smaller_tokenizer && !is_rounded_up(have, need))
        {
            return Err(InferError::Vocabulary {
                tokenizer: have,
                largest: (have as u32).saturating_sub(1),
                model: need,
            });
        }
        let end_ids = tokenizer.special().eos.into_iter().collect();
        Ok(Self {
            model,
            tokenizer,
            end_ids,
        })
    }

    /// Tokens that end a text: the tokenizer's end token, if it has one.
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// Whether the model writes something new from a text instead of continuing it.
    pub fn transforms(&self) -> bool {
        self.model.direction() == Direction::EncoderDecoder
    }

    /// The ids of a prompt: those of the text with what the tokenizer puts before it, but not what it puts after it; of the source of
    /// an encoder-decoder, with both. An empty prompt becomes the token that starts (or else ends) texts.
    ///
    /// # Errors
    /// [`InferError::Text`]; [`InferError::EmptyPrompt`] for row `row` (from 0).
    pub fn prompt_ids(&self, text: &str, row: usize) -> Result<Vec<u32>, InferError> {
        let mut ids = self.tokenizer.encode_ids(text, true)?;
        let special = self.tokenizer.special();
        while !self.transforms()
            && ids.len() > 1
            && [special.eos, special.sep].contains(&ids.last().copied())
        {
            ids.pop();
        }
        if ids.is_empty() {
            ids.extend(special.bos.or(special.eos));
        }
        if ids.is_empty() {
            Err(InferError::EmptyPrompt { row: row + 1 })
        } else {
            Ok(ids)
        }
    }

    /// Continues each prompt. `on_text(row, text)` gets new text as soon as it is final, whole characters only, and says whether
    /// to go on. A text ends at an end token of `options` or at one of the `stop` strings.
    ///
    /// # Errors
    /// Those of [`generate`].
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        stop: &[String],
        on_text: &mut dyn FnMut(usize, &str) -> Flow,
    ) -> Result<Vec<Continuation>, InferError> {
        let mut rows = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            rows.push((TextStream::new(self, prompt, stop)?, String::new()));
        }
        let mut failure = None;
        let generated = generate(&self.model, prompts, options, &mut |step| {
            let (stream, text) = &mut rows[step.row];
            let (piece, stopped) = match stream.push(step.token) {
                Ok(pushed) => pushed,
                Err(error) => {
                    failure = Some(error);
                    return Flow::Cancel;
                }
            };
            text.push_str(&piece);
            let wish = if piece.is_empty() {
                Flow::Continue
            } else {
                on_text(step.row, &piece)
            };
            if stopped { Flow::Stop } else { wish }
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let mut all = Vec::with_capacity(rows.len());
        for (row, ((stream, mut text), generated)) in rows.into_iter().zip(generated).enumerate() {
            // Behind a stop string is text that must not be shown.
            let stopped_by_text = generated.finish_reason == FinishReason::Stop
                && generated
                    .ids
                    .last()
                    .is_none_or(|id| !options.end_ids.contains(id));
            if !stopped_by_text {
                let (rest, _) = stream.finish()?;
                if !rest.is_empty() {
                    on_text(row, &rest);
                    text.push_str(&rest);
                }
            }
            let log_probabilities = generated.log_probabilities;
            all.push(Continuation {
                text,
                ids: generated.ids,
                finish_reason: generated.finish_reason,
                log_probabilities,
                score: None,
            });
        }
        Ok(all)
    }

    /// The best continuations of each prompt by beam search, best first.
    ///
    /// # Errors
    /// Those of [`beam_search`].
    pub fn beam_search(
        &self,
        prompts: &[Vec<u32>],
        options: &BeamOptions,
    ) -> Result<Vec<Vec<Continuation>>, InferError> {
        let found = beam_search(&self.model, prompts, options)?;
        let mut all = Vec::with_capacity(found.len());
        for (prompt, hypotheses) in prompts.iter().zip(found) {
            let prompt = if self.transforms() { &[] } else { &prompt[..] };
            let before = self.tokenizer.decode(prompt, true)?;
            let mut texts = Vec::with_capacity(hypotheses.len());
            for hypothesis in hypotheses {
                let ids = [prompt, &hypothesis.ids].concat();
                let whole = self.tokenizer.decode(&ids, true)?;
                texts.push(Continuation {
                    text: whole
                        .strip_prefix(before.as_str())
                        .unwrap_or(&whole)
                        .to_owned(),
                    ids: hypothesis.ids,
                    finish_reason: if hypothesis.ended {
                        FinishReason::Stop
                    } else {
                        FinishReason::Length
                    },
                    log_probabilities: Vec::new(),
                    score: Some(hypothesis.score),
                });
            }
            all.push(texts);
        }
        Ok(all)
    }

    /// The `k` best words for every blank (mask token) of each text; each blank on its own. Special tokens are not offered.
    ///
    /// # Errors
    /// [`InferError::NoSpecialToken`], [`InferError::NoBlank`], [`InferError::TextTooLong`], those of [`fill_blanks`].
    pub fn fill_mask(
        &self,
        texts: &[&str],
        k: usize,
    ) -> Result<Vec<Vec<Vec<Filling>>>, InferError> {
        let special = self.tokenizer.special();
        let mask = special.mask.ok_or(InferError::NoSpecialToken {
            work: "filling blanks",
            token: "mask",
        })?;
        let max_len = self.model.config().max_len();
        let mut encodings = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            let encoding = self
                .tokenizer
                .encode(text, None, &EncodeOptions::default())?;
            if !encoding.ids.contains(&mask) {
                let mask = self.tokenizer.id_to_token(mask).unwrap_or_default();
                return Err(InferError::NoBlank { row: row + 1, mask });
            }
            if encoding.ids.len() > max_len {
                return Err(InferError::TextTooLong {
                    row: row + 1,
                    tokens: encoding.ids.len(),
                    max_len,
                });
            }
            encodings.push(encoding);
        }
        let sequence = |e: &malmoi_text::Encoding| Sequence {
            ids: e.ids.clone(),
            segments: e.type_ids.clone(),
        };
        let sequences: Vec<Sequence> = encodings.iter().map(sequence).collect();
        let blanks = fill_blanks(
            &self.model,
            &sequences,
            mask,
            k,
            special.ids(),
            TOKENS_PER_BATCH,
        )?;
        let mut all = Vec::with_capacity(texts.len());
        for ((text, encoding), blanks) in texts.iter().zip(&encodings).zip(blanks) {
            let mut fillings = Vec::with_capacity(blanks.len());
            for blank in blanks {
                let place = Place::new(text, encoding.byte_offsets[blank.position]);
                let candidates = blank.candidates.iter();
                fillings.push(
                    candidates
                        .map(|c| self.filling(&place, c.id, c.probability))
                        .collect::<Result<Vec<_>, _>>()?,
                );
            }
            all.push(fillings);
        }
        Ok(all)
    }

    /// What filling the bytes `place` of `text` with a token gives.
    ///
    /// # Errors
    /// [`InferError::Text`].
    ///
    /// # Panics
    /// When the place does not lie in the text, at the borders of characters.
    pub fn fill(
        &self,
        text: &str,
        place: (usize, usize),
        id: u32,
        probability: f64,
    ) -> Result<Filling, InferError> {
        self.filling(&Place::new(text, place), id, probability)
    }

    /// A token as it reads, without the mark that it continues a word.
    ///
    /// # Errors
    /// [`InferError::Text`].
    pub fn piece(&self, id: u32) -> Result<String, InferError> {
        let token = self.tokenizer.id_to_token(id).unwrap_or_default();
        let continued = token.strip_prefix("##");
        match continued.filter(|_| self.tokenizer.kind() == "WordPiece") {
            Some(piece) => Ok(piece.to_owned()),
            None => Ok(self.tokenizer.decode(&[id], false)?),
        }
    }

    fn filling(&self, place: &Place<'_>, id: u32, probability: f64) -> Result<Filling, InferError> {
        let token = self.tokenizer.id_to_token(id).unwrap_or_default();
        let continues = !self.tokenizer.starts_word(id);
        let piece = self.piece(id)?.trim().to_owned();
        Ok(Filling {
            id,
            probability,
            word: place.word(&piece, continues),
            text: place.text(&piece, continues),
            token,
        })
    }

    /// A vector for each text; what is longer than the model's positions is cut at the end, and the result says so.
    ///
    /// # Errors
    /// [`InferError::Text`], [`InferError::Batch`].
    pub fn embed(
        &self,
        texts: &[&str],
        options: &EmbedOptions,
    ) -> Result<Vec<Embedding>, InferError> {
        let max_len = self.model.config().max_len();
        let max_len = self
            .tokenizer
            .model_max_length()
            .map_or(max_len, |bound| bound.min(max_len));
        let max_len = options.max_len.map_or(max_len, |bound| bound.min(max_len));
        let encode = EncodeOptions {
            truncation: Some(Truncation::to(max_len)),
            ..EncodeOptions::default()
        };
        let pairs: Vec<(&str, Option<&str>)> = texts.iter().map(|text| (*text, None)).collect();
        let encodings = self.tokenizer.encode_batch(&pairs, &encode)?;
        let mut sequences: Vec<&[u32]> = encodings.iter().map(|e| e.ids.as_slice()).collect();
        // A decoder's tokenizer adds nothing to an empty text; the token that starts texts stands for it.
        let start: Vec<u32> = self
            .tokenizer
            .special()
            .bos
            .or(self.tokenizer.special().eos)
            .into_iter()
            .collect();
        sequences
            .iter_mut()
            .filter(|ids| ids.is_empty())
            .for_each(|ids| *ids = &start);
        let vectors = crate::embed::embed(&self.model, &sequences, options)?;
        let result = |(vector, e): (Vec<f32>, &malmoi_text::Encoding)| Embedding {
            vector,
            tokens: e.ids.len(),
            truncated: !e.overflowing.is_empty(),
        };
        Ok(vectors.into_iter().zip(&encodings).map(result).collect())
    }

    /// Perplexity of a text under a decoder. The first token, which nothing precedes, is not scored.
    ///
    /// # Errors
    /// Those of [`negative_log_likelihood`].
    pub fn perplexity(
        &self,
        text: &str,
        options: &WindowOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Perplexity, InferError> {
        let encoding = self.tokenizer.encode(text, None, &EncodeOptions::plain())?;
        let nats = negative_log_likelihood(&self.model, &[&encoding.ids], options, progress)?;
        let scored = &text[encoding.byte_offsets[0].1..];
        Ok(Perplexity {
            tokens: encoding.ids.len() - 1,
            words: scored.split_whitespace().count(),
            bytes: scored.len(),
            nats,
        })
    }

    /// Perplexity of documents that have nothing to do with each other. Each begins with the token that starts texts, so that its first
    /// token is scored too; without such a token that one is left out, and so are documents of a single token.
    ///
    /// # Errors
    /// Those of [`negative_log_likelihood`].
    pub fn perplexity_of_documents(
        &self,
        documents: &[&str],
        options: &WindowOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Perplexity, InferError> {
        let special = self.tokenizer.special();
        let first = special.bos.or(special.eos);
        let pairs: Vec<(&str, Option<&str>)> = documents.iter().map(|text| (*text, None)).collect();
        let encodings = self
            .tokenizer
            .encode_batch(&pairs, &EncodeOptions::plain())?;
        let mut found = Perplexity {
            tokens: 0,
            words: 0,
            bytes: 0,
            nats: 0.0,
        };
        let mut texts = Vec::with_capacity(documents.len());
        for (encoding, text) in encodings.into_iter().zip(documents) {
            let ids: Vec<u32> = first.into_iter().chain(encoding.ids).collect();
            if ids.len() < 2 {
                continue;
            }
            let unscored = match first {
                Some(_) => 0,
                None => encoding.byte_offsets[0].1,
            };
            found.tokens += ids.len() - 1;
            found.words += text[unscored..].split_whitespace().count();
            found.bytes += text[unscored..].len();
            texts.push(ids);
        }
        found.nats = negative_log_likelihood(&self.model, &texts, options, progress)?;
        Ok(found)
    }

    /// Masked accuracy of an encoder on texts: 15 % of the tokens hidden, as in BERT's training. Long texts are cut.
    ///
    /// # Errors
    /// Those of [`masked_accuracy`], [`InferError::NoSpecialToken`].
    pub fn masked_accuracy(&self, texts: &[&str], seed: u64) -> Result<MaskedAccuracy, InferError> {
        let special = self.tokenizer.special();
        let mask = special.mask.ok_or(InferError::NoSpecialToken {
            work: "masked accuracy",
            token: "mask",
        })?;
        let pairs: Vec<(&str, Option<&str>)> = texts.iter().map(|text| (*text, None)).collect();
        let encodings = self.tokenizer.encode_batch(
            &pairs,
            &EncodeOptions::truncated(self.model.config().max_len()),
        )?;
        let sequences = encodings
            .into_iter()
            .map(|e| Sequence {
                ids: e.ids,
                segments: e.type_ids,
            })
            .collect::<Vec<_>>();
        masked_accuracy(
            &self.model,
            &sequences,
            mask,
            special.ids(),
            (0.15, seed),
            TOKENS_PER_BATCH,
        )
    }
}

/// Whether `model` is `tokenizer` rounded up to a multiple of a power of two from 8 to 1,024, as vocabularies are padded for speed.
fn is_rounded_up(tokenizer: usize, model: usize) -> bool {
    (3..=10).any(|power| tokenizer.next_multiple_of(1 << power) == model)
}

/// Where a blank stands in its text.
struct Place<'a> {
    before: &'a str,
    after: &'a str,
}

impl<'a> Place<'a> {
    fn new(text: &'a str, (start, end): (usize, usize)) -> Self {
        // Some mask tokens swallow the space before them.
        let written = text[start..end].trim_start();
        Self {
            before: &text[..end - written.len()],
            after: &text[end..],
        }
    }

    fn before(&self, continues: bool) -> &'a str {
        if continues {
            self.before.trim_end()
        } else {
            self.before
        }
    }

    fn text(&self, piece: &str, continues: bool) -> String {
        [self.before(continues), piece, self.after].concat()
    }

    fn word(&self, piece: &str, continues: bool) -> String {
        let before = self.before(continues);
        let is_letter = |c: char| c.is_alphanumeric();
        if !piece.chars().any(is_letter) {
            return piece.to_owned();
        }
        let start = before.trim_end_matches(is_letter).len();
        let end = self.after.len() - self.after.trim_start_matches(is_letter).len();
        [&before[start..], piece, &self.after[..end]].concat()
    }
}
