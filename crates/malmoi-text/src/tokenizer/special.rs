//! Which ids are special, and what for.

use serde_json::{Map, Value};

use crate::sentencepiece::{PieceKind, SentencePiece};

/// Ids of the special tokens; `None` where the tokenizer has no such token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Stands before a text (`[CLS]`).
    pub cls: Option<u32>,
    /// Stands between and after texts (`[SEP]`).
    pub sep: Option<u32>,
    /// Fills batches (`[PAD]`).
    pub pad: Option<u32>,
    /// Hides a token (`[MASK]`).
    pub mask: Option<u32>,
    /// Stands for what the vocabulary cannot write (`[UNK]`).
    pub unk: Option<u32>,
    /// Begins a text (`<s>`).
    pub bos: Option<u32>,
    /// Ends a text (`</s>`, `<|endoftext|>`).
    pub eos: Option<u32>,
    /// Every special id, ascending; holds more than the seven roles where a tokenizer has more.
    all: Vec<u32>,
}

/// The roles: key in the configuration, usual names.
const ROLES: [(&str, &[&str]); 7] = [
    ("cls_token", &["[CLS]", "<cls>"]),
    ("sep_token", &["[SEP]", "<sep>"]),
    ("pad_token", &["[PAD]", "<pad>", "<|pad|>"]),
    ("mask_token", &["[MASK]", "<mask>"]),
    ("unk_token", &["[UNK]", "<unk>"]),
    (
        "bos_token",
        &["<s>", "[BOS]", "<|startoftext|>", "<|endoftext|>"],
    ),
    ("eos_token", &["</s>", "[EOS]", "<|endoftext|>"]),
];

impl SpecialTokens {
    /// Finds the special tokens: what the configuration names, else the usual names that the vocabulary has.
    pub(super) fn find(
        inner: &tokenizers::Tokenizer,
        config: &Map<String, Value>,
        sentencepiece: Option<&SentencePiece>,
    ) -> Self {
        let mut found = ROLES.map(|(key, names)| match config.get(key) {
            Some(value) => token_content(value).and_then(|token| inner.token_to_id(token)),
            None => names.iter().find_map(|name| inner.token_to_id(name)),
        });
        if let Some(model) = sentencepiece {
            // The model itself says which symbols it has.
            let [bos, eos, pad] = model.controls();
            for (slot, id) in [(2, pad), (4, Some(model.unknown())), (5, bos), (6, eos)] {
                if !config.contains_key(ROLES[slot].0) {
                    found[slot] = id;
                }
            }
        }
        let mut all: Vec<u32> = found.iter().flatten().copied().collect();
        all.extend(
            inner
                .get_added_tokens_decoder()
                .iter()
                .filter(|(_, token)| token.special)
                .map(|(&id, _)| id),
        );
        if let Some(model) = sentencepiece {
            all.extend(
                model
                    .pieces()
                    .enumerate()
                    .filter(|(_, (_, _, kind))| *kind == PieceKind::Control)
                    .map(|(id, _)| id as u32),
            );
        }
        all.sort_unstable();
        all.dedup();
        let [cls, sep, pad, mask, unk, bos, eos] = found;
        Self {
            cls,
            sep,
            pad,
            mask,
            unk,
            bos,
            eos,
            all,
        }
    }

    /// True when the id is special.
    pub fn contains(&self, id: u32) -> bool {
        self.all.binary_search(&id).is_ok()
    }

    /// Every special id, ascending.
    pub fn ids(&self) -> &[u32] {
        &self.all
    }

    /// The roles with the keys that `special_tokens_map.json` uses.
    pub(super) fn roles(&self) -> [(&'static str, Option<u32>); 7] {
        let ids = [
            self.cls, self.sep, self.pad, self.mask, self.unk, self.bos, self.eos,
        ];
        std::array::from_fn(|i| (ROLES[i].0, ids[i]))
    }
}

/// A special token in a configuration: a string, or an object with `content`.
pub(super) fn token_content(value: &Value) -> Option<&str> {
    value
        .as_str()
        .or_else(|| value.get("content").and_then(Value::as_str))
}
