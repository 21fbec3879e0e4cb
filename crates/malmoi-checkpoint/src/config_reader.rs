//! Reading a published `config.json` strictly: every key is used, known to be inert, or refused.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::inert;

/// What is wrong with a `config.json`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file holds something other than an object.
    #[error("config.json: expected an object of settings, found {found}; fetch it again")]
    NotAnObject {
        /// The kind of JSON value found.
        found: &'static str,
    },
    /// A required key is absent.
    #[error("config.json ({model_type}): `{key}` is missing, expected {expected}; add it")]
    Missing {
        /// The architecture.
        model_type: String,
        /// The key.
        key: String,
        /// The kind of value expected.
        expected: &'static str,
    },
    /// A key has a value of the wrong kind.
    #[error("config.json ({model_type}): `{key}` is {found}, expected {expected}; correct it")]
    WrongType {
        /// The architecture.
        model_type: String,
        /// The key.
        key: String,
        /// The value found, shortened.
        found: String,
        /// The kind of value expected.
        expected: String,
    },
    /// A key asks for something that isn't implemented.
    #[error(
        "config.json ({model_type}): `{key}` = {found} isn't supported, expected {expected}; use a model without it"
    )]
    Unsupported {
        /// The architecture.
        model_type: String,
        /// The key.
        key: String,
        /// The value found, shortened.
        found: String,
        /// The supported values.
        expected: String,
    },
    /// Keys that nobody reads.
    #[error("config.json ({model_type}): unknown keys {}; they may change the computation. Remove them, or pass \
        `--accept-unknown-config` to ignore them", keys.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", "))]
    Unknown {
        /// The architecture.
        model_type: String,
        /// The keys.
        keys: Vec<String>,
    },
}

type Result<T> = std::result::Result<T, ConfigError>;

/// Reads one `config.json`, remembering which keys were asked for.
///
/// A key with the value `null` counts as absent. [`finish`](Self::finish) refuses every key that
/// nobody asked for and that isn't in a list of inert ones.
#[derive(Debug)]
pub struct ConfigReader<'a> {
    map: &'a Map<String, Value>,
    model_type: String,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> ConfigReader<'a> {
    /// Starts reading `config`; `model_type` names the architecture in messages.
    ///
    /// # Errors
    /// [`ConfigError::NotAnObject`].
    pub fn new(config: &'a Value, model_type: &str) -> Result<Self> {
        let map = config.as_object().ok_or(ConfigError::NotAnObject {
            found: kind(config),
        })?;
        Ok(Self {
            map,
            model_type: model_type.to_string(),
            read: RefCell::default(),
        })
    }

    /// The raw value of a key, `None` when it is absent or null. The key counts as read.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_string());
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key is there and not null; it does not count as read.
    pub fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// Whether a key is there and null, for the few where that means something else than its absence; it does not count as read.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    fn get<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(self.wrong_type(key, value, expected)),
        }
    }

    fn required<T>(&self, key: &str, expected: &'static str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| ConfigError::Missing {
            model_type: self.model_type.clone(),
            key: key.into(),
            expected,
        })
    }

    /// An error for a value that has the right kind but can't be (an odd head count).
    pub fn wrong_type(&self, key: &str, found: &Value, expected: &str) -> ConfigError {
        ConfigError::WrongType {
            model_type: self.model_type.clone(),
            key: key.into(),
            found: shorten(found),
            expected: expected.into(),
        }
    }

    /// An error for a setting that isn't implemented.
    pub fn unsupported(&self, key: &str, found: &Value, expected: &str) -> ConfigError {
        ConfigError::Unsupported {
            model_type: self.model_type.clone(),
            key: key.into(),
            found: shorten(found),
            expected: expected.into(),
        }
    }

    /// A required size or count.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] or [`ConfigError::WrongType`].
    pub fn usize(&self, key: &str) -> Result<usize> {
        self.required(key, NON_NEGATIVE, self.optional_usize(key)?)
    }

    /// A size or count, `default` when absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_usize(key)?.unwrap_or(default))
    }

    /// A size or count that may be absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn optional_usize(&self, key: &str) -> Result<Option<usize>> {
        self.get(key, NON_NEGATIVE, |v| usize::try_from(v.as_u64()?).ok())
    }

    /// A whole number that may be negative, `default` when absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn i64_or(&self, key: &str, default: i64) -> Result<i64> {
        Ok(self
            .get(key, "a whole number", Value::as_i64)?
            .unwrap_or(default))
    }

    /// A required number.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] or [`ConfigError::WrongType`].
    pub fn f64(&self, key: &str) -> Result<f64> {
        self.required(key, "a number", self.optional_f64(key)?)
    }

    /// A number, `default` when absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn f64_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.optional_f64(key)?.unwrap_or(default))
    }

    /// A number that may be absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn optional_f64(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a number", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    /// A required truth value.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] or [`ConfigError::WrongType`].
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.required(
            key,
            "true or false",
            self.get(key, "true or false", Value::as_bool)?,
        )
    }

    /// A truth value, `default` when absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self
            .get(key, "true or false", Value::as_bool)?
            .unwrap_or(default))
    }

    /// A required string.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] or [`ConfigError::WrongType`].
    pub fn str(&self, key: &str) -> Result<&'a str> {
        self.required(key, "a string", self.optional_str(key)?)
    }

    /// A string, `default` when absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn str_or(&self, key: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.optional_str(key)?.unwrap_or(default))
    }

    /// A string that may be absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn optional_str(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a string", Value::as_str)
    }

    /// A list of sizes that may be absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn optional_usizes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.get(key, "a list of non-negative whole numbers", |v| {
            v.as_array()?
                .iter()
                .map(|x| usize::try_from(x.as_u64()?).ok())
                .collect()
        })
    }

    /// A list of strings that may be absent.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`].
    pub fn optional_strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.get(key, "a list of strings", |v| {
            v.as_array()?
                .iter()
                .map(|x| x.as_str().map(str::to_string))
                .collect()
        })
    }

    /// The labels of a classification head in order of their numbers, from `id2label` or, without
    /// it, `LABEL_0 …` for `num_labels`; `None` when the config has neither.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`] when the numbers aren't 0, 1, 2 … or `num_labels` disagrees.
    pub fn labels(&self) -> Result<Option<Vec<String>>> {
        let count = self.optional_usize("num_labels")?;
        if let Some(n) = count.filter(|&n| n > MAX_LABELS) {
            let expected = format!("at most {MAX_LABELS}");
            return Err(self.wrong_type("num_labels", &Value::from(n), &expected));
        }
        let Some(value) = self.value("id2label") else {
            return Ok(count.map(|n| (0..n).map(|i| format!("LABEL_{i}")).collect()));
        };
        let ordered = value.as_object().and_then(|map| {
            (0..map.len())
                .map(|i| Some(map.get(&i.to_string())?.as_str()?.to_string()))
                .collect::<Option<Vec<_>>>()
        });
        let Some(labels) = ordered else {
            return Err(self.wrong_type(
                "id2label",
                value,
                "an object of label names under \"0\", \"1\", \"2\" …",
            ));
        };
        match count {
            Some(n) if n != labels.len() => Err(self.wrong_type(
                "num_labels",
                &Value::from(n),
                &format!("{} as in `id2label`", labels.len()),
            )),
            _ => Ok(Some(labels)),
        }
    }

    /// Refuses, by name, any value of `key` other than `supported`; an absent key is fine.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`].
    pub fn refuse_unless(&self, key: &str, supported: impl Into<Value>) -> Result<()> {
        self.refuse_unless_any(key, &[supported.into()])
    }

    /// Refuses, by name, any value of `key` that isn't one of `supported`; an absent key is fine.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`].
    pub fn refuse_unless_any(&self, key: &str, supported: &[Value]) -> Result<()> {
        match self.value(key) {
            Some(value) if !supported.iter().any(|s| equal(s, value)) => {
                let list: Vec<String> = supported.iter().map(shorten).collect();
                Err(self.unsupported(key, value, &list.join(" or ")))
            }
            _ => Ok(()),
        }
    }

    /// Declares keys that change nothing, whatever their value.
    pub fn inert(&self, keys: &[&str]) -> &Self {
        self.read
            .borrow_mut()
            .extend(keys.iter().map(|key| key.to_string()));
        self
    }

    /// Ends reading. Keys that are inert in every architecture ([`inert::ANY_VALUE`],
    /// [`inert::AT_VALUE`]) are accepted; the latter only at their inert value. Other keys that
    /// nobody asked for are an error, or are returned when `accept_unknown` is set.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`] or [`ConfigError::Unknown`].
    pub fn finish(self, accept_unknown: bool) -> Result<Vec<String>> {
        for (key, allowed) in inert::at_value() {
            if self.has(key) && !self.read.borrow().contains(key) {
                self.refuse_unless_any(key, &allowed)?;
            }
        }
        let read = self.read.borrow();
        let unknown: Vec<String> = self
            .map
            .iter()
            .filter(|(key, value)| {
                !value.is_null()
                    && !read.contains(*key)
                    && !inert::ANY_VALUE.contains(&key.as_str())
            })
            .map(|(key, _)| key.clone())
            .collect();
        if unknown.is_empty() || accept_unknown {
            return Ok(unknown);
        }
        Err(ConfigError::Unknown {
            model_type: self.model_type.clone(),
            keys: unknown,
        })
    }
}

/// More classes than any published head has; a larger number is damage that would exhaust memory.
const MAX_LABELS: usize = 1 << 20;

const NON_NEGATIVE: &str = "a non-negative whole number";

/// Equality in which 1 and 1.0 are the same number, as in Python.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value for a message, at most 60 characters of it.
fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{} …", &text[..cut]),
        None => text,
    }
}
