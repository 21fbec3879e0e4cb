//! Reading a tokenizer from the files of a model directory.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::NormalizerWrapper;

use super::spec::{self, Part, Spec};
use super::special::token_content;
use super::{Tokenizer, adds_tokens};
use crate::error::{Result, TextError};
use crate::sentencepiece::{PieceKind, SentencePiece};

/// Choices for vocabularies that come without a `tokenizer_config.json`.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Lower-case the text (WordPiece). Without it: the configuration; without that the vocabulary tells: one with a
    /// capital letter is cased, and one with Hangul syllables was made without stripping accents.
    pub lowercase: Option<bool>,
    /// Number of `<extra_id_N>` sentinels after the pieces (T5). Without it: the configuration; without that: none.
    pub extra_ids: Option<usize>,
}

/// File names of SentencePiece models in published directories.
const SENTENCEPIECE_NAMES: [&str; 4] = [
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
];

impl Tokenizer {
    /// Loads the tokenizer of a model directory.
    ///
    /// The first of these that exists is used: `tokenizer.json`; `vocab.txt`; `vocab.json` with `merges.txt`;
    /// `encoder.json` with `vocab.bpe`; `spiece.model`. `tokenizer_config.json` and `special_tokens_map.json` are
    /// honoured. A path to one of those files also works.
    ///
    /// # Errors
    /// [`TextError::NoTokenizer`], [`TextError::BadTokenizer`], [`TextError::Unsupported`] or [`TextError::Io`].
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(dir, &LoadOptions::default())
    }

    /// [`Tokenizer::load`] with choices for bare vocabularies.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn load_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let path = path.as_ref();
        let (dir, only) = if path.is_file() {
            (path.parent().unwrap_or(Path::new(".")), Some(path))
        } else {
            (path, None)
        };
        let wanted = |name: &str| -> Option<PathBuf> {
            let candidate = dir.join(name);
            let chosen = only.is_none_or(|only| only.file_name() == candidate.file_name());
            (chosen && candidate.is_file()).then_some(candidate)
        };
        let config = read_config(dir)?;
        if let Some(file) = wanted("tokenizer.json") {
            return from_tokenizer_json(&file, config);
        }
        if let Some(file) = wanted("vocab.txt") {
            return from_vocab_txt(&file, config, options);
        }
        for (vocab, merges) in [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")] {
            if let Some(vocab) = wanted(vocab) {
                return from_vocab_and_merges(&vocab, &dir.join(merges), config);
            }
        }
        for name in SENTENCEPIECE_NAMES {
            if let Some(file) = wanted(name) {
                let bytes = std::fs::read(&file).map_err(TextError::io(&file))?;
                return from_sentencepiece(bytes, &file, config, options);
            }
        }
        if !path.exists() {
            return Err(TextError::Io {
                path: path.to_path_buf(),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        Err(TextError::NoTokenizer(path.to_path_buf()))
    }

    /// Builds a tokenizer from its parts, as the trainers do.
    pub(crate) fn from_spec(spec: &Spec, config: Map<String, Value>) -> Result<Self> {
        let inner = spec.build().map_err(TextError::Training)?;
        Self::assemble(inner, None, config).map_err(TextError::Training)
    }
}

/// Reads a JSON object; `None` when the file does not exist.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(TextError::io(path)(e)),
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(TextError::bad(path, "expected a JSON object")),
        Err(e) => Err(TextError::bad(path, format!("not valid JSON: {e}"))),
    }
}

/// `tokenizer_config.json`, completed by `special_tokens_map.json`.
fn read_config(dir: &Path) -> Result<Map<String, Value>> {
    let mut config = read_object(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    if let Some(map) = read_object(&dir.join("special_tokens_map.json"))? {
        for (key, value) in map {
            config.entry(key).or_insert(value);
        }
    }
    Ok(config)
}

/// The class name without the suffix of the fast variant.
fn class_of(config: &Map<String, Value>) -> Option<&str> {
    let class = config.get("tokenizer_class")?.as_str()?;
    Some(class.strip_suffix("Fast").unwrap_or(class))
}

/// The token a role has in the configuration, or its usual name.
fn role<'a>(config: &'a Map<String, Value>, key: &str, usual: &'a str) -> &'a str {
    config.get(key).and_then(token_content).unwrap_or(usual)
}

fn from_tokenizer_json(path: &Path, config: Map<String, Value>) -> Result<Tokenizer> {
    let bytes = std::fs::read(path).map_err(TextError::io(path))?;
    // The library panics on some documents that are not JSON, so that is found out first.
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        return Err(TextError::bad(path, format!("not valid JSON: {error}")));
    }
    let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)
        .map_err(|e| TextError::bad(path, format!("not a tokenizer: {e}")))?;
    // Python's BERT classes let the configuration override the normaliser.
    if let Some(NormalizerWrapper::BertNormalizer(normalizer)) = inner.get_normalizer()
        && class_of(&config).is_some_and(|class| class != "PreTrainedTokenizer")
    {
        let mut changed = *normalizer;
        if let Some(lowercase) = config.get("do_lower_case").and_then(Value::as_bool) {
            changed.lowercase = lowercase;
        }
        if let Some(strip) = config.get("strip_accents") {
            changed.strip_accents = strip.as_bool();
        }
        if let Some(chinese) = config
            .get("tokenize_chinese_chars")
            .and_then(Value::as_bool)
        {
            changed.handle_chinese_chars = chinese;
        }
        inner
            .with_normalizer(Some(changed))
            .map_err(|e| TextError::bad(path, e))?;
    }
    Tokenizer::assemble(inner, None, config).map_err(|e| TextError::bad(path, e))
}

/// BERT's `vocab.txt`: a token a line, its id is the line number from 0.
fn from_vocab_txt(
    path: &Path,
    config: Map<String, Value>,
    options: &LoadOptions,
) -> Result<Tokenizer> {
    let text = read_text(path)?;
    let mut vocab = Map::new();
    for (id, line) in text.lines().enumerate() {
        vocab.insert(line.trim_end().to_owned(), json!(id));
    }
    let flag = |key: &str| config.get(key).and_then(Value::as_bool);
    let stated = options.lowercase.or(flag("do_lower_case"));
    // Nothing says how this vocabulary was made, but it does: lower-casing leaves no capital letter, and accent stripping
    // leaves no composed Hangul syllable. (Letters of other scripts do not count: some have no lower case.)
    let lowercase = stated.unwrap_or_else(|| {
        !vocab.keys().any(|token| {
            let is_special = token.starts_with('[') && token.ends_with(']');
            !is_special && token.contains(|c: char| c.is_ascii_uppercase())
        })
    });
    let strip_accents = flag("strip_accents").or_else(|| {
        let has_syllables = || {
            vocab
                .keys()
                .any(|token| token.contains(|c| ('가'..='힣').contains(&c)))
        };
        (stated.is_none() && has_syllables()).then_some(false)
    });
    let names: Vec<(&str, &str)> = [
        ("pad_token", "[PAD]"),
        ("unk_token", "[UNK]"),
        ("cls_token", "[CLS]"),
        ("sep_token", "[SEP]"),
        ("mask_token", "[MASK]"),
    ]
    .map(|(key, usual)| (key, role(&config, key, usual)))
    .to_vec();
    let id_of = |token: &str| vocab.get(token).and_then(Value::as_u64).map(|id| id as u32);
    let unknown = names[1].1;
    if id_of(unknown).is_none() {
        return Err(TextError::bad(
            path,
            format!(
                "the vocabulary has no unknown token {unknown:?}; name it in tokenizer_config.json (unk_token)"
            ),
        ));
    }
    let post_processor = match (id_of(names[2].1), id_of(names[3].1)) {
        (Some(cls), Some(sep)) => spec::bert_template((names[2].1, cls), (names[3].1, sep)),
        _ => Value::Null,
    };
    let mut added: Vec<(String, u32, bool)> = names
        .iter()
        .filter_map(|(_, token)| id_of(token).map(|id| ((*token).to_owned(), id, true)))
        .collect();
    added.sort_by_key(|token| token.1);
    added.dedup_by_key(|token| token.1);
    let spec = Spec {
        added,
        normalizer: spec::bert_normalizer(
            lowercase,
            strip_accents,
            flag("tokenize_chinese_chars").unwrap_or(true),
        ),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        post_processor,
        decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        model: spec::wordpiece(vocab.clone(), unknown),
    };
    let inner = spec.build().map_err(|e| TextError::bad(path, e))?;
    Tokenizer::assemble(inner, None, config).map_err(|e| TextError::bad(path, e))
}

/// GPT-1 (`</w>`), GPT-2 and RoBERTa vocabularies.
fn from_vocab_and_merges(
    vocab_path: &Path,
    merges_path: &Path,
    config: Map<String, Value>,
) -> Result<Tokenizer> {
    let vocab = read_object(vocab_path)?.unwrap_or_default();
    if let Some((token, id)) = vocab
        .iter()
        .find(|(_, id)| id.as_u64().is_none_or(|id| id > u64::from(u32::MAX)))
    {
        return Err(TextError::bad(
            vocab_path,
            format!("the id of {token:?} is {id}, expected a whole number"),
        ));
    }
    let text = read_text(merges_path)?;
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || (number == 0 && line.starts_with("#version")) {
            continue;
        }
        let Some((left, right)) = line.split_once(' ') else {
            return Err(TextError::bad(
                merges_path,
                format!(
                    "line {}: expected two tokens and a space, found {line:?}",
                    number + 1
                ),
            ));
        };
        merges.push((left.to_owned(), right.to_owned()));
    }
    let id_of = |token: &str| vocab.get(token).and_then(Value::as_u64).map(|id| id as u32);
    let added_of = |names: &[&str]| -> Vec<(String, u32, bool)> {
        let mut added: Vec<_> = names
            .iter()
            .filter_map(|name| id_of(name).map(|id| ((*name).to_owned(), id, true)))
            .collect();
        added.sort_by_key(|token| token.1);
        added.dedup_by_key(|token| token.1);
        added
    };
    let named = |key, usual| role(&config, key, usual);
    let flag = |key: &str| config.get(key).and_then(Value::as_bool);
    let spec = if vocab.keys().any(|token| token.ends_with("</w>")) {
        let unknown = named("unk_token", "<unk>");
        Spec {
            added: added_of(&[unknown]),
            normalizer: spec::bert_normalizer(true, None, true),
            pre_tokenizer: json!({"type": "BertPreTokenizer"}),
            decoder: json!({"type": "BPEDecoder", "suffix": "</w>"}),
            model: spec::bpe(
                vocab.clone(),
                &merges,
                id_of(unknown).map(|_| unknown),
                Some("</w>"),
            ),
            ..Spec::default()
        }
    } else {
        let prefix_space = flag("add_prefix_space").unwrap_or(false);
        let is_roberta = matches!(
            class_of(&config),
            Some("RobertaTokenizer" | "BartTokenizer")
        ) || (class_of(&config).is_none()
            && id_of("<s>").is_some()
            && id_of("<mask>").is_some());
        let (cls, sep) = (named("cls_token", "<s>"), named("sep_token", "</s>"));
        let (post_processor, added) = match (is_roberta, id_of(cls), id_of(sep)) {
            (true, Some(cls_id), Some(sep_id)) => (
                json!({
                    "type": "RobertaProcessing", "sep": [sep, sep_id], "cls": [cls, cls_id],
                    "trim_offsets": true, "add_prefix_space": prefix_space,
                }),
                added_of(&[
                    cls,
                    sep,
                    named("pad_token", "<pad>"),
                    named("unk_token", "<unk>"),
                    named("mask_token", "<mask>"),
                ]),
            ),
            _ => (
                spec::byte_level(true, false),
                added_of(&[
                    named("unk_token", "<|endoftext|>"),
                    named("bos_token", "<|endoftext|>"),
                    named("eos_token", "<|endoftext|>"),
                    named("pad_token", "<|pad|>"),
                ]),
            ),
        };
        Spec {
            added,
            normalizer: Value::Null,
            pre_tokenizer: spec::byte_level(prefix_space, true),
            post_processor,
            decoder: spec::byte_level(true, true),
            model: spec::bpe(vocab.clone(), &merges, None, None),
        }
    };
    let inner = spec.build().map_err(|e| TextError::bad(merges_path, e))?;
    Tokenizer::assemble(inner, None, config).map_err(|e| TextError::bad(vocab_path, e))
}

/// A SentencePiece unigram model. Without a configuration it is plain SentencePiece: no added tokens, and strings that
/// look like special tokens are ordinary text.
fn from_sentencepiece(
    bytes: Vec<u8>,
    path: &Path,
    config: Map<String, Value>,
    options: &LoadOptions,
) -> Result<Tokenizer> {
    let model = SentencePiece::from_bytes(&bytes, path)?;
    let id_of = |name: &str| {
        model
            .pieces()
            .position(|(piece, _, _)| piece == name)
            .map(|id| id as u32)
    };
    let class = class_of(&config);
    let is_t5 =
        matches!(class, Some("T5Tokenizer" | "MT5Tokenizer")) || options.extra_ids.is_some();
    let extra_ids = options.extra_ids.unwrap_or_else(|| {
        let default = if class == Some("T5Tokenizer") { 100 } else { 0 };
        config
            .get("extra_ids")
            .and_then(Value::as_u64)
            .map_or(default, |n| n as usize)
    });
    let mut added = Vec::new();
    let mut post_processor = Value::Null;
    let controls = || {
        model
            .pieces()
            .enumerate()
            .filter(|(_, (_, _, kind))| matches!(kind, PieceKind::Control | PieceKind::Unknown))
            .map(|(id, (piece, _, _))| (piece.to_owned(), id as u32, true))
    };
    match class {
        _ if is_t5 => {
            added.extend(controls());
            // Sentinel k has the id pieces + extra_ids - 1 - k (Raffel et al., 2020, and its published vocabulary).
            let count = model.pieces().len() as u32;
            for k in (0..extra_ids).rev() {
                let id = count + (extra_ids - 1 - k) as u32;
                added.push((format!("<extra_id_{k}>"), id, true));
            }
            let end = role(&config, "eos_token", "</s>");
            let end_id = id_of(end)
                .ok_or_else(|| TextError::bad(path, format!("no piece {end:?} (eos_token)")))?;
            let end = || Part::Special(end, end_id, 0);
            post_processor = spec::template(
                &[Part::First(0), end()],
                &[Part::First(0), end(), Part::Second(0), end()],
            );
        }
        Some("AlbertTokenizer") => {
            added.extend(controls());
            let (cls, sep) = (
                role(&config, "cls_token", "[CLS]"),
                role(&config, "sep_token", "[SEP]"),
            );
            let ids = id_of(cls)
                .zip(id_of(sep))
                .ok_or_else(|| TextError::bad(path, format!("no pieces {cls:?} and {sep:?}")))?;
            post_processor = spec::bert_template((cls, ids.0), (sep, ids.1));
        }
        None | Some("PreTrainedTokenizer" | "TokenizersBackend") => {}
        Some(other) => {
            return Err(TextError::Unsupported {
                path: path.to_path_buf(),
                what: format!("a bare SentencePiece model for {other}; add its tokenizer.json"),
            });
        }
    }
    let spec = sentencepiece_spec(&model, added, post_processor);
    let inner = spec.build().map_err(|e| TextError::bad(path, e))?;
    debug_assert!(!is_t5 || adds_tokens(inner.get_post_processor()));
    Tokenizer::assemble(inner, Some((model, bytes)), config).map_err(|e| TextError::bad(path, e))
}

/// The nearest `tokenizer.json` for a SentencePiece model. NFC comes first because the stock `Precompiled` part works on
/// grapheme clusters and would leave decomposed Hangul as it is.
fn sentencepiece_spec(
    model: &SentencePiece,
    added: Vec<(String, u32, bool)>,
    post_processor: Value,
) -> Spec {
    let mut steps = Vec::new();
    if !model.charsmap().is_empty() {
        steps.push(json!({"type": "NFC"}));
        steps.push(
            json!({"type": "Precompiled", "precompiled_charsmap": spec::base64(model.charsmap())}),
        );
    }
    if model.collapses_spaces() {
        steps.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        steps.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    let prepend = if model.adds_prefix() {
        "always"
    } else {
        "never"
    };
    let vocab: Vec<(&str, f64)> = model
        .pieces()
        .map(|(piece, score, _)| (piece, f64::from(score)))
        .collect();
    Spec {
        added,
        normalizer: json!({"type": "Sequence", "normalizers": steps}),
        pre_tokenizer: spec::metaspace(prepend, !model.crosses_words()),
        post_processor,
        decoder: spec::metaspace(prepend, true),
        model: json!({
            "type": "Unigram", "unk_id": model.unknown(), "vocab": vocab, "byte_fallback": model.byte_fallback(),
        }),
    }
}

/// A whole UTF-8 file without its byte-order mark.
fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(TextError::io(path))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| TextError::bad(path, format!("not UTF-8: {}", e.utf8_error())))?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}
