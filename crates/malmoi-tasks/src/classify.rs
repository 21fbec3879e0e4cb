//! Classification of a text, or of a pair of texts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::encoder::Encoder;
use crate::error::TaskError;
use crate::metrics::classification::{Confusion, binary_f1};
use crate::records::Record;
use crate::task::{
    Case, OutputKind, Prediction, Task, TextColumns, Truth, best, class_of, distinct,
    probabilities, summed,
};

/// One class a row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Classify(pub TextColumns);

/// The label of a row. An empty cell is a row that nobody labelled, not a class of its own.
fn label_of(record: &Record, column: &str) -> Result<String, TaskError> {
    let label = record.text(column)?;
    match label.trim().is_empty() {
        true => Err(record.bad(column, "nothing".into(), "a label")),
        false => Ok(label),
    }
}

impl Task for Classify {
    fn name(&self) -> &'static str {
        "classify"
    }

    fn output(&self) -> OutputKind {
        OutputKind::Classes
    }

    fn inputs(&self) -> Vec<&str> {
        self.0.inputs()
    }

    fn targets(&self) -> Vec<&str> {
        vec![&self.0.label_column]
    }

    /// The distinct labels: in the order of their numbers when all are whole numbers, else in the order of their code points.
    fn labels(&self, records: &[Record]) -> Result<Vec<String>, TaskError> {
        let labels = records
            .iter()
            .map(|record| label_of(record, &self.0.label_column))
            .collect::<Result<Vec<_>, _>>()?;
        let labels = distinct(labels);
        match labels.as_slice() {
            [only] => Err(TaskError::OneLabel(only.clone())),
            _ => Ok(labels),
        }
    }

    fn case(
        &self,
        record: &Record,
        labels: Option<&[String]>,
        encoder: &Encoder<'_>,
    ) -> Result<Case, TaskError> {
        let class = |labels| {
            let label = label_of(record, &self.0.label_column)?;
            class_of(record, label, labels).map(Truth::Class)
        };
        let truth = labels.map(class).transpose()?;
        Ok(Case::new(self.0.encode(record, encoder)?, truth, record))
    }

    fn decode(&self, case: &Case, outputs: &[f32], _: &[String]) -> Prediction {
        Prediction::Classes(probabilities(&summed(outputs, case.inputs.len())))
    }

    /// `loss` (mean cross-entropy), `accuracy`, `f1` (plain mean over the classes), `f1_weighted` (mean by their rows), `f1_binary` (of
    /// the second of two classes; absent for more), `matthews`, and `majority`: the accuracy of always saying the most frequent class.
    fn score(
        &self,
        truths: &[Truth],
        predictions: &[Prediction],
        labels: &[String],
    ) -> Vec<(&'static str, f64)> {
        let (mut right, mut said, mut loss) = (Vec::new(), Vec::new(), 0.0);
        for pair in truths.iter().zip(predictions) {
            if let (Truth::Class(class), Prediction::Classes(probabilities)) = pair {
                right.push(i64::from(*class));
                said.push(best(probabilities) as i64);
                // The smallest positive number bounds what a confident mistake costs.
                let given = probabilities.get(*class as usize).copied();
                loss -= given.unwrap_or(0.0).max(f64::MIN_POSITIVE).ln();
            }
        }
        let n = right.len().max(1) as f64;
        let confusion = Confusion::new(&right, &said);
        let most = confusion.support().into_iter().max().unwrap_or(0);
        let mut scores = vec![
            ("loss", loss / n),
            ("accuracy", confusion.accuracy()),
            ("f1", confusion.macro_average().f1),
            ("f1_weighted", confusion.weighted_average().f1),
            ("matthews", confusion.matthews()),
            ("majority", most as f64 / n),
        ];
        if labels.len() == 2 || truths.is_empty() {
            scores.insert(4, ("f1_binary", binary_f1(&right, &said)));
        }
        scores
    }

    fn judged_by(&self) -> (&'static str, bool) {
        ("accuracy", true)
    }

    fn show(&self, _: &Case, prediction: &Prediction, labels: &[String]) -> Value {
        let Prediction::Classes(probabilities) = prediction else {
            return Value::Null;
        };
        let class = best(probabilities);
        let all: Map<String, Value> = labels
            .iter()
            .zip(probabilities)
            .map(|(label, &p)| (label.clone(), json!(p)))
            .collect();
        json!({ "label": labels.get(class), "probability": probabilities.get(class), "probabilities": all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Sequence;

    fn records(labels: &[&str]) -> Vec<Record> {
        labels
            .iter()
            .enumerate()
            .map(|(i, label)| {
                Record::new(format!("f: line {i}"), &[("text", "글"), ("label", label)])
            })
            .collect()
    }

    #[test]
    fn labels_are_ordered_by_number_or_by_name() {
        let task = Classify::default();
        let labels = |list: &[&str]| task.labels(&records(list)).unwrap();
        assert_eq!(labels(&["10", "9", "10", "-1"]), ["-1", "9", "10"]);
        assert_eq!(labels(&["긍정", "부정", "긍정"]), ["긍정", "부정"]);
        assert_eq!(labels(&["10", "9", "a"]), ["10", "9", "a"]);
        let error = task.labels(&records(&["1", "1"])).unwrap_err();
        assert!(error.to_string().contains("at least two"), "{error}");
        for empty in ["", " "] {
            let error = task.labels(&records(&["1", empty, "2"])).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("line 1: column `label` holds nothing"),
                "{error}"
            );
        }
    }

    #[test]
    fn metrics_are_those_worked_out_by_hand() {
        let task = Classify::default();
        let truths = [0, 0, 0, 1].map(Truth::Class);
        let said = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]]
            .map(|p| Prediction::Classes(p.to_vec()));
        let scores = task.score(&truths, &said, &["0".into(), "1".into()]);
        let get = |name| scores.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(get("accuracy"), 0.75);
        assert_eq!(get("majority"), 0.75);
        assert!((get("f1_binary") - 2.0 / 3.0).abs() < 1e-12);
        assert!((get("f1_weighted") - (3.0 * 0.8 + 2.0 / 3.0) / 4.0).abs() < 1e-12);
        // Class 0: precision 1, recall 2/3; class 1: precision 1/2, recall 1.
        assert!((get("f1") - (0.8 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        let expected = -(0.9_f64.ln() + 0.6_f64.ln() + 0.2_f64.ln() + 0.7_f64.ln()) / 4.0;
        assert!((get("loss") - expected).abs() < 1e-12);
    }

    #[test]
    fn a_prediction_names_its_label() {
        let task = Classify::default();
        let case = Case {
            inputs: vec![Sequence::default()],
            ..Case::default()
        };
        let prediction = task.decode(&case, &[0.0, 3.0_f32.ln()], &[]);
        let shown = task.show(&case, &prediction, &["부정".into(), "긍정".into()]);
        assert_eq!(shown["label"], "긍정");
        assert!((shown["probability"].as_f64().unwrap() - 0.75).abs() < 1e-6);
        assert!((shown["probabilities"]["부정"].as_f64().unwrap() - 0.25).abs() < 1e-6);
    }
}
