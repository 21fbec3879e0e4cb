//! Reading, overriding and comparing configurations.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::PretrainConfig;
use crate::error::TrainError;

impl PretrainConfig {
    /// Reads a configuration file, applies overrides of the form `a.b=c`, and validates the result.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::Syntax`], [`TrainError::Override`], [`TrainError::Config`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, TrainError> {
        Self::parse(&text_of(path)?, &path.display().to_string(), overrides)
    }

    /// Like [`PretrainConfig::load`], from text. `origin` stands in messages.
    ///
    /// # Errors
    /// [`TrainError::Syntax`], [`TrainError::Override`], [`TrainError::Config`].
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self, TrainError> {
        let config: Self = read(text, origin, overrides)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as TOML, every default written out.
    ///
    /// # Errors
    /// [`TrainError::Syntax`] when a value has no TOML form (a seed above 2^63).
    pub fn to_toml(&self) -> Result<String, TrainError> {
        written(self)
    }

    /// Keys in which `other` differs, as "key: was X, now Y". Keys that change nothing about what is computed (`log`,
    /// `checkpoint`, where the data lies) are left out.
    pub fn changes(&self, other: &Self) -> Vec<String> {
        // The corpus is known by its hash, so the place it is read from may change.
        changes(
            self,
            other,
            &["log", "checkpoint", "data.dir", "data.train", "data.valid"],
        )
    }
}

/// The text of a configuration file.
pub(crate) fn text_of(path: &Path) -> Result<String, TrainError> {
    let bytes = std::fs::read(path).map_err(|e| TrainError::io("read", path, e))?;
    String::from_utf8(bytes).map_err(|e| TrainError::Syntax {
        origin: path.display().to_string(),
        problem: format!(
            "byte {} isn't UTF-8; expected a TOML file in UTF-8, save it as that",
            e.utf8_error().valid_up_to()
        ),
    })
}

/// Reads a configuration from text, with overrides of the form `a.b=c`. `origin` stands in messages.
pub(crate) fn read<T: DeserializeOwned>(
    text: &str,
    origin: &str,
    overrides: &[String],
) -> Result<T, TrainError> {
    if overrides.is_empty() {
        // From the text, so that a message can point at the line.
        return toml::from_str(text).map_err(|e| syntax(origin, e));
    }
    T::deserialize(table(text, origin, overrides)?).map_err(|e| syntax(origin, e))
}

/// The table of a text with overrides.
pub(crate) fn table(text: &str, origin: &str, overrides: &[String]) -> Result<Table, TrainError> {
    let mut table: Table = toml::from_str(text).map_err(|e| syntax(origin, e))?;
    assign(&mut table, overrides)?;
    Ok(table)
}

/// Applies overrides of the form `a.b=c`.
pub(crate) fn assign(table: &mut Table, overrides: &[String]) -> Result<(), TrainError> {
    overrides
        .iter()
        .try_for_each(|assignment| set(table, assignment))
}

/// A configuration that does not have the expected shape.
pub(crate) fn syntax(origin: &str, problem: toml::de::Error) -> TrainError {
    TrainError::Syntax {
        origin: origin.to_string(),
        problem: problem.to_string().trim_end().to_string(),
    }
}

/// A configuration as TOML.
pub(crate) fn written(config: &impl Serialize) -> Result<String, TrainError> {
    toml::to_string(config).map_err(|e| TrainError::Syntax {
        origin: "the configuration".into(),
        problem: e.to_string(),
    })
}

/// Keys in which two configurations differ, as "key: was X, now Y". Keys and sections in `free` are left out.
pub(crate) fn changes<T: Serialize>(before: &T, now: &T, free: &[&str]) -> Vec<String> {
    let (before, now) = (flat(before, free), flat(now, free));
    let show = |value: Option<&String>| value.map_or("absent".to_string(), Clone::clone);
    let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| before.get(*key) != now.get(*key))
        .map(|key| {
            format!(
                "{key}: was {}, now {}",
                show(before.get(key)),
                show(now.get(key))
            )
        })
        .collect()
}

/// Every key with its value, but for those in `free`.
fn flat(config: &impl Serialize, free: &[&str]) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    let Ok(Value::Table(table)) = Value::try_from(config) else {
        return flat;
    };
    let mut open: Vec<(String, Value)> = table.into_iter().collect();
    while let Some((key, value)) = open.pop() {
        if free.contains(&key.as_str()) {
            continue;
        }
        match value {
            Value::Table(table) => {
                open.extend(
                    table
                        .into_iter()
                        .map(|(name, value)| (format!("{key}.{name}"), value)),
                );
            }
            other => {
                flat.insert(key, other.to_string());
            }
        }
    }
    flat
}

/// Applies one `a.b=c`. The right side is read as TOML, and as a string when it isn't (`objective.kind=clm`).
fn set(table: &mut Table, assignment: &str) -> Result<(), TrainError> {
    let bad = |problem: String| TrainError::Override {
        assignment: assignment.to_string(),
        problem,
    };
    let Some((path, text)) = assignment.split_once('=') else {
        return Err(bad("expected KEY=VALUE, such as train.steps=100".into()));
    };
    let value = value(text.trim());
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(bad(
            "the key has an empty part; expected KEY=VALUE, such as train.steps=100".into(),
        ));
    }
    let last = keys.pop().unwrap_or_default();
    let mut section = table;
    for key in keys {
        section = match section
            .entry(key)
            .or_insert_with(|| Value::Table(Table::new()))
        {
            Value::Table(inner) => inner,
            other => {
                return Err(bad(format!(
                    "`{key}` is {}, not a section",
                    other.type_str()
                )));
            }
        };
    }
    section.insert(last.to_string(), value);
    Ok(())
}

fn value(text: &str) -> Value {
    #[derive(Deserialize, Serialize)]
    struct Line {
        value: Value,
    }
    match toml::from_str::<Line>(&format!("value = {text}")) {
        Ok(line) => line.value,
        Err(_) => Value::String(text.to_string()),
    }
}
