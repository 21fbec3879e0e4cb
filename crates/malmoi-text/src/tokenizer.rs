//! Tokenizers: load, encode, decode, save.

mod encoding;
mod load;
mod save;
pub(crate) mod spec;
mod special;
mod stream;
mod words;

use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value};
use tokenizers::{
    Model as _, OffsetType, PostProcessor as _, PostProcessorWrapper, PreTokenizer as _,
};

use crate::error::{Result, TextError};
use crate::sentencepiece::SentencePiece;

use encoding::CharIndex;
pub use encoding::{EncodeOptions, Encoding, PadTo, Padding, Side, Truncation, TruncationStrategy};
pub use load::LoadOptions;
pub use special::SpecialTokens;
pub use stream::DecodeStream;
pub(crate) use stream::char_of;
use words::WordMarks;

/// A tokenizer: text to ids and back.
///
/// Cheap to clone, and safe to use from several threads at once. Truncation and padding settings inside a
/// `tokenizer.json` are not applied; they are arguments of [`Tokenizer::encode`].
#[derive(Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

struct Shared {
    inner: tokenizers::Tokenizer,
    /// Set when the tokenizer came from a `spiece.model`: normalisation and segmentation follow it exactly.
    sentencepiece: Option<SentencePieceFile>,
    special: SpecialTokens,
    marks: WordMarks,
    /// `tokenizer_config.json` as it was read (empty without one).
    config: Map<String, Value>,
    vocab_size: usize,
    hash: u64,
}

/// Ids are below this; tables by id, and embedding tables, grow with the largest id. Published vocabularies have at most a
/// few million entries.
const MAX_VOCAB: usize = 1 << 24;

/// A SentencePiece model with the bytes it was read from, which are written back when saving.
struct SentencePieceFile {
    model: SentencePiece,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind())
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Puts a tokenizer together; looks every special token up.
    fn assemble(
        inner: tokenizers::Tokenizer,
        sentencepiece: Option<(SentencePiece, Vec<u8>)>,
        config: Map<String, Value>,
    ) -> Result<Self, String> {
        let vocab = inner.get_vocab(true);
        let vocab_size = vocab
            .values()
            .max()
            .map_or(0, |&largest| largest as usize + 1);
        if vocab_size > MAX_VOCAB {
            return Err(format!(
                "the largest id is {}, ids must be below {MAX_VOCAB}",
                vocab_size - 1
            ));
        }
        let mut by_id: Vec<Option<&str>> = vec![None; vocab_size];
        for (token, &id) in &vocab {
            by_id[id as usize] = Some(token);
        }
        let hash = vocabulary_hash(&by_id);
        let special = SpecialTokens::find(&inner, &config, sentencepiece.as_ref().map(|s| &s.0));
        let marks = WordMarks::new(&inner, &by_id, &special);
        Ok(Self {
            shared: Arc::new(Shared {
                sentencepiece: sentencepiece
                    .map(|(model, bytes)| SentencePieceFile { model, bytes }),
                special,
                marks,
                config,
                vocab_size,
                hash,
                inner,
            }),
        })
    }

    /// The same tokenizer with special tokens of these names added behind its vocabulary; those it has already stay where they are.
    ///
    /// # Errors
    /// [`TextError::Encode`] when the vocabulary would grow beyond what ids can say.
    pub fn with_special_tokens(&self, names: &[&str]) -> Result<Self> {
        let mut inner = self.shared.inner.clone();
        let tokens = names
            .iter()
            .map(|name| tokenizers::AddedToken::from(*name, true));
        inner
            .add_special_tokens(tokens.collect::<Vec<_>>())
            .map_err(|error| TextError::Encode(error.to_string()))?;
        let sentencepiece = self.shared.sentencepiece.as_ref();
        let sentencepiece = sentencepiece.map(|file| (file.model.clone(), file.bytes.clone()));
        Self::assemble(inner, sentencepiece, self.shared.config.clone()).map_err(TextError::Encode)
    }

    /// Name of the algorithm: `WordPiece`, `BPE`, `Unigram` or `WordLevel`.
    pub fn kind(&self) -> &'static str {
        use tokenizers::ModelWrapper as M;
        match self.shared.inner.get_model() {
            M::WordPiece(_) => "WordPiece",
            M::BPE(_) => "BPE",
            M::Unigram(_) => "Unigram",
            M::WordLevel(_) => "WordLevel",
        }
    }

    /// Number of ids: the largest id plus one, added tokens included. An embedding table needs at least as many rows.
    pub fn vocab_size(&self) -> usize {
        self.shared.vocab_size
    }

    /// A 64-bit hash (FNV-1a) of the vocabulary: every token with its id. Corpora carry it, so that ids are never read
    /// with another vocabulary.
    pub fn vocabulary_hash(&self) -> u64 {
        self.shared.hash
    }

    /// The id of a token as it is written in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.shared.inner.token_to_id(token)
    }

    /// The token of an id as it is written in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.shared.inner.id_to_token(id)
    }

    /// Ids of the special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.shared.special
    }

    /// True for tokens that never stand for text, such as `[CLS]` or `<|endoftext|>`.
    pub fn is_special(&self, id: u32) -> bool {
        self.shared.special.contains(id)
    }

    /// `model_max_length` of `tokenizer_config.json`, in tokens, where it names a real bound.
    pub fn model_max_length(&self) -> Option<usize> {
        // Python writes 1e30 for "no bound".
        let value = self.shared.config.get("model_max_length")?.as_f64()?;
        (1.0..1e9).contains(&value).then_some(value as usize)
    }

    /// Number of special tokens that encoding adds to one text, or to a pair.
    pub fn added_tokens(&self, pair: bool) -> usize {
        self.shared
            .inner
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(pair))
    }

    /// Encodes a text, or a pair of texts.
    ///
    /// # Errors
    /// [`TextError::Truncation`] when the text cannot be cut as asked, [`TextError::Encode`] when the model has no way to
    /// write a character (a vocabulary without an unknown token).
    pub fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        options: &EncodeOptions,
    ) -> Result<Encoding> {
        let mut encoding = [self.process(text, pair, options)?];
        self.pad(&mut encoding, options)?;
        Ok(self.finish(&encoding[0], text, pair))
    }

    /// Encodes texts (with their pairs) as one batch: padding to the longest means the longest of all of them.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; the error of the first text that fails.
    pub fn encode_batch(
        &self,
        texts: &[(&str, Option<&str>)],
        options: &EncodeOptions,
    ) -> Result<Vec<Encoding>> {
        let mut encodings = texts
            .par_iter()
            .map(|(text, pair)| self.process(text, *pair, options))
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        self.pad(&mut encodings, options)?;
        Ok(encodings
            .par_iter()
            .zip(texts)
            .map(|(encoding, (text, pair))| self.finish(encoding, text, *pair))
            .collect())
    }

    /// The ids of a text, nothing else; the fast way for corpora.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ids(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let raw = self.tokenize(text, 0, OffsetType::None)?;
        if !add_special {
            return Ok(raw.get_ids().to_vec());
        }
        Ok(self.post_process(raw, None, true)?.get_ids().to_vec())
    }

    /// Turns ids into text.
    ///
    /// # Errors
    /// [`TextError::Decode`] when the decoder fails. Ids outside the vocabulary are skipped.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        match &self.shared.sentencepiece {
            Some(file) => Ok(self.decode_sentencepiece(&file.model, ids, skip_special)),
            None => self
                .shared
                .inner
                .decode(ids, skip_special)
                .map_err(|e| TextError::Decode(e.to_string())),
        }
    }

    /// A decoder for ids that arrive one by one; it never breaks a character.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }

    /// Groups consecutive tokens that belong to one word; special tokens belong to none. See [`Tokenizer::starts_word`].
    pub fn whole_words(&self, ids: &[u32]) -> Vec<std::ops::Range<usize>> {
        self.shared.marks.groups(ids)
    }

    /// True when a token begins a word: no `##` in WordPiece; a leading `Ġ` (or another white space) in byte-level BPE; a
    /// leading `▁` in unigram; any token after one that ends with `</w>` in the first GPT's BPE, which only
    /// [`Tokenizer::whole_words`] can see. The first token of a text begins a word whatever it looks like.
    pub fn starts_word(&self, id: u32) -> bool {
        self.shared.marks.starts(id)
    }

    /// The library's tokenizer.
    pub(crate) fn library(&self) -> &tokenizers::Tokenizer {
        &self.shared.inner
    }

    /// Normalised form of a text, as the model sees it before it is cut into words.
    pub fn normalize(&self, text: &str) -> Result<String> {
        let mut normalized = tokenizers::NormalizedString::from(text);
        let outcome = match &self.shared.sentencepiece {
            Some(file) => tokenizers::Normalizer::normalize(&file.model, &mut normalized),
            None => match self.shared.inner.get_normalizer() {
                Some(normalizer) => tokenizers::Normalizer::normalize(normalizer, &mut normalized),
                None => Ok(()),
            },
        };
        outcome.map_err(|e| TextError::Encode(e.to_string()))?;
        Ok(normalized.get().to_owned())
    }

    /// Normalises, splits and tokenizes one text, without special tokens.
    fn tokenize(
        &self,
        text: &str,
        type_id: u32,
        offsets: OffsetType,
    ) -> Result<tokenizers::Encoding> {
        let failed = |e: tokenizers::Error| TextError::Encode(e.to_string());
        let inner = &self.shared.inner;
        let added = inner.get_added_vocabulary();
        let mut words = match &self.shared.sentencepiece {
            Some(file) => added.extract_and_normalize(Some(&file.model), text),
            None => added.extract_and_normalize(inner.get_normalizer(), text),
        };
        if let Some(file) = &self.shared.sentencepiece {
            if !file.model.crosses_words() {
                // Pieces never reach over a space, so words can be cut apart; they also give the word ids.
                words
                    .split(|_, word| {
                        word.split(
                            '\u{2581}',
                            tokenizers::SplitDelimiterBehavior::MergedWithNext,
                        )
                    })
                    .map_err(failed)?;
            }
            words
                .tokenize(|word| Ok(file.model.tokenize(word.get())))
                .map_err(failed)?;
        } else {
            if let Some(splitter) = inner.get_pre_tokenizer() {
                splitter.pre_tokenize(&mut words).map_err(failed)?;
            }
            words
                .tokenize(|word| inner.get_model().tokenize(word.get()))
                .map_err(failed)?;
        }
        words.into_encoding(None, type_id, offsets).map_err(failed)
    }

    /// Tokenizes, truncates and adds special tokens; everything but padding.
    fn process(
        &self,
        text: &str,
        pair: Option<&str>,
        options: &EncodeOptions,
    ) -> Result<tokenizers::Encoding> {
        let mut first = self.tokenize(text, 0, OffsetType::Char)?;
        let mut second = match pair {
            Some(pair) => Some(self.tokenize(pair, 1, OffsetType::Char)?),
            None => None,
        };
        if let Some(truncation) = &options.truncation {
            let added = if options.add_special {
                self.added_tokens(pair.is_some())
            } else {
                0
            };
            encoding::truncate(&mut first, second.as_mut(), truncation, added)?;
        }
        if let Some(second) = &mut second {
            // Cutting forgets which of the two texts a piece came from; byte offsets need it.
            mark_pieces(&mut first, 0);
            mark_pieces(second, 1);
        }
        self.post_process(first, second, options.add_special)
    }

    fn post_process(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
        add_special: bool,
    ) -> Result<tokenizers::Encoding> {
        let failed = |e: tokenizers::Error| TextError::Encode(e.to_string());
        match self.shared.inner.get_post_processor() {
            Some(processor) => processor.process(first, second, add_special),
            None => {
                let both = std::iter::once(first).chain(second).collect();
                <dyn tokenizers::PostProcessor>::default_process(both, add_special)
                    .map(|mut merged| merged.pop().unwrap_or_default())
            }
        }
        .map_err(failed)
    }

    fn pad(&self, encodings: &mut [tokenizers::Encoding], options: &EncodeOptions) -> Result<()> {
        let Some(padding) = &options.padding else {
            return Ok(());
        };
        let id = padding
            .token
            .or(self.special().pad)
            .ok_or(TextError::NoPadToken)?;
        let token = self.id_to_token(id).ok_or(TextError::NoPadToken)?;
        encoding::pad(encodings, padding, (id, &token));
        Ok(())
    }

    fn finish(&self, encoding: &tokenizers::Encoding, text: &str, pair: Option<&str>) -> Encoding {
        let texts: Vec<CharIndex> = std::iter::once(text)
            .chain(pair)
            .map(CharIndex::new)
            .collect();
        Encoding::from_library(encoding, &texts)
    }

    /// Added tokens are literal text; everything between them is decoded by the model.
    fn decode_sentencepiece(
        &self,
        model: &SentencePiece,
        ids: &[u32],
        skip_special: bool,
    ) -> String {
        let added = self.shared.inner.get_added_tokens_decoder();
        let mut text = String::new();
        let mut run = Vec::new();
        let mut at_start = true;
        for &id in ids {
            match added.get(&id) {
                None => run.push(id),
                Some(token) if token.special && skip_special => {}
                Some(token) => {
                    text.push_str(&model.decode(&run, at_start));
                    run.clear();
                    text.push_str(&token.content);
                    at_start = false;
                }
            }
        }
        text.push_str(&model.decode(&run, at_start));
        text
    }

    /// True for ids that decoding leaves out when special tokens are skipped: the added special tokens.
    pub(crate) fn is_skipped(&self, id: u32) -> bool {
        let added = self.shared.inner.get_added_vocabulary();
        added
            .simple_id_to_token(id)
            .or_else(|| self.shared.inner.get_model().id_to_token(id))
            .is_some_and(|token| added.is_special_token(&token))
    }

    /// True for tokens that are found in a text before it is cut into subwords, special or not, and so are never made of parts.
    pub fn is_added(&self, id: u32) -> bool {
        let added = self.shared.inner.get_added_vocabulary();
        added.simple_id_to_token(id).is_some()
    }

    /// The bytes that a token adds to a text wherever it stands: for decoders that put token behind token (byte-level BPE,
    /// SentencePiece). `None` for special tokens, ids outside the vocabulary, and tokenizers whose tokens look different beside
    /// others (WordPiece).
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        use tokenizers::DecoderWrapper as D;
        if self.is_special(id) {
            return None;
        }
        let token = self.id_to_token(id)?;
        if self.decodes_bytes() {
            let mut bytes = Vec::new();
            stream::push_bytes(&token, &mut bytes);
            return Some(bytes);
        }
        let spaced = self.shared.sentencepiece.is_some()
            || matches!(
                self.shared.inner.get_decoder(),
                Some(D::Metaspace(_) | D::Sequence(_))
            );
        if !spaced {
            return None;
        }
        let byte = token
            .strip_prefix("<0x")
            .and_then(|rest| rest.strip_suffix('>'))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        Some(match byte {
            Some(byte) => vec![byte],
            None => token.replace('\u{2581}', " ").into_bytes(),
        })
    }

    /// True when the decoder works on bytes, as GPT-2's does.
    pub(crate) fn decodes_bytes(&self) -> bool {
        matches!(
            self.shared.inner.get_decoder(),
            Some(tokenizers::DecoderWrapper::ByteLevel(_))
        )
    }
}

/// Marks every piece that was cut off as belonging to one text.
fn mark_pieces(encoding: &mut tokenizers::Encoding, sequence: usize) {
    for piece in encoding.get_overflowing_mut() {
        piece.set_sequence_id(sequence);
    }
}

/// FNV-1a over (length, bytes) of every token in id order; a hole in the ids counts as the length `u64::MAX`.
fn vocabulary_hash(tokens: &[Option<&str>]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut feed = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for token in tokens {
        match token {
            Some(token) => {
                feed(&(token.len() as u64).to_le_bytes());
                feed(token.as_bytes());
            }
            None => feed(&u64::MAX.to_le_bytes()),
        }
    }
    hash
}

/// True when the post-processor adds special tokens to a text.
pub(crate) fn adds_tokens(processor: Option<&PostProcessorWrapper>) -> bool {
    processor.is_some_and(|p| p.added_tokens(false) > 0)
}
