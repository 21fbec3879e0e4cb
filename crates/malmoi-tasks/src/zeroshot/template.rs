//! Templates: how a row of a data set becomes a question with its possible answers. Plain TOML, so that tasks are added without code.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::error::ZeroShotError;
use super::text::{Pattern, Values};

/// What is asked of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Which of some continuations is the most probable.
    #[default]
    Choice,
    /// How probable one continuation is, and whether it is the most probable text token by token.
    Word,
}

/// The keys of a template's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    description: String,
    #[serde(default)]
    kind: Kind,
    file: Option<String>,
    train_file: Option<String>,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    prompts: Vec<String>,
    #[serde(default)]
    choices: Vec<String>,
    choice_list: Option<String>,
    target: Option<String>,
    #[serde(default = "space")]
    delimiter: String,
    #[serde(default = "blank_line")]
    separator: String,
    #[serde(default)]
    preamble: String,
    label: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    label_base: usize,
    answer: Option<usize>,
    group: Option<String>,
    unconditional: Option<String>,
    #[serde(default)]
    values: Values,
}

fn space() -> String {
    " ".into()
}

fn blank_line() -> String {
    "\n\n".into()
}

/// Where the right answer stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// The same choice in every row.
    Fixed(usize),
    /// A column that holds a number, counted from the base.
    Number(String, usize),
    /// A column that holds one of these names, in the order of the choices.
    Name(String, Vec<String>),
}

/// Where the choices stand.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Choices {
    /// A text each.
    Texts(Vec<Pattern>),
    /// A column that holds a list.
    List(String),
}

/// A task for a language model without training.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// What it measures.
    pub description: String,
    /// What is asked.
    pub kind: Kind,
    /// Where its data usually lies, below a folder of data sets.
    pub file: Option<String>,
    /// Where the rows for examples before the question lie.
    pub train_file: Option<String>,
    /// What stands before each choice: one text for all of them, or one each.
    pub(super) prompts: Vec<Pattern>,
    pub(super) choices: Choices,
    pub(super) delimiter: String,
    pub(super) separator: String,
    pub(super) preamble: String,
    pub(super) answer: Answer,
    pub(super) group: Option<String>,
    pub(super) unconditional: Option<String>,
    pub(super) values: Values,
    source: String,
}

/// The templates that come with the program.
const SHIPPED: &[(&str, &str)] = &[
    ("arc", include_str!("templates/arc.toml")),
    ("blimp", include_str!("templates/blimp.toml")),
    ("boolq", include_str!("templates/boolq.toml")),
    ("copa", include_str!("templates/copa.toml")),
    ("esnli", include_str!("templates/esnli.toml")),
    ("hellaswag", include_str!("templates/hellaswag.toml")),
    ("lambada", include_str!("templates/lambada.toml")),
    ("piqa", include_str!("templates/piqa.toml")),
    ("polarity", include_str!("templates/polarity.toml")),
    ("winogrande", include_str!("templates/winogrande.toml")),
    ("ko_boolq", include_str!("templates/ko_boolq.toml")),
    ("ko_copa", include_str!("templates/ko_copa.toml")),
    ("ko_hellaswag", include_str!("templates/ko_hellaswag.toml")),
    ("ko_nli", include_str!("templates/ko_nli.toml")),
    ("ko_nsmc", include_str!("templates/ko_nsmc.toml")),
    (
        "ko_paraphrase",
        include_str!("templates/ko_paraphrase.toml"),
    ),
    ("ko_sentineg", include_str!("templates/ko_sentineg.toml")),
];

impl Template {
    /// The names of the shipped templates.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// A shipped template.
    ///
    /// # Errors
    /// [`ZeroShotError::Unknown`].
    pub fn shipped(name: &str) -> Result<Self, ZeroShotError> {
        match SHIPPED.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Self::parse(text, name, name),
            None => Err(ZeroShotError::Unknown {
                name: name.to_owned(),
                known: Self::names().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// Reads a template's file; it is called after the file.
    ///
    /// # Errors
    /// [`ZeroShotError`].
    pub fn read(path: &Path) -> Result<Self, ZeroShotError> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ZeroShotError::Syntax {
            origin: origin.clone(),
            problem: error.to_string(),
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&text, &name, &origin)
    }

    /// Reads a template from text. `origin` stands in messages.
    ///
    /// # Errors
    /// [`ZeroShotError::Syntax`], [`ZeroShotError::Setting`].
    pub fn parse(text: &str, name: &str, origin: &str) -> Result<Self, ZeroShotError> {
        let file: File = toml::from_str(text).map_err(|error| ZeroShotError::Syntax {
            origin: origin.to_owned(),
            problem: error.to_string(),
        })?;
        let wrong = |key: &str, expected: &str, found: String| ZeroShotError::Setting {
            origin: origin.to_owned(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let pattern = |key: &str, text: &String| {
            Pattern::parse(text).map_err(|problem| wrong(key, "a text with {column}s", problem))
        };
        let patterns = |key: &str, texts: &[String]| {
            texts
                .iter()
                .map(|text| pattern(key, text))
                .collect::<Result<Vec<_>, _>>()
        };
        let choices = match (&file.target, &file.choice_list, file.kind) {
            (Some(target), None, Kind::Word) if file.choices.is_empty() => {
                Choices::Texts(vec![pattern("target", target)?])
            }
            (_, _, Kind::Word) => {
                let found = "choices, or no target".to_owned();
                return Err(wrong("target", "one text, and no choices", found));
            }
            (None, Some(column), Kind::Choice) if file.choices.is_empty() => {
                Choices::List(column.clone())
            }
            (None, None, Kind::Choice) if file.choices.len() >= 2 => {
                Choices::Texts(patterns("choices", &file.choices)?)
            }
            _ => {
                let found = format!("{} choices", file.choices.len());
                return Err(wrong(
                    "choices",
                    "two texts or more, or choice_list with the column of a list",
                    found,
                ));
            }
        };
        let prompts = match (file.prompts.is_empty(), &choices) {
            (true, _) => vec![pattern("prompt", &file.prompt)?],
            (false, Choices::Texts(choices))
                if file.prompt.is_empty() && choices.len() == file.prompts.len() =>
            {
                patterns("prompts", &file.prompts)?
            }
            _ => {
                let found = format!("{} prompts", file.prompts.len());
                return Err(wrong(
                    "prompts",
                    "one for each of choices, and no prompt",
                    found,
                ));
            }
        };
        let answer = match (file.kind, file.answer, &file.label) {
            (Kind::Word, None, None) => Answer::Fixed(0),
            (Kind::Choice, Some(answer), None) => match &choices {
                Choices::Texts(choices) if answer >= choices.len() => {
                    return Err(wrong(
                        "answer",
                        "the number of a choice",
                        answer.to_string(),
                    ));
                }
                _ => Answer::Fixed(answer),
            },
            (Kind::Choice, None, Some(column)) if file.labels.is_empty() => {
                Answer::Number(column.clone(), file.label_base)
            }
            (Kind::Choice, None, Some(column)) => match &choices {
                Choices::Texts(choices) if choices.len() != file.labels.len() => {
                    let found = format!("{} labels", file.labels.len());
                    return Err(wrong("labels", "one name for each choice", found));
                }
                _ => Answer::Name(column.clone(), file.labels.clone()),
            },
            (_, answer, label) => {
                let found = format!("answer {answer:?}, label {label:?}");
                return Err(wrong(
                    "label",
                    "the column of the right choice, or answer with its number; neither for kind = \"word\"",
                    found,
                ));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            description: file.description,
            kind: file.kind,
            file: file.file,
            train_file: file.train_file,
            prompts,
            choices,
            delimiter: file.delimiter,
            separator: file.separator,
            preamble: file.preamble,
            answer,
            group: file.group,
            unconditional: file.unconditional,
            values: file.values,
            source: text.to_owned(),
        })
    }

    /// The file's text, as a start for a template of one's own.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The columns that every row needs.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: BTreeSet<&str> = self.prompts.iter().flat_map(Pattern::columns).collect();
        match &self.choices {
            Choices::Texts(choices) => columns.extend(choices.iter().flat_map(Pattern::columns)),
            Choices::List(column) => drop(columns.insert(column)),
        }
        match &self.answer {
            Answer::Fixed(_) => {}
            Answer::Number(column, _) | Answer::Name(column, _) => drop(columns.insert(column)),
        }
        columns.extend(self.group.as_deref());
        columns.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_template_can_be_read_and_says_what_it_is() {
        for name in Template::names() {
            let template = Template::shipped(name).unwrap();
            assert!(!template.description.is_empty(), "{name}");
            assert!(!template.columns().is_empty(), "{name}");
        }
        let unknown = Template::shipped("mmlu").unwrap_err().to_string();
        assert!(
            unknown.contains("lambada") && unknown.contains("--template"),
            "{unknown}"
        );
    }

    #[test]
    fn templates_that_contradict_themselves_are_refused() {
        for (text, part) in [
            ("prompt = \"x\"", "choices"),
            ("choices = [\"a\"]\nlabel = \"l\"", "choices"),
            ("choices = [\"a\", \"b\"]", "label"),
            ("choices = [\"a\", \"b\"]\nanswer = 2", "answer"),
            (
                "choices = [\"a\", \"b\"]\nlabel = \"l\"\nlabels = [\"x\"]",
                "labels",
            ),
            (
                "choices = [\"a\", \"b\"]\nanswer = 0\nprompts = [\"x\"]",
                "prompts",
            ),
            ("kind = \"word\"\nchoices = [\"a\", \"b\"]", "target"),
            ("choices = [\"{a\", \"b\"]\nanswer = 0", "single `{`"),
            ("shots = 3", "unknown field `shots`"),
        ] {
            let error = Template::parse(text, "t", "t.toml")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(part) && error.contains("t.toml"),
                "{text}: {error}"
            );
        }
    }
}
