//! Training tokenizers on files of any size.
//!
//! Text is streamed once and counted as pre-tokenised words; the counts stay inside a bound on memory. The algorithms then
//! work on the counts. Everything is ordered, so the same text gives the same vocabulary for any number of threads. (The
//! trainers of the `tokenizers` crate walk hash maps, so equal counts are broken differently in every run.)

mod bpe;
mod count;
mod unigram;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use count::CountReport;
use count::WordCounts;

use crate::Progress;
use crate::corpus::{CorpusOptions, DocumentMode, documents};
use crate::error::{Result, TextError};
use crate::normalizer::HangulSafe;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::char_of;
use crate::tokenizer::spec::{self, Part, Spec};

/// The algorithms that can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Subwords with `##`, BERT's tokenizer. Merges the most frequent pair, as the stock trainer does.
    WordPiece,
    /// Byte-pair encoding over bytes, GPT-2's tokenizer (Radford et al., 2019): nothing is ever unknown.
    Bpe,
    /// The unigram language model (Kudo, 2018), the tokenizer of T5.
    Unigram,
    /// One id a character.
    Char,
}

/// The special tokens and where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `[PAD] [UNK] [CLS] [SEP] [MASK]` (ids 0 to 4); texts become `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`.
    Bert,
    /// `<|endoftext|>` (id 0), added to no text.
    Gpt,
    /// `<pad> </s> <unk>` (ids 0 to 2); texts end with `</s>`.
    T5,
    /// `<s> <pad> </s> <unk> <mask>` (ids 0 to 4); texts become `<s> A </s>` and `<s> A </s> </s> B </s>`.
    Bart,
    /// No special token at all; an unknown character is an error.
    None,
}

/// What to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainOptions {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Size of the vocabulary, special tokens included. Training stops earlier when no pair is frequent enough.
    pub vocab_size: usize,
    /// Pairs (WordPiece, BPE) and characters seen less often are not learned.
    pub min_frequency: u64,
    /// Largest number of distinct characters; rarer ones are unknown. `None` keeps as many as cover 99.95 % of the text, at
    /// most a quarter of the vocabulary. Not for `bpe` (its alphabet is the 256 bytes); `char` keeps every character then.
    pub limit_alphabet: Option<usize>,
    /// Special tokens; `None` is the usual layout of the algorithm (Bert, Gpt, T5; none for `char`).
    pub layout: Option<Layout>,
    /// More special tokens, after those of the layout.
    pub extra_special: Vec<String>,
    /// Normalisation. `bpe` and `char` do not normalise unless this is given, so that every text survives a round trip.
    pub normalizer: Option<HangulSafe>,
    /// Bound on the memory of the word counts, in bytes.
    pub memory: usize,
    /// Unigram only: write characters without a piece as bytes (256 more entries) instead of the unknown token.
    pub byte_fallback: bool,
    /// Unigram only: longest piece, in characters.
    pub max_piece_length: usize,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::WordPiece,
            vocab_size: 8_000,
            min_frequency: 2,
            limit_alphabet: None,
            layout: None,
            extra_special: Vec::new(),
            normalizer: None,
            memory: 2 << 30,
            byte_fallback: false,
            max_piece_length: 16,
        }
    }
}

impl TrainOptions {
    /// The usual settings of an algorithm with a vocabulary of this size.
    pub fn new(algorithm: Algorithm, vocab_size: usize) -> Self {
        Self {
            algorithm,
            vocab_size,
            ..Self::default()
        }
    }

    fn layout(&self) -> Layout {
        self.layout.unwrap_or(match self.algorithm {
            Algorithm::WordPiece => Layout::Bert,
            Algorithm::Bpe => Layout::Gpt,
            Algorithm::Unigram => Layout::T5,
            Algorithm::Char => Layout::None,
        })
    }

    fn normalizer(&self) -> Option<HangulSafe> {
        match self.algorithm {
            Algorithm::WordPiece | Algorithm::Unigram => {
                Some(self.normalizer.unwrap_or(HangulSafe {
                    split_chinese: self.algorithm == Algorithm::WordPiece,
                    ..HangulSafe::default()
                }))
            }
            Algorithm::Bpe | Algorithm::Char => self.normalizer,
        }
    }

    /// Special tokens in id order.
    fn special(&self) -> Vec<String> {
        let mut tokens: Vec<String> = match self.layout() {
            Layout::Bert => vec!["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
            Layout::Gpt if matches!(self.algorithm, Algorithm::Bpe) => vec!["<|endoftext|>"],
            Layout::Gpt => vec!["<|endoftext|>", "<unk>"],
            Layout::T5 => vec!["<pad>", "</s>", "<unk>"],
            Layout::Bart => vec!["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            Layout::None => vec![],
        }
        .into_iter()
        .map(str::to_owned)
        .collect();
        for token in &self.extra_special {
            if !tokens.contains(token) {
                tokens.push(token.clone());
            }
        }
        tokens
    }

    fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(TextError::Training(message.to_owned()));
        if self.vocab_size > u32::MAX as usize / 2 {
            return refuse("vocab_size must be below 2^31");
        }
        if self.layout() == Layout::None
            && matches!(self.algorithm, Algorithm::WordPiece | Algorithm::Unigram)
        {
            return refuse(
                "wordpiece and unigram need an unknown token; choose the layout bert, gpt, t5 or bart",
            );
        }
        if self.byte_fallback && self.algorithm != Algorithm::Unigram {
            return refuse("byte_fallback is an option of unigram only");
        }
        if self.limit_alphabet.is_some() && self.algorithm == Algorithm::Bpe {
            return refuse("limit_alphabet does not apply to bpe: its alphabet is the 256 bytes");
        }
        if self.max_piece_length < 1 || self.max_piece_length > 64 {
            return refuse("max_piece_length must be between 1 and 64");
        }
        if self.extra_special.iter().any(String::is_empty) {
            return refuse("a special token must not be empty");
        }
        Ok(())
    }
}

/// A trained tokenizer and what was seen while training it.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The tokenizer; save it with [`Tokenizer::save`].
    pub tokenizer: Tokenizer,
    /// The counts.
    pub report: TrainReport,
}

/// What was seen while training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainReport {
    /// The word counts, and how much of them was dropped to stay inside the memory bound.
    pub counts: CountReport,
    /// Distinct characters of the text.
    pub characters: usize,
    /// Characters that the vocabulary knows.
    pub alphabet: usize,
    /// Share of the text's characters that they cover, 0 to 1.
    pub coverage: f64,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
}

/// Trains a tokenizer on text files.
///
/// # Errors
/// The errors of reading; [`TextError::Training`] when the options contradict each other or the vocabulary is too small for
/// the alphabet; [`TextError::EmptyCorpus`].
pub fn train(
    paths: &[PathBuf],
    corpus: &CorpusOptions,
    options: &TrainOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Trained> {
    options.check()?;
    let mut corpus = corpus.clone();
    if options.algorithm == Algorithm::Char && corpus.mode == DocumentMode::Auto {
        // Line breaks are characters of the vocabulary.
        corpus.mode = DocumentMode::File;
    }
    let texts = documents(paths, &corpus);
    let lines = texts.flat_map(|document| match document {
        Ok(document) => document.sentences.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    });
    train_from_iter(lines, options, progress)
}

/// Trains a tokenizer on lines that come from anywhere.
///
/// # Errors
/// As [`train`]; the first error of the iterator.
pub fn train_from_iter(
    lines: impl Iterator<Item = Result<String>>,
    options: &TrainOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Trained> {
    options.check()?;
    let special = options.special();
    // The untrained tokenizer cuts text into words exactly as the trained one will.
    let blank = assemble_spec(options, &special, blank_model(options, &special))
        .build()
        .map_err(TextError::Training)?;
    let counted = WordCounts::count(lines, &blank, options.memory, progress)?;
    if counted.words.is_empty() {
        return Err(TextError::EmptyCorpus(Vec::new()));
    }
    let alphabet = Alphabet::choose(&counted.words, options, special.len())?;
    let model = match options.algorithm {
        Algorithm::WordPiece | Algorithm::Bpe => {
            bpe::train(&counted.words, &alphabet, &special, options, progress)?
        }
        Algorithm::Unigram => {
            unigram::train(&counted.words, &alphabet, &special, options, progress)?
        }
        Algorithm::Char => {
            let vocab = special
                .iter()
                .cloned()
                .chain(alphabet.kept.iter().map(char::to_string));
            char_model(vocab, options)
        }
    };
    let tokenizer =
        Tokenizer::from_spec(&assemble_spec(options, &special, model), config(options))?;
    Ok(Trained {
        report: TrainReport {
            counts: counted.report,
            characters: alphabet.characters,
            alphabet: alphabet.kept.len(),
            coverage: alphabet.coverage,
            vocab_size: tokenizer.vocab_size(),
        },
        tokenizer,
    })
}

/// The characters of the vocabulary.
pub(crate) struct Alphabet {
    /// Ascending by code point.
    pub kept: Vec<char>,
    characters: usize,
    coverage: f64,
}

/// Share of the characters that the automatic alphabet covers; SentencePiece's `character_coverage`.
const COVERAGE: f64 = 0.9995;

impl Alphabet {
    fn choose(words: &[(String, u64)], options: &TrainOptions, special: usize) -> Result<Self> {
        let mut counts = std::collections::HashMap::<char, u64>::new();
        for (word, count) in words {
            for c in word.chars() {
                *counts.entry(c).or_default() += count;
            }
        }
        let characters = counts.len();
        if options.algorithm == Algorithm::Bpe {
            return Ok(Self {
                kept: {
                    let mut kept: Vec<char> = (0..=255).map(char_of).collect();
                    kept.sort_unstable();
                    kept
                },
                characters,
                coverage: 1.0,
            });
        }
        let total: u64 = counts.values().sum();
        let mut ranked: Vec<(char, u64)> = counts.into_iter().collect();
        ranked.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let keep = match (options.limit_alphabet, options.algorithm) {
            (Some(limit), _) => limit,
            (None, Algorithm::Char) => characters,
            (None, _) => {
                let wanted = (total as f64 * COVERAGE).ceil() as u64;
                let mut sum = 0;
                let enough = ranked
                    .iter()
                    .take_while(|(_, count)| {
                        let more = sum < wanted && *count >= options.min_frequency.min(2);
                        sum += count;
                        more
                    })
                    .count();
                enough.clamp(1, (options.vocab_size / 4).max(1))
            }
        };
        ranked.truncate(keep);
        let covered: u64 = ranked.iter().map(|(_, count)| count).sum();
        let mut kept: Vec<char> = ranked.into_iter().map(|(c, _)| c).collect();
        kept.sort_unstable();
        if options.algorithm == Algorithm::Char && kept.len() + special > options.vocab_size {
            return Err(TextError::Training(format!(
                "the text has {} characters and {special} special tokens; vocab_size is {}: raise it, or set \
                 limit_alphabet",
                kept.len(),
                options.vocab_size
            )));
        }
        Ok(Self {
            kept,
            characters,
            coverage: covered as f64 / total.max(1) as f64,
        })
    }
}

/// A model that knows nothing but the special tokens.
fn blank_model(options: &TrainOptions, special: &[String]) -> Value {
    let vocab: Map<String, Value> = special
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    match options.algorithm {
        Algorithm::WordPiece => spec::wordpiece(vocab, unknown(options).unwrap_or_default()),
        Algorithm::Bpe => spec::bpe(vocab, &[], None, None),
        Algorithm::Unigram => {
            let pieces: Vec<(String, f64)> = special.iter().map(|t| (t.clone(), 0.0)).collect();
            unigram::model(&pieces, options)
        }
        Algorithm::Char => char_model(special.iter().cloned(), options),
    }
}

fn char_model(vocab: impl Iterator<Item = String>, options: &TrainOptions) -> Value {
    let vocab: Map<String, Value> = vocab
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    // The format demands a name; a vocabulary without it refuses unknown characters.
    json!({"type": "WordLevel", "vocab": vocab, "unk_token": unknown(options).unwrap_or("<unk>")})
}

/// The unknown token of the layout.
pub(crate) fn unknown(options: &TrainOptions) -> Option<&'static str> {
    match (options.layout(), options.algorithm) {
        (Layout::Bert, _) => Some("[UNK]"),
        (Layout::None, _) | (Layout::Gpt, Algorithm::Bpe) => None,
        (Layout::Gpt | Layout::T5 | Layout::Bart, _) => Some("<unk>"),
    }
}

/// Everything around the model.
fn assemble_spec(options: &TrainOptions, special: &[String], model: Value) -> Spec {
    let id = |token: &str| special.iter().position(|t| t == token).unwrap_or(0) as u32;
    let is_bpe = options.algorithm == Algorithm::Bpe;
    let post_processor = match options.layout() {
        Layout::Bert => spec::bert_template(("[CLS]", id("[CLS]")), ("[SEP]", id("[SEP]"))),
        Layout::T5 => {
            let end = || Part::Special("</s>", id("</s>"), 0);
            spec::template(
                &[Part::First(0), end()],
                &[Part::First(0), end(), Part::Second(0), end()],
            )
        }
        Layout::Bart => {
            let start = || Part::Special("<s>", id("<s>"), 0);
            let end = || Part::Special("</s>", id("</s>"), 0);
            spec::template(
                &[start(), Part::First(0), end()],
                &[
                    start(),
                    Part::First(0),
                    end(),
                    end(),
                    Part::Second(0),
                    end(),
                ],
            )
        }
        Layout::Gpt | Layout::None if is_bpe => spec::byte_level(true, false),
        Layout::Gpt | Layout::None => Value::Null,
    };
    let normalizer = options
        .normalizer()
        .map(|n| serde_json::to_value(n.build()).unwrap_or(Value::Null));
    let (normalizer, pre_tokenizer, decoder) = match options.algorithm {
        Algorithm::WordPiece => (
            normalizer.unwrap_or(Value::Null),
            json!({"type": "BertPreTokenizer"}),
            json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        ),
        Algorithm::Bpe => (
            normalizer.unwrap_or(Value::Null),
            spec::byte_level(false, true),
            spec::byte_level(true, true),
        ),
        Algorithm::Unigram => {
            let collapse = [
                json!({"type": "Strip", "strip_left": true, "strip_right": true}),
                json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}),
            ];
            let steps: Vec<Value> = normalizer.into_iter().chain(collapse).collect();
            let decoder = if options.byte_fallback {
                json!({"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ]})
            } else {
                spec::metaspace("always", true)
            };
            (
                json!({"type": "Sequence", "normalizers": steps}),
                spec::metaspace("always", true),
                decoder,
            )
        }
        Algorithm::Char => (
            normalizer.unwrap_or(Value::Null),
            spec::every_character(),
            json!({"type": "Fuse"}),
        ),
    };
    Spec {
        added: special
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), id as u32, true))
            .collect(),
        normalizer,
        pre_tokenizer,
        post_processor,
        decoder,
        model,
    }
}

/// `tokenizer_config.json` of a trained tokenizer.
fn config(options: &TrainOptions) -> Map<String, Value> {
    let roles: &[(&str, &str)] = match options.layout() {
        Layout::Bert => &[
            ("pad_token", "[PAD]"),
            ("unk_token", "[UNK]"),
            ("cls_token", "[CLS]"),
            ("sep_token", "[SEP]"),
            ("mask_token", "[MASK]"),
        ],
        Layout::Gpt => &[
            ("bos_token", "<|endoftext|>"),
            ("eos_token", "<|endoftext|>"),
        ],
        Layout::T5 => &[
            ("pad_token", "<pad>"),
            ("eos_token", "</s>"),
            ("unk_token", "<unk>"),
        ],
        Layout::Bart => &[
            ("bos_token", "<s>"),
            ("cls_token", "<s>"),
            ("pad_token", "<pad>"),
            ("eos_token", "</s>"),
            ("sep_token", "</s>"),
            ("unk_token", "<unk>"),
            ("mask_token", "<mask>"),
        ],
        Layout::None => &[],
    };
    let mut config: Map<String, Value> = roles
        .iter()
        .map(|(key, token)| ((*key).to_owned(), json!(token)))
        .collect();
    if options.layout() == Layout::Gpt && options.algorithm != Algorithm::Bpe {
        config.insert("unk_token".into(), json!("<unk>"));
    }
    config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    config
}
