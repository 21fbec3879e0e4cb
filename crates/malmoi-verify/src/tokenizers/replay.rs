//! Runs the entries of a tokenizer fixture; plain JSON in and out.

use std::path::{Path, PathBuf};

use malmoi_text::{
    EncodeOptions, Encoding, LoadOptions, PadTo, Padding, Side, TextError, Tokenizer, Truncation,
    TruncationStrategy,
};
use serde_json::{Map, Value, json};

/// One compared value: its name, what we got, what the reference has.
pub type Compared = (String, Value, Value);

/// The tokenizers of a fixture.
pub struct Subject {
    plain: Tokenizer,
    /// The same model with T5's sentinels and end token, for the entries that ask for them.
    sentinels: Option<Tokenizer>,
    special_strings: Vec<String>,
}

impl Subject {
    /// Loads the tokenizer of `dir`, or the published vocabulary that the fixture names, from the folder `vocab`.
    ///
    /// # Errors
    /// As a sentence: a vocabulary that is missing or cannot be read.
    pub fn load(dir: &Path, vocab: &Path, json: &Value) -> Result<Self, String> {
        let meta = &json["meta"];
        let source = match meta["vocabulary"].as_str() {
            Some(named) => published(vocab, named)?,
            None => dir.to_path_buf(),
        };
        let options = LoadOptions {
            lowercase: meta["lowercase"].as_bool(),
            extra_ids: None,
        };
        let plain = Tokenizer::load_with(&source, &options).map_err(|e| e.to_string())?;
        let wants_sentinels = entries(json).any(|entry| entry["case"] == "sentinels");
        let sentinels = if wants_sentinels {
            // 100 sentinels is the published number; the fixture's note places sentinel k at pieces + 99 - k.
            let options = LoadOptions {
                extra_ids: Some(100),
                ..options
            };
            Some(Tokenizer::load_with(&source, &options).map_err(|e| e.to_string())?)
        } else {
            None
        };
        let special_strings = meta["special"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|token| token.as_str().map(str::to_owned))
            .collect();
        Ok(Self {
            plain,
            sentinels,
            special_strings,
        })
    }

    /// The vocabulary against `pieces.json` (strings and scores in id order), where the fixture has one.
    pub fn vocabulary(&self, pieces: &Value) -> Vec<Compared> {
        let got: Vec<Value> = pieces
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(id, _)| json!(self.plain.id_to_token(id as u32)))
            .collect();
        let expected: Vec<Value> = pieces
            .as_array()
            .into_iter()
            .flatten()
            .map(|piece| piece[0].clone())
            .collect();
        let mut compared = vec![(
            "vocab_size".to_owned(),
            json!(self.plain.vocab_size()),
            json!(expected.len()),
        )];
        compared.push(("pieces".to_owned(), json!(got), json!(expected)));
        compared
    }

    /// The special strings that the fixture names must be single special tokens.
    pub fn special(&self) -> Vec<Compared> {
        self.special_strings
            .iter()
            .map(|token| {
                let known = self
                    .plain
                    .token_to_id(token)
                    .is_some_and(|id| self.plain.is_special(id));
                (format!("special {token}"), json!(known), json!(true))
            })
            .collect()
    }

    /// Runs one entry. A kind of entry that is not known is `Err`.
    ///
    /// # Errors
    /// Says what is not understood.
    pub fn entry(&self, entry: &Value) -> Result<Vec<Compared>, String> {
        let case = entry["case"].as_str().unwrap_or("");
        let text = entry["text"].as_str();
        let pair = entry["pair"].as_str();
        let mut options = EncodeOptions::default();
        if entry["add_special_tokens"] == false {
            options.add_special = false;
        }
        match case {
            "single" | "no_special" | "pair" => {}
            "truncated" | "pair_truncated" => options.truncation = Some(truncation(entry)?),
            "sentinels" => {
                let tokenizer = self.sentinels.as_ref().ok_or("no sentinels")?;
                let text = text.ok_or("an entry without text")?;
                let got = tokenizer.encode(text, None, &options);
                return Ok(self.compare(tokenizer, entry, entry, got));
            }
            "batch_padded" => return self.batch(entry),
            other => return Err(format!("unknown kind of entry {other:?}")),
        }
        let text = text.ok_or("an entry without text")?;
        let got = self.plain.encode(text, pair, &options);
        let expected = entry.get("encoding").unwrap_or(entry);
        Ok(self.compare(&self.plain, entry, expected, got))
    }

    fn batch(&self, entry: &Value) -> Result<Vec<Compared>, String> {
        let texts: Vec<(&str, Option<&str>)> = entry["texts"]
            .as_array()
            .ok_or("a batch without texts")?
            .iter()
            .map(|text| (text.as_str().unwrap_or(""), None))
            .collect();
        let options = EncodeOptions {
            padding: Some(Padding {
                token: number(entry, "pad_id").map(|id| id as u32),
                to: number(entry, "length").map_or(PadTo::Longest, PadTo::Length),
                multiple_of: number(entry, "pad_to_multiple_of"),
                direction: side(entry)?,
            }),
            ..EncodeOptions::default()
        };
        let expected = entry["encodings"]
            .as_array()
            .ok_or("a batch without encodings")?;
        let got = self
            .plain
            .encode_batch(&texts, &options)
            .map_err(|e| e.to_string())?;
        let mut compared = vec![("encodings".into(), json!(got.len()), json!(expected.len()))];
        for (index, (got, expected)) in got.into_iter().zip(expected).enumerate() {
            for (name, got, expected) in self.compare(&self.plain, entry, expected, Ok(got)) {
                compared.push((format!("{index}.{name}"), got, expected));
            }
        }
        Ok(compared)
    }

    /// Compares every key that the reference has.
    fn compare(
        &self,
        tokenizer: &Tokenizer,
        entry: &Value,
        expected: &Value,
        got: Result<Encoding, TextError>,
    ) -> Vec<Compared> {
        let got = match got {
            Ok(got) => got,
            Err(error) => {
                let refused = matches!(error, TextError::Truncation(_));
                let expects_refusal = expected.get("error").is_some();
                return vec![if refused && expects_refusal {
                    ("error".into(), json!(true), json!(true))
                } else {
                    ("error".into(), json!(error.to_string()), expected.clone())
                }];
            }
        };
        if let Some(error) = expected.get("error") {
            return vec![("error".into(), Value::Null, error.clone())];
        }
        let mut values = to_json(&got);
        let decode = |skip| match tokenizer.decode(&got.ids, skip) {
            Ok(text) => json!(text),
            Err(error) => json!({"error": error.to_string()}),
        };
        // The fixtures do not say whether `decoded` leaves special tokens out (GPT-2's reference keeps them, BERT's
        // does not); both readings count.
        let keeps_special = expected.get("decoded") == Some(&decode(false));
        values.insert("decoded".into(), decode(!keeps_special));
        values.insert("decoded_skip_special".into(), decode(true));
        values.insert("decoded_all".into(), decode(false));
        values.insert("streamed".into(), stream(tokenizer, &got.ids, false));
        // Several segmentations have the same score: only the text is determined.
        let is_tie = entry.get("tie").is_some();
        let mut compared = Vec::new();
        let mut parts: Vec<(&String, &Value)> =
            expected.as_object().into_iter().flatten().collect();
        if !std::ptr::eq(entry, expected) {
            let decoded = entry.as_object().into_iter().flatten();
            parts.extend(decoded.filter(|(key, _)| key.starts_with("decoded")));
        }
        for (key, expected) in parts {
            if is_tie && !key.starts_with("decoded") {
                continue;
            }
            match values.get(key) {
                Some(got) => {
                    compared.push((key.clone(), restrict(got, expected), expected.clone()))
                }
                None if is_input(key) => {}
                None => compared.push((key.clone(), Value::Null, expected.clone())),
            }
        }
        let whole = decode(false);
        compared.push(("streamed".into(), values["streamed"].clone(), whole));
        compared
    }
}

/// The entries of a fixture.
pub fn entries(json: &Value) -> impl Iterator<Item = &Value> {
    json["entries"].as_array().into_iter().flatten()
}

/// Keys of an entry that describe the input.
fn is_input(key: &str) -> bool {
    [
        "case",
        "text",
        "pair",
        "max_length",
        "strategy",
        "stride",
        "direction",
        "note",
        "tie",
        "add_special_tokens",
    ]
    .contains(&key)
}

/// Keeps of an object only the keys that the reference has, all the way down.
fn restrict(got: &Value, expected: &Value) -> Value {
    match (got, expected) {
        (Value::Array(got), Value::Array(expected)) => got
            .iter()
            .enumerate()
            .map(|(i, value)| match expected.get(i).or(expected.last()) {
                Some(expected) => restrict(value, expected),
                None => value.clone(),
            })
            .collect(),
        (Value::Object(got), Value::Object(expected)) => got
            .iter()
            .filter_map(|(key, value)| {
                let expected = expected.get(key)?;
                Some((key.clone(), restrict(value, expected)))
            })
            .collect::<Map<_, _>>()
            .into(),
        _ => got.clone(),
    }
}

/// An encoding with the keys of the fixtures.
fn to_json(encoding: &Encoding) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("ids".into(), json!(encoding.ids));
    object.insert("tokens".into(), json!(encoding.tokens));
    object.insert("pieces".into(), json!(encoding.tokens));
    object.insert("type_ids".into(), json!(encoding.type_ids));
    object.insert("attention_mask".into(), json!(encoding.attention_mask));
    object.insert(
        "special_tokens_mask".into(),
        json!(encoding.special_tokens_mask),
    );
    object.insert("offsets".into(), json!(encoding.offsets));
    object.insert("word_ids".into(), json!(encoding.word_ids));
    object.insert("sequence_ids".into(), json!(encoding.sequence_ids));
    let overflowing: Vec<Value> = encoding
        .overflowing
        .iter()
        .map(|piece| Value::Object(to_json(piece)))
        .collect();
    object.insert("overflowing".into(), json!(overflowing));
    object
}

/// What the streaming decoder gives for ids that come one by one.
fn stream(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> Value {
    let mut stream = tokenizer.decode_stream(skip_special);
    let mut text = String::new();
    for &id in ids {
        match stream.push(id) {
            Ok(part) => text.push_str(&part),
            Err(error) => return json!({"error": error.to_string()}),
        }
    }
    match stream.finish() {
        Ok(part) => json!(text + &part),
        Err(error) => json!({"error": error.to_string()}),
    }
}

fn truncation(entry: &Value) -> Result<Truncation, String> {
    Ok(Truncation {
        max_length: number(entry, "max_length").ok_or("a truncation without max_length")?,
        strategy: match entry["strategy"].as_str() {
            Some("longest_first") | None => TruncationStrategy::LongestFirst,
            Some("only_first") => TruncationStrategy::OnlyFirst,
            Some("only_second") => TruncationStrategy::OnlySecond,
            Some(other) => return Err(format!("unknown truncation strategy {other:?}")),
        },
        stride: number(entry, "stride").unwrap_or(0),
        direction: side(entry)?,
    })
}

fn side(entry: &Value) -> Result<Side, String> {
    match entry["direction"].as_str() {
        Some("right") | None => Ok(Side::Right),
        Some("left") => Ok(Side::Left),
        Some(other) => Err(format!("unknown direction {other:?}")),
    }
}

fn number(entry: &Value, key: &str) -> Option<usize> {
    entry[key].as_u64().map(|number| number as usize)
}

/// The folder or file of a published vocabulary: `data/vocab/gpt2 (…)` is `gpt2` in the vocabulary folder.
fn published(vocab: &Path, named: &str) -> Result<PathBuf, String> {
    let relative = named.split(" (").next().unwrap_or(named).trim();
    let relative = relative.strip_prefix("data/vocab/").unwrap_or(relative);
    let path = vocab.join(relative);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!(
            "the vocabulary {} does not exist; name its folder with --vocab",
            path.display()
        ))
    }
}
