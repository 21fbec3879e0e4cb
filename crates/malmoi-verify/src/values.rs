//! Comparison of plain JSON values: the references of objectives and metrics.

use serde_json::Value;

use crate::fixture::FixtureError;
use crate::report::{Comparison, Difference};

/// A short name for the type of a JSON value, for messages.
fn kind(value: Option<&Value>) -> String {
    match value {
        None => "nothing".into(),
        Some(Value::Null) => "null".into(),
        Some(Value::Bool(_)) => "a truth value".into(),
        Some(Value::Number(n)) => format!("the number {n}"),
        Some(Value::String(_)) => "a string".into(),
        Some(Value::Array(_)) => "a list".into(),
        Some(Value::Object(_)) => "an object".into(),
    }
}

/// Typed access to the members of a JSON object, with errors that name the member.
pub struct Fields<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Fields<'a> {
    /// Access to `value`, which messages call `path`.
    pub fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self {
            path: path.into(),
            value,
        }
    }

    /// Name of a member in messages.
    pub fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// True when the member exists and is not null.
    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(|v| !v.is_null())
    }

    /// A member of any type.
    ///
    /// # Errors
    /// [`FixtureError::Value`] when it does not exist.
    pub fn get(&self, key: &str) -> Result<&'a Value, FixtureError> {
        self.value
            .get(key)
            .ok_or_else(|| self.wrong(key, "a value"))
    }

    fn wrong(&self, key: &str, expected: &str) -> FixtureError {
        FixtureError::Value {
            key: self.path(key),
            expected: expected.into(),
            found: kind(self.value.get(key)),
        }
    }

    /// A member that deserialises to `T`.
    ///
    /// # Errors
    /// [`FixtureError::Value`] when it does not exist or has another form.
    pub fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T, FixtureError> {
        let value = self.get(key)?;
        serde_json::from_value(value.clone()).map_err(|error| FixtureError::Value {
            key: self.path(key),
            expected: std::any::type_name::<T>().to_owned(),
            found: error.to_string(),
        })
    }

    /// A list of 0 and 1 as truth values.
    ///
    /// # Errors
    /// [`FixtureError::Value`] when it does not exist or is not a list of integers.
    pub fn flags(&self, key: &str) -> Result<Vec<bool>, FixtureError> {
        Ok(self
            .read::<Vec<i64>>(key)?
            .into_iter()
            .map(|v| v != 0)
            .collect())
    }

    /// Compares `got` with the member `key`: see [`compare_values`]. A member that does not exist fails the comparison.
    pub fn compare(&self, key: &str, got: impl serde::Serialize, tolerance: f64) -> Comparison {
        let name = self.path(key);
        match (self.value.get(key), serde_json::to_value(got)) {
            (None, _) => Comparison::failed(name, "the reference holds no such value"),
            (_, Err(error)) => Comparison::failed(name, error.to_string()),
            (Some(expected), Ok(got)) => compare_values(&name, &got, expected, tolerance),
        }
    }
}

/// Compares two JSON values: numbers within an absolute `tolerance` (0: equal), everything else exactly. Objects are compared on
/// the members of the reference. The index of a difference is the path through the lists.
pub fn compare_values(name: &str, got: &Value, expected: &Value, tolerance: f64) -> Comparison {
    let mut walk = Walk {
        tolerance,
        elements: 0,
        worst: 0.0,
        outside: 0,
        first: None,
    };
    walk.visit(got, expected, &mut Vec::new());
    let difference = walk
        .first
        .map(|(index, got, expected)| Difference::Element {
            index,
            got,
            expected,
            outside: walk.outside,
        });
    Comparison {
        name: name.to_owned(),
        elements: walk.elements,
        worst: walk.worst,
        difference,
    }
}

struct Walk {
    tolerance: f64,
    elements: usize,
    worst: f64,
    outside: usize,
    first: Option<(Vec<usize>, String, String)>,
}

impl Walk {
    fn differ(&mut self, index: &[usize], got: &Value, expected: &Value, ratio: f64) {
        self.worst = self.worst.max(ratio);
        self.outside += 1;
        if self.first.is_none() {
            self.first = Some((index.to_vec(), got.to_string(), expected.to_string()));
        }
    }

    fn visit(&mut self, got: &Value, expected: &Value, index: &mut Vec<usize>) {
        match (got, expected) {
            (Value::Array(g), Value::Array(e)) if g.len() == e.len() => {
                for (i, (g, e)) in g.iter().zip(e).enumerate() {
                    index.push(i);
                    self.visit(g, e, index);
                    index.pop();
                }
            }
            (Value::Object(g), Value::Object(e)) => {
                for (i, (key, e)) in e.iter().enumerate() {
                    index.push(i);
                    self.visit(g.get(key).unwrap_or(&Value::Null), e, index);
                    index.pop();
                }
            }
            (Value::Number(g), Value::Number(e)) => {
                self.elements += 1;
                let (gf, ef) = (
                    g.as_f64().unwrap_or(f64::NAN),
                    e.as_f64().unwrap_or(f64::NAN),
                );
                let error = (gf - ef).abs();
                let ratio = if error == 0.0 {
                    0.0
                } else if self.tolerance > 0.0 {
                    error / self.tolerance
                } else {
                    f64::INFINITY
                };
                self.worst = self.worst.max(ratio);
                if ratio > 1.0 || !ratio.is_finite() {
                    self.differ(
                        index,
                        got,
                        expected,
                        if ratio.is_nan() { f64::INFINITY } else { ratio },
                    );
                }
            }
            _ => {
                self.elements += 1;
                if got != expected {
                    self.differ(index, got, expected, f64::INFINITY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_compare_within_the_tolerance_and_lists_by_element() {
        assert!(compare_values("x", &json!([1.0, 2]), &json!([1.0 + 1e-12, 2]), 1e-9).passes());
        let c = compare_values("x", &json!([[1], [2, 4]]), &json!([[1], [2, 3]]), 0.0);
        assert!(
            matches!(c.difference, Some(Difference::Element { ref index, .. }) if index == &[1, 1])
        );
    }

    #[test]
    fn other_lengths_missing_members_and_nulls_differ() {
        assert!(!compare_values("x", &json!([1]), &json!([1, 2]), 1e-9).passes());
        assert!(!compare_values("x", &json!({}), &json!({"a": 1}), 1e-9).passes());
        assert!(!compare_values("x", &json!(null), &json!(1.0), 1e-9).passes());
        assert!(
            !compare_values(
                "x",
                &serde_json::to_value(f64::NAN).unwrap(),
                &json!(1.0),
                1e-9
            )
            .passes()
        );
    }
}
