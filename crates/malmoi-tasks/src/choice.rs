//! Multiple choice: every choice is read together with the context, and the one with the largest logit wins (Radford et al. 2018;
//! Devlin et al. 2019, section 4.4).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::classify::Classify;
use crate::encoder::{Encoded, Encoder};
use crate::error::TaskError;
use crate::records::Record;
use crate::task::{Case, OutputKind, Prediction, Task, Truth, best, probabilities};

/// One of several continuations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Choice {
    /// Column of the context.
    pub text_column: String,
    /// Column of a question that follows the context.
    pub question_column: Option<String>,
    /// Columns of the choices, one each; or one column with lists (JSON lines, Parquet).
    pub choice_columns: Vec<String>,
    /// Column of the right choice: its number from 0.
    pub label_column: String,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            text_column: "text".into(),
            question_column: None,
            choice_columns: vec!["choices".into()],
            label_column: "label".into(),
        }
    }
}

impl Choice {
    fn choices(&self, record: &Record) -> Result<Vec<String>, TaskError> {
        let choices = match self.choice_columns.as_slice() {
            [list] => record.texts(list)?,
            columns => columns
                .iter()
                .map(|column| record.text(column))
                .collect::<Result<Vec<_>, _>>()?,
        };
        match choices.len() {
            0 | 1 => Err(record.bad(
                &self.choice_columns.join(", "),
                format!("{} choices", choices.len()),
                "at least two choices",
            )),
            _ => Ok(choices),
        }
    }

    fn label(&self, record: &Record, n: usize) -> Result<u32, TaskError> {
        let label = record.text(&self.label_column)?;
        match label.trim().parse::<usize>() {
            Ok(label) if label < n => Ok(label as u32),
            _ => Err(TaskError::BadChoice {
                place: record.place(),
                column: self.label_column.clone(),
                found: label,
                choices: n,
            }),
        }
    }
}

impl Task for Choice {
    fn name(&self) -> &'static str {
        "choice"
    }

    fn output(&self) -> OutputKind {
        OutputKind::Choice
    }

    fn inputs(&self) -> Vec<&str> {
        let mut columns = vec![self.text_column.as_str()];
        columns.extend(self.question_column.as_deref());
        columns.extend(self.choice_columns.iter().map(String::as_str));
        columns
    }

    fn targets(&self) -> Vec<&str> {
        vec![&self.label_column]
    }

    fn labels(&self, _: &[Record]) -> Result<Vec<String>, TaskError> {
        Ok(Vec::new())
    }

    fn case(
        &self,
        record: &Record,
        labels: Option<&[String]>,
        encoder: &Encoder<'_>,
    ) -> Result<Case, TaskError> {
        let mut text = record.text(&self.text_column)?;
        if let Some(column) = &self.question_column {
            text = format!("{text} {}", record.text(column)?);
        }
        let choices = self.choices(record)?;
        let mut all = Encoded::default();
        for choice in &choices {
            let one = encoder.encode(&text, Some(choice))?;
            all.inputs.extend(one.inputs);
            all.truncated |= one.truncated;
            all.empty |= one.empty;
        }
        let truth = labels.map(|_| self.label(record, choices.len()).map(Truth::Class));
        Ok(Case::new(all, truth.transpose()?, record))
    }

    fn decode(&self, _: &Case, outputs: &[f32], _: &[String]) -> Prediction {
        Prediction::Classes(probabilities(outputs))
    }

    /// `loss`, `accuracy`, and what else [`Classify`] measures over the numbers of the choices.
    fn score(
        &self,
        truths: &[Truth],
        predictions: &[Prediction],
        labels: &[String],
    ) -> Vec<(&'static str, f64)> {
        let mut scores = Classify::default().score(truths, predictions, labels);
        scores.retain(|(name, _)| ["loss", "accuracy", "majority"].contains(name));
        scores
    }

    fn judged_by(&self) -> (&'static str, bool) {
        ("accuracy", true)
    }

    fn show(&self, _: &Case, prediction: &Prediction, _: &[String]) -> Value {
        match prediction {
            Prediction::Classes(all) => {
                let choice = best(all);
                json!({ "choice": choice, "probability": all.get(choice), "probabilities": all })
            }
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn choices_come_from_columns_or_from_a_list() {
        let columns = Choice {
            choice_columns: vec!["a".into(), "b".into()],
            ..Choice::default()
        };
        let row = Record::new("f: line 2", &[("a", "하나"), ("b", "둘"), ("label", "2")]);
        assert_eq!(columns.choices(&row).unwrap(), ["하나", "둘"]);
        let error = columns.label(&row, 2).unwrap_err().to_string();
        assert!(
            error.contains("f: line 2") && error.contains("0 to 1"),
            "{error}"
        );
        let list = |cell: Value| Record::at(Arc::from("f"), 3, vec![("choices".into(), cell)]);
        let task = Choice::default();
        assert_eq!(task.choices(&list(json!(["x", "y"]))).unwrap(), ["x", "y"]);
        let error = task.choices(&list(json!(["x"]))).unwrap_err().to_string();
        assert!(
            error.contains("f: line 3") && error.contains("at least two"),
            "{error}"
        );
        assert!(task.choices(&list(json!("x"))).is_err());
    }
}
