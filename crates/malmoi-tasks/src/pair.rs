//! One class a pair of texts: entailment, paraphrase (Devlin et al. 2019, figure 4a).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::classify::Classify;
use crate::encoder::Encoder;
use crate::error::TaskError;
use crate::records::Record;
use crate::task::{Case, OutputKind, Prediction, Task, TextColumns, Truth};

/// Classification of pairs: [`Classify`] with two columns by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Columns", into = "Columns")]
pub struct Pair(Classify);

/// Columns of a pair, with the defaults of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Columns {
    text_column: String,
    pair_column: String,
    label_column: String,
    both_orders: bool,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            text_column: "sentence1".into(),
            pair_column: "sentence2".into(),
            label_column: "label".into(),
            both_orders: false,
        }
    }
}

impl From<Columns> for Pair {
    fn from(columns: Columns) -> Self {
        Self(Classify(TextColumns {
            text_column: columns.text_column,
            pair_column: Some(columns.pair_column),
            label_column: columns.label_column,
            both_orders: columns.both_orders,
        }))
    }
}

impl From<Pair> for Columns {
    fn from(pair: Pair) -> Self {
        let columns = pair.0.0;
        let default = Self::default();
        Self {
            text_column: columns.text_column,
            pair_column: columns.pair_column.unwrap_or(default.pair_column),
            label_column: columns.label_column,
            both_orders: columns.both_orders,
        }
    }
}

impl Default for Pair {
    fn default() -> Self {
        Columns::default().into()
    }
}

impl Pair {
    /// The columns; [`TextColumns::pair_column`] is always there.
    pub fn columns(&self) -> &TextColumns {
        &self.0.0
    }

    /// A task over other columns; those that name no second text get the usual one.
    pub fn over(columns: TextColumns) -> Self {
        Columns::from(Self(Classify(columns))).into()
    }
}

impl Task for Pair {
    fn name(&self) -> &'static str {
        "pair"
    }

    fn output(&self) -> OutputKind {
        self.0.output()
    }

    fn inputs(&self) -> Vec<&str> {
        self.0.inputs()
    }

    fn targets(&self) -> Vec<&str> {
        self.0.targets()
    }

    fn labels(&self, records: &[Record]) -> Result<Vec<String>, TaskError> {
        self.0.labels(records)
    }

    fn case(
        &self,
        record: &Record,
        labels: Option<&[String]>,
        encoder: &Encoder<'_>,
    ) -> Result<Case, TaskError> {
        self.0.case(record, labels, encoder)
    }

    fn decode(&self, case: &Case, outputs: &[f32], labels: &[String]) -> Prediction {
        self.0.decode(case, outputs, labels)
    }

    fn score(
        &self,
        truths: &[Truth],
        predictions: &[Prediction],
        labels: &[String],
    ) -> Vec<(&'static str, f64)> {
        self.0.score(truths, predictions, labels)
    }

    fn judged_by(&self) -> (&'static str, bool) {
        self.0.judged_by()
    }

    fn show(&self, case: &Case, prediction: &Prediction, labels: &[String]) -> Value {
        self.0.show(case, prediction, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_always_has_two_columns() {
        let pair: Pair = serde_json::from_str(r#"{"text_column": "premise"}"#).unwrap();
        assert_eq!(pair.inputs(), ["premise", "sentence2"]);
        let again: Pair = serde_json::from_value(serde_json::to_value(&pair).unwrap()).unwrap();
        assert_eq!(again, pair);
        assert_eq!(
            Pair::over(TextColumns::default()).inputs(),
            ["text", "sentence2"]
        );
        assert!(serde_json::from_str::<Pair>(r#"{"text": "premise"}"#).is_err());
    }
}
