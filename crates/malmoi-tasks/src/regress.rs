//! Regression: one value for a text, or for a pair of texts.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::encoder::Encoder;
use crate::error::TaskError;
use crate::metrics::correlation::{mae, mse, pearson, spearman};
use crate::records::Record;
use crate::task::{Case, OutputKind, Prediction, Task, TextColumns, Truth, summed};

/// One value a row, as in graded similarity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Regress(pub TextColumns);

impl Task for Regress {
    fn name(&self) -> &'static str {
        "regress"
    }

    fn output(&self) -> OutputKind {
        OutputKind::Value
    }

    fn inputs(&self) -> Vec<&str> {
        self.0.inputs()
    }

    fn targets(&self) -> Vec<&str> {
        vec![&self.0.label_column]
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
        let truth = labels.map(|_| record.number(&self.0.label_column).map(Truth::Value));
        let truth = truth.transpose()?;
        Ok(Case::new(self.0.encode(record, encoder)?, truth, record))
    }

    fn decode(&self, case: &Case, outputs: &[f32], _: &[String]) -> Prediction {
        let sum = summed(outputs, case.inputs.len());
        Prediction::Value(sum.first().copied().map_or(f64::NAN, f64::from))
    }

    /// `loss` (mean squared error), `pearson`, `spearman`, `mae`.
    fn score(
        &self,
        truths: &[Truth],
        predictions: &[Prediction],
        _: &[String],
    ) -> Vec<(&'static str, f64)> {
        let (mut right, mut said) = (Vec::new(), Vec::new());
        for pair in truths.iter().zip(predictions) {
            if let (Truth::Value(truth), Prediction::Value(value)) = pair {
                right.push(*truth);
                said.push(*value);
            }
        }
        vec![
            ("loss", mse(&right, &said)),
            ("pearson", pearson(&right, &said)),
            ("spearman", spearman(&right, &said)),
            ("mae", mae(&right, &said)),
        ]
    }

    fn judged_by(&self) -> (&'static str, bool) {
        ("pearson", true)
    }

    fn show(&self, _: &Case, prediction: &Prediction, _: &[String]) -> Value {
        match prediction {
            Prediction::Value(value) => json!({ "value": value }),
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_scored() {
        let task = Regress::default();
        let truths = [0.0, 1.0, 2.0].map(Truth::Value);
        let said = [1.0, 2.0, 3.0].map(Prediction::Value);
        let scores = task.score(&truths, &said, &[]);
        assert_eq!(scores[0], ("loss", 1.0));
        assert!((scores[1].1 - 1.0).abs() < 1e-12);
        let record = Record::new("f: line 2", &[("text", "a"), ("label", "nan")]);
        let error = record.number("label").unwrap_err().to_string();
        assert!(
            error.contains("f: line 2") && error.contains("a number"),
            "{error}"
        );
    }
}
