//! Writing a tokenizer into a model directory, so that Python's `AutoTokenizer` opens it.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::{Model as _, ModelWrapper};

use super::Tokenizer;
use crate::error::{Result, TextError};

impl Tokenizer {
    /// Writes `tokenizer.json`, the classic vocabulary files of its kind, `tokenizer_config.json` and
    /// `special_tokens_map.json` into an existing directory.
    ///
    /// `model_max_length` is the longest sequence of the model in tokens; `None` keeps what was loaded.
    ///
    /// # Errors
    /// [`TextError::Io`] when a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>, model_max_length: Option<usize>) -> Result<()> {
        let dir = dir.as_ref();
        let inner = self.library();
        let json = inner
            .to_string(true)
            .map_err(|e| TextError::Encode(e.to_string()))?;
        write(&dir.join("tokenizer.json"), json.as_bytes())?;
        match (&self.shared.sentencepiece, inner.get_model()) {
            (Some(file), _) => write(&dir.join("spiece.model"), &file.bytes)?,
            (None, ModelWrapper::WordPiece(_)) => {
                write(&dir.join("vocab.txt"), self.vocab_txt().as_bytes())?;
            }
            (None, model @ (ModelWrapper::BPE(_) | ModelWrapper::WordLevel(_))) => {
                // vocab.json, and merges.txt for BPE.
                model.save(dir, None).map_err(|e| TextError::Io {
                    path: dir.to_path_buf(),
                    source: std::io::Error::other(e.to_string()),
                })?;
            }
            (None, ModelWrapper::Unigram(_)) => {}
        }
        let roles = self.role_names();
        let mut config = self.shared.config.clone();
        for (key, token) in &roles {
            config.entry(key.clone()).or_insert_with(|| token.clone());
        }
        // The generic class reads tokenizer.json as it is; family classes of Python rebuild normalisers of their own.
        config
            .entry("tokenizer_class")
            .or_insert_with(|| json!("PreTrainedTokenizerFast"));
        if let Some(length) = model_max_length {
            config.insert("model_max_length".into(), json!(length));
        }
        config
            .entry("clean_up_tokenization_spaces")
            .or_insert(json!(false));
        write_json(&dir.join("tokenizer_config.json"), &Value::Object(config))?;
        write_json(&dir.join("special_tokens_map.json"), &Value::Object(roles))
    }

    /// The special tokens by role, those that exist.
    fn role_names(&self) -> Map<String, Value> {
        self.special()
            .roles()
            .into_iter()
            .filter_map(|(key, id)| {
                let token = self.id_to_token(id?)?;
                Some((key.to_owned(), Value::String(token)))
            })
            .collect()
    }

    /// One token a line in id order. Ids without a token get the line `[unusedN]`, so that line numbers stay ids.
    fn vocab_txt(&self) -> String {
        let model = self.library().get_model();
        let size = model
            .get_vocab()
            .values()
            .max()
            .map_or(0, |&largest| largest + 1);
        let mut text = String::new();
        for id in 0..size {
            match model.id_to_token(id) {
                Some(token) => text.push_str(&token),
                None => text.push_str(&format!("[unused{id}]")),
            }
            text.push('\n');
        }
        text
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(TextError::io(path))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = format!("{value:#}\n");
    write(path, text.as_bytes())
}
