//! Texts with placeholders: `{column}`, with filters `{column|trim|before:_}`; `{{` and `}}` stand for braces.

use std::collections::BTreeMap;

use serde_json::Value;

/// Names that text of a column is replaced by, for each column.
pub(super) type Values = BTreeMap<String, BTreeMap<String, String>>;

/// A text with placeholders, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Column(String, Vec<Filter>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    /// Without white space at both ends.
    Trim,
    /// Without the last character.
    Chop,
    /// In lower case.
    Lower,
    /// The first letter in lower case.
    LowerFirst,
    /// The first letter in upper case.
    UpperFirst,
    /// With this at the end, once.
    End(String),
    /// What stands before the first occurrence of this.
    Before(String),
    /// What stands after the first occurrence of this.
    After(String),
}

impl Filter {
    const NAMES: &'static str =
        "trim, chop, lower, lower_first, upper_first, end:TEXT, before:TEXT, after:TEXT";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text.split_once(':') {
            Some(("end", argument)) => Self::End(argument.to_owned()),
            Some(("before", argument)) => Self::Before(argument.to_owned()),
            Some(("after", argument)) => Self::After(argument.to_owned()),
            _ => match text {
                "trim" => Self::Trim,
                "chop" => Self::Chop,
                "lower" => Self::Lower,
                "lower_first" => Self::LowerFirst,
                "upper_first" => Self::UpperFirst,
                _ => {
                    return Err(format!(
                        "there is no filter `{text}`; expected one of {}",
                        Self::NAMES
                    ));
                }
            },
        })
    }

    fn apply(&self, text: &str) -> String {
        let first = |change: fn(char) -> String| {
            let mut rest = text.chars();
            let first = rest.next().map(change).unwrap_or_default();
            first + rest.as_str()
        };
        match self {
            Self::Trim => text.trim().to_owned(),
            Self::Chop => {
                let mut rest = text.chars();
                rest.next_back();
                rest.as_str().to_owned()
            }
            Self::Lower => text.to_lowercase(),
            Self::LowerFirst => first(|c| c.to_lowercase().collect()),
            Self::UpperFirst => first(|c| c.to_uppercase().collect()),
            Self::End(end) => [text.strip_suffix(end.as_str()).unwrap_or(text), end].concat(),
            Self::Before(mark) => text
                .split_once(mark.as_str())
                .map_or(text, |(before, _)| before)
                .to_owned(),
            Self::After(mark) => text
                .split_once(mark.as_str())
                .map_or("", |(_, after)| after)
                .to_owned(),
        }
    }
}

impl Pattern {
    /// Parses a text; the error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..at + 1];
            rest = &rest[at + 1..];
            if let Some(doubled) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = doubled;
                continue;
            }
            let inside = match (brace, rest.split_once('}')) {
                ("{", Some((inside, after))) if !inside.contains('{') => {
                    rest = after;
                    inside
                }
                _ => {
                    return Err(format!(
                        "a single `{brace}` in {text:?}; write {{column}}, or `{brace}{brace}` for the brace itself"
                    ));
                }
            };
            let mut pieces = inside.split('|');
            let column = pieces.next().unwrap_or_default().trim().to_owned();
            if column.is_empty() {
                return Err(format!("a placeholder without a column in {text:?}"));
            }
            let filters = pieces.map(Filter::parse).collect::<Result<_, _>>()?;
            parts.push(Part::Literal(std::mem::take(&mut literal)));
            parts.push(Part::Column(column, filters));
        }
        literal.push_str(rest);
        parts.push(Part::Literal(literal));
        parts.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// The columns it reads.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Column(column, _) => Some(column.as_str()),
        })
    }

    /// The text with its columns filled in; the error is a column that is absent or holds no text.
    pub(super) fn fill(
        &self,
        cells: &serde_json::Map<String, Value>,
        values: &Values,
    ) -> Result<String, (String, Option<Value>)> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Column(column, filters) => {
                    let value = lookup(cells, column);
                    let Some(text) = value.and_then(plain) else {
                        return Err((column.clone(), value.cloned()));
                    };
                    let renamed = values.get(column).and_then(|names| names.get(text.trim()));
                    let text = renamed.cloned().unwrap_or(text);
                    out.push_str(
                        &filters
                            .iter()
                            .fold(text, |text, filter| filter.apply(&text)),
                    );
                }
            }
        }
        Ok(out)
    }
}

/// A cell by its name, or by a path of names into objects (`choices.text`).
pub(super) fn lookup<'a>(
    cells: &'a serde_json::Map<String, Value>,
    path: &str,
) -> Option<&'a Value> {
    if let Some(value) = cells.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    lookup(cells.get(first)?.as_object()?, rest)
}

/// A value as text: strings, numbers and truth values.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(text: &str) -> String {
        let cells =
            json!({"a": "The cat.", "gap": "x _ y", "n": 3, "deep": {"text": "in"}, "k": "cause"});
        let values = Values::from([(
            "k".into(),
            BTreeMap::from([("cause".into(), "because".into())]),
        )]);
        Pattern::parse(text)
            .unwrap()
            .fill(cells.as_object().unwrap(), &values)
            .unwrap()
    }

    #[test]
    fn columns_and_filters_are_filled_in() {
        assert_eq!(filled("{a|chop} {k} {n}"), "The cat because 3");
        assert_eq!(filled("{a|chop|lower_first|end:?}"), "the cat?");
        assert_eq!(filled("{a|end:.}"), "The cat.");
        assert_eq!(filled("[{gap|before:_}][{gap|after:_|trim}]"), "[x ][y]");
        assert_eq!(filled("{deep.text|upper_first} {{a}}"), "In {a}");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("{a", "single `{`"),
            ("a}", "single `}`"),
            ("{}", "without a column"),
            ("{a|shout}", "no filter `shout`"),
        ] {
            let problem = Pattern::parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
        let cells = json!({"list": ["x"]});
        let fill = |text| {
            Pattern::parse(text)
                .unwrap()
                .fill(cells.as_object().unwrap(), &Values::new())
        };
        assert_eq!(fill("{b}"), Err(("b".into(), None)));
        assert_eq!(fill("{list}"), Err(("list".into(), Some(json!(["x"])))));
    }
}
