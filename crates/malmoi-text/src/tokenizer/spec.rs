//! `tokenizer.json` documents for the published families, put together from their parts.

use serde_json::{Map, Value, json};

/// The parts of a tokenizer in the `tokenizer.json` format.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spec {
    /// Added tokens by ascending id: content, id, special.
    pub added: Vec<(String, u32, bool)>,
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub post_processor: Value,
    pub decoder: Value,
    pub model: Value,
}

impl Spec {
    /// The document.
    pub(crate) fn to_json(&self) -> Value {
        let added: Vec<Value> = self
            .added
            .iter()
            .map(|(content, id, special)| {
                json!({
                    "id": id, "content": content, "single_word": false, "lstrip": content == "<mask>",
                    "rstrip": false, "normalized": false, "special": special,
                })
            })
            .collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": self.post_processor,
            "decoder": self.decoder,
            "model": self.model,
        })
    }

    /// Reads the document as the library does.
    pub(crate) fn build(&self) -> Result<tokenizers::Tokenizer, String> {
        serde_json::to_vec(&self.to_json())
            .map_err(|e| e.to_string())
            .and_then(|bytes| tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| e.to_string()))
    }
}

/// A piece of a post-processing template.
pub(crate) enum Part<'a> {
    /// A special token with its id and segment.
    Special(&'a str, u32, u32),
    /// The first text, in this segment.
    First(u32),
    /// The second text, in this segment.
    Second(u32),
}

/// A `TemplateProcessing` post-processor.
pub(crate) fn template(single: &[Part<'_>], pair: &[Part<'_>]) -> Value {
    let mut tokens = Map::new();
    let mut list = |parts: &[Part<'_>]| -> Vec<Value> {
        parts
            .iter()
            .map(|part| match part {
                Part::Special(token, id, segment) => {
                    tokens.insert(
                        (*token).to_owned(),
                        json!({"id": token, "ids": [id], "tokens": [token]}),
                    );
                    json!({"SpecialToken": {"id": token, "type_id": segment}})
                }
                Part::First(segment) => json!({"Sequence": {"id": "A", "type_id": segment}}),
                Part::Second(segment) => json!({"Sequence": {"id": "B", "type_id": segment}}),
            })
            .collect()
    };
    let (single, pair) = (list(single), list(pair));
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
}

/// `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, with segments 0 and 1 (Devlin et al., 2019).
pub(crate) fn bert_template(cls: (&str, u32), sep: (&str, u32)) -> Value {
    let cls = || Part::Special(cls.0, cls.1, 0);
    let end = |segment| Part::Special(sep.0, sep.1, segment);
    template(
        &[cls(), Part::First(0), end(0)],
        &[cls(), Part::First(0), end(0), Part::Second(1), end(1)],
    )
}

/// BERT's normaliser.
pub(crate) fn bert_normalizer(
    lowercase: bool,
    strip_accents: Option<bool>,
    split_chinese: bool,
) -> Value {
    json!({
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": split_chinese,
        "strip_accents": strip_accents, "lowercase": lowercase,
    })
}

/// A WordPiece model.
pub(crate) fn wordpiece(vocab: Map<String, Value>, unknown: &str) -> Value {
    json!({
        "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocab,
    })
}

/// A BPE model.
pub(crate) fn bpe(
    vocab: Map<String, Value>,
    merges: &[(String, String)],
    unknown: Option<&str>,
    suffix: Option<&str>,
) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": suffix, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": vocab, "merges": merges,
    })
}

/// A byte-level part: pre-tokenizer, post-processor or decoder.
pub(crate) fn byte_level(add_prefix_space: bool, trim_offsets: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets, "use_regex": true,
    })
}

/// Metaspace: spaces written as `▁`, one put before the text; splits at spaces.
pub(crate) fn metaspace(prepend: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": prepend, "split": split})
}

/// Every character, line breaks included, becomes a word of its own.
pub(crate) fn every_character() -> Value {
    json!({"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": false})
}

/// Standard base64 with padding, as `tokenizer.json` stores the normalisation rules.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0_u32, |word, &byte| word << 8 | u32::from(byte));
        for i in 0..4 {
            if i <= chunk.len() {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_of_the_specification() {
        // RFC 4648, section 10.
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
