//! Any number of labels a row: each is a question of its own, answered by a logistic unit.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::encoder::Encoder;
use crate::error::TaskError;
use crate::metrics::{mean, multilabel};
use crate::records::Record;
use crate::task::{
    Case, OutputKind, Prediction, Task, TextColumns, Truth, class_of, distinct, summed,
};

/// Any number of labels a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiLabel {
    /// Column of the text.
    pub text_column: String,
    /// Column of the second text, for pairs.
    pub pair_column: Option<String>,
    /// Column of the labels: a list (JSON lines, Parquet), or a text that `separator` divides. It may be empty.
    pub label_column: String,
    /// What stands between two labels of a text.
    pub separator: String,
    /// A label is said from this probability on.
    pub threshold: f64,
}

impl Default for MultiLabel {
    fn default() -> Self {
        let columns = TextColumns::default();
        Self {
            text_column: columns.text_column,
            pair_column: None,
            label_column: columns.label_column,
            separator: ",".into(),
            threshold: 0.5,
        }
    }
}

impl MultiLabel {
    fn columns(&self) -> TextColumns {
        TextColumns {
            text_column: self.text_column.clone(),
            pair_column: self.pair_column.clone(),
            label_column: self.label_column.clone(),
            both_orders: false,
        }
    }

    /// The labels of a row.
    fn of(&self, record: &Record) -> Result<Vec<String>, TaskError> {
        if record
            .value(&self.label_column)
            .is_some_and(Value::is_array)
        {
            return record.texts(&self.label_column);
        }
        let text = record.text(&self.label_column)?;
        let parts = match self.separator.as_str() {
            "" => vec![text.as_str()],
            separator => text.split(separator).collect(),
        };
        let labels = parts.into_iter().map(str::trim).filter(|l| !l.is_empty());
        Ok(labels.map(str::to_owned).collect())
    }

    fn said(&self, probabilities: &[f64]) -> Vec<bool> {
        probabilities.iter().map(|&p| p >= self.threshold).collect()
    }
}

impl Task for MultiLabel {
    fn name(&self) -> &'static str {
        "classify"
    }

    fn output(&self) -> OutputKind {
        OutputKind::Labels
    }

    fn inputs(&self) -> Vec<&str> {
        let pair = self.pair_column.as_deref();
        std::iter::once(self.text_column.as_str())
            .chain(pair)
            .collect()
    }

    fn targets(&self) -> Vec<&str> {
        vec![&self.label_column]
    }

    fn labels(&self, records: &[Record]) -> Result<Vec<String>, TaskError> {
        let mut all = Vec::new();
        for record in records {
            all.extend(self.of(record)?);
        }
        match distinct(all) {
            labels if labels.is_empty() => Err(TaskError::OneLabel(String::new())),
            labels => Ok(labels),
        }
    }

    fn case(
        &self,
        record: &Record,
        labels: Option<&[String]>,
        encoder: &Encoder<'_>,
    ) -> Result<Case, TaskError> {
        let flags = |labels: &[String]| {
            let mut flags = vec![false; labels.len()];
            for label in self.of(record)? {
                flags[class_of(record, label, labels)? as usize] = true;
            }
            Ok::<_, TaskError>(Truth::Labels(flags))
        };
        let truth = labels.map(flags).transpose()?;
        Ok(Case::new(
            self.columns().encode(record, encoder)?,
            truth,
            record,
        ))
    }

    fn decode(&self, case: &Case, outputs: &[f32], _: &[String]) -> Prediction {
        let logits = summed(outputs, case.inputs.len());
        let logistic = |logit: f32| 1.0 / (1.0 + (-f64::from(logit)).exp());
        Prediction::Labels(logits.into_iter().map(logistic).collect())
    }

    /// `loss` (mean binary cross-entropy), `f1_micro`, `f1_macro`, `f1_samples`, `accuracy` (the whole set is right) and
    /// `hamming_loss`.
    fn score(
        &self,
        truths: &[Truth],
        predictions: &[Prediction],
        _: &[String],
    ) -> Vec<(&'static str, f64)> {
        let (mut right, mut said, mut terms) = (Vec::new(), Vec::new(), Vec::new());
        for pair in truths.iter().zip(predictions) {
            if let (Truth::Labels(flags), Prediction::Labels(probabilities)) = pair {
                for (&flag, &p) in flags.iter().zip(probabilities) {
                    let p = if flag { p } else { 1.0 - p };
                    terms.push(-p.max(f64::MIN_POSITIVE).ln());
                }
                right.push(flags.clone());
                said.push(self.said(probabilities));
            }
        }
        vec![
            ("loss", mean(terms)),
            ("f1_micro", multilabel::micro_f1(&right, &said)),
            ("f1_macro", multilabel::macro_f1(&right, &said)),
            ("f1_samples", multilabel::samples_f1(&right, &said)),
            ("accuracy", multilabel::subset_accuracy(&right, &said)),
            ("hamming_loss", multilabel::hamming_loss(&right, &said)),
        ]
    }

    fn judged_by(&self) -> (&'static str, bool) {
        ("f1_micro", true)
    }

    fn show(&self, _: &Case, prediction: &Prediction, labels: &[String]) -> Value {
        let Prediction::Labels(probabilities) = prediction else {
            return Value::Null;
        };
        let said = labels.iter().zip(self.said(probabilities));
        let said: Vec<&String> = said.filter(|(_, said)| *said).map(|(l, _)| l).collect();
        let all: Map<String, Value> = labels
            .iter()
            .zip(probabilities)
            .map(|(label, &p)| (label.clone(), json!(p)))
            .collect();
        json!({ "labels": said, "probabilities": all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn labels_come_from_lists_or_from_separated_text() {
        let task = MultiLabel::default();
        let text = Record::new("f: line 2", &[("label", "기쁨, 놀람,")]);
        assert_eq!(task.of(&text).unwrap(), ["기쁨", "놀람"]);
        let cells = vec![("label".to_owned(), json!(["슬픔", 3]))];
        let list = Record::at(Arc::from("f"), 3, cells);
        assert_eq!(task.of(&list).unwrap(), ["슬픔", "3"]);
        let names = task.labels(&[text, list]).unwrap();
        assert_eq!(names, ["3", "기쁨", "놀람", "슬픔"]);
        let nothing = Record::new("f: line 4", &[("label", "")]);
        assert!(task.labels(&[nothing]).is_err());
    }

    #[test]
    fn metrics_are_those_worked_out_by_hand() {
        let task = MultiLabel::default();
        let truths = [vec![true, false], vec![true, true]].map(Truth::Labels);
        let said = [vec![0.8, 0.4], vec![0.25, 0.9]].map(Prediction::Labels);
        let scores = task.score(&truths, &said, &[]);
        let get = |name| scores.iter().find(|(n, _)| *n == name).unwrap().1;
        let loss = -(0.8_f64.ln() + 0.6_f64.ln() + 0.25_f64.ln() + 0.9_f64.ln()) / 4.0;
        assert!((get("loss") - loss).abs() < 1e-12);
        // Two of three true flags are found, and nothing else is said.
        assert!((get("f1_micro") - 0.8).abs() < 1e-12);
        assert_eq!((get("accuracy"), get("hamming_loss")), (0.5, 0.25));
    }
}
