//! Readers of keys that several published configurations share.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{Activation, Sharing};
use serde_json::{Map, Value};

use crate::common::LabelSet;
use crate::config::Sizes;
use crate::head::ProblemType;

type Result<T> = std::result::Result<T, ConfigError>;

/// Published names of activations. Where several stand for one, the first is written.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("quick_gelu", Activation::QuickGelu),
    ("linear", Activation::Identity),
    ("relu2", Activation::ReluSquared),
    ("leaky_relu", Activation::LeakyRelu),
    ("mish", Activation::Mish),
];

/// A size above zero; `default` stands in for an absent key.
pub fn positive(read: &ConfigReader<'_>, key: &str, default: Option<usize>) -> Result<usize> {
    let value = match default {
        Some(default) => read.usize_or(key, default)?,
        None => read.usize(key)?,
    };
    if value == 0 {
        Err(read.wrong_type(key, &Value::from(0), "a number above 0"))
    } else {
        Ok(value)
    }
}

/// A dropout rate in `[0, 1)`.
pub fn rate(read: &ConfigReader<'_>, key: &str, default: f64) -> Result<f32> {
    let value = read.f64_or(key, default)?;
    if (0.0..1.0).contains(&value) {
        Ok(value as f32)
    } else {
        Err(read.wrong_type(key, &Value::from(value), "a rate of at least 0 and below 1"))
    }
}

/// A token id that may be absent. Of several (end tokens of chat models) the first counts: it belongs to generation, which reads the
/// others from its own file.
pub fn token(read: &ConfigReader<'_>, key: &str) -> Result<Option<u32>> {
    let given = read.value(key).map(|value| match value.as_array() {
        Some(list) => list.first().unwrap_or(&Value::Null),
        None => value,
    });
    match given {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().map(u32::try_from) {
            Some(Ok(id)) => Ok(Some(id)),
            _ => Err(read.wrong_type(key, value, "a token id")),
        },
    }
}

/// An activation by its published name.
pub fn activation(read: &ConfigReader<'_>, key: &str, default: &str) -> Result<Activation> {
    activation_named(read, key, read.optional_str(key)?.unwrap_or(default))
}

/// The activation with a published name that stands in `key`.
pub fn activation_named(read: &ConfigReader<'_>, key: &str, name: &str) -> Result<Activation> {
    let found = ACTIVATIONS.iter().find(|(published, _)| *published == name);
    found.map(|(_, activation)| *activation).ok_or_else(|| {
        let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
        read.unsupported(key, &Value::from(name), &names.join(", "))
    })
}

/// The published name of an activation.
pub fn activation_name(activation: Activation) -> &'static str {
    let found = ACTIVATIONS.iter().find(|(_, known)| *known == activation);
    found.expect("every activation has a published name").0
}

/// Reads the width of the hidden states and the number of heads, each under a key with a default. Where `free` names a key and the key is
/// there, heads have a width of their own; else they divide the width of the hidden states.
pub fn heads(
    read: &ConfigReader<'_>,
    (d_key, d_default): (&str, Option<usize>),
    (heads_key, n_default): (&str, Option<usize>),
    free: Option<&str>,
) -> Result<Sizes> {
    let d_model = positive(read, d_key, d_default)?;
    let n_heads = positive(read, heads_key, n_default)?;
    let sizes = Sizes::of_heads(d_model, n_heads);
    match free.filter(|key| read.value(key).is_some()) {
        Some(key) => Ok(Sizes {
            d_head: positive(read, key, None)?,
            ..sizes
        }),
        None => {
            divisible(read, d_key, d_model, heads_key, n_heads)?;
            Ok(sizes)
        }
    }
}

/// Refuses a width that the heads do not divide.
pub fn divisible(
    read: &ConfigReader<'_>,
    key: &str,
    value: usize,
    by_key: &str,
    by: usize,
) -> Result<()> {
    if value.is_multiple_of(by) {
        return Ok(());
    }
    Err(read.wrong_type(
        key,
        &Value::from(value),
        &format!("a multiple of `{by_key}` = {by}"),
    ))
}

/// Layers that share their parameters, by ALBERT's key `num_hidden_groups`. In other architectures the key is ours: Python
/// ignores it, and finds the shared weights under the name of every layer.
pub fn sharing(read: &ConfigReader<'_>, n_layers: usize) -> Result<Sharing> {
    let Some(n_groups) = read.optional_usize("num_hidden_groups")? else {
        return Ok(Sharing::None);
    };
    if n_groups == 0 || n_groups > n_layers {
        let expected = format!("from 1 to the number of layers, {n_layers}");
        return Err(read.wrong_type("num_hidden_groups", &Value::from(n_groups), &expected));
    }
    Ok(Sharing::Groups {
        n_groups,
        n_inner: 1,
    })
}

/// Writes what [`sharing`] reads.
pub fn write_sharing(config: &mut Value, sharing: Sharing) {
    if let Sharing::Groups { n_groups, .. } = sharing {
        config["num_hidden_groups"] = n_groups.into();
    }
}

/// Reads `id2label`, `num_labels` and `problem_type`; two labels are the published default.
pub fn labels(read: &ConfigReader<'_>) -> Result<LabelSet> {
    let labels = read.labels()?.unwrap_or_default();
    let problem_type = match read.optional_str("problem_type")? {
        None => None,
        Some("single_label_classification") => Some(ProblemType::SingleLabel),
        Some("multi_label_classification") => Some(ProblemType::MultiLabel),
        Some("regression") => Some(ProblemType::Regression),
        Some(other) => {
            let known = "single_label_classification, multi_label_classification or regression";
            return Err(read.unsupported("problem_type", &Value::from(other), known));
        }
    };
    Ok(LabelSet {
        n_labels: if labels.is_empty() { 2 } else { labels.len() },
        labels,
        problem_type,
    })
}

/// Writes what [`labels`] reads.
pub fn write_labels(config: &mut Value, set: &LabelSet) {
    let LabelSet {
        labels,
        problem_type,
        ..
    } = set;
    if !labels.is_empty() {
        let by_id: Map<String, Value> = labels
            .iter()
            .enumerate()
            .map(|(id, label)| (id.to_string(), label.clone().into()))
            .collect();
        let by_label: Map<String, Value> = labels
            .iter()
            .enumerate()
            .map(|(id, label)| (label.clone(), id.into()))
            .collect();
        config["id2label"] = by_id.into();
        config["label2id"] = by_label.into();
    }
    if let Some(problem_type) = problem_type {
        config["problem_type"] = match problem_type {
            ProblemType::SingleLabel => "single_label_classification",
            ProblemType::MultiLabel => "multi_label_classification",
            ProblemType::Regression => "regression",
        }
        .into();
    }
}

/// The shortest decimal of an `f32`, so that 0.1 is written as 0.1 and not as its nearest double.
pub fn decimal(value: f32) -> f64 {
    value
        .to_string()
        .parse()
        .expect("a float prints as a number")
}
