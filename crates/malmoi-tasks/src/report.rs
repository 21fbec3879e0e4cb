//! What people should know of rows and of what a model made of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::records::Record;
use crate::task::{Case, Oddity, Prediction, Task, Truth};

/// A truth as JSON.
pub fn truth_json(truth: &Truth, labels: &[String]) -> Value {
    let name = |class: u32| {
        labels
            .get(class as usize)
            .map_or_else(|| json!(class), |label| json!(label))
    };
    match truth {
        Truth::Class(class) => name(*class),
        Truth::Labels(flags) => {
            let names = flags.iter().zip(labels).filter(|(flag, _)| **flag);
            names.map(|(_, label)| label.as_str()).collect()
        }
        Truth::Value(value) => json!(value),
        Truth::Tags(tags) => tags.iter().map(|tag| name(*tag)).collect(),
        Truth::Answers(texts, _) => json!(texts),
        Truth::Text(text, _) => json!(text),
    }
}

/// Whether a prediction is not all right. A value is never quite right.
fn is_wrong(task: &dyn Task, truth: &Truth, prediction: &Prediction, labels: &[String]) -> bool {
    if matches!(truth, Truth::Value(_)) {
        return true;
    }
    if matches!(truth, Truth::Tags(tags) if tags.is_empty()) {
        return false;
    }
    let scores = task.score(
        std::slice::from_ref(truth),
        std::slice::from_ref(prediction),
        labels,
    );
    let of = |name: &str| {
        scores
            .iter()
            .find(|(found, _)| *found == name)
            .map(|score| score.1)
    };
    of("accuracy")
        .or(of("exact_match"))
        .is_some_and(|right| right < 1.0)
}

/// How far a value is from the truth; 0 for what is no value.
fn distance(truth: &Truth, prediction: &Prediction) -> f64 {
    match (truth, prediction) {
        (Truth::Value(truth), Prediction::Value(said)) => (truth - said).abs(),
        _ => 0.0,
    }
}

/// The rows that a model got wrong: place, inputs, truth and prediction of each, in their order; where the truth is a value, all rows, the one
/// that is furthest off first.
pub fn errors(
    task: &dyn Task,
    rows: &[(Record, Case)],
    predictions: &[Prediction],
    labels: &[String],
) -> Vec<Value> {
    let mut errors: Vec<(f64, Value)> = Vec::new();
    for ((record, case), prediction) in rows.iter().zip(predictions) {
        let Some(truth) = &case.truth else { continue };
        if !is_wrong(task, truth, prediction, labels) {
            continue;
        }
        let mut row = Map::new();
        row.insert("place".into(), json!(record.place()));
        for column in task.inputs() {
            row.insert(
                column.into(),
                record.value(column).cloned().unwrap_or(Value::Null),
            );
        }
        row.insert("truth".into(), truth_json(truth, labels));
        row.insert("prediction".into(), task.show(case, prediction, labels));
        errors.push((distance(truth, prediction), Value::Object(row)));
    }
    errors.sort_by(|a, b| b.0.total_cmp(&a.0));
    errors.into_iter().map(|(_, row)| row).collect()
}

/// What is odd about rows, a sentence a kind; `what` names the rows ("training").
pub fn oddities(cases: &[Case], what: &str) -> Vec<String> {
    let mut odd: BTreeMap<Oddity, (usize, &str)> = BTreeMap::new();
    for (oddity, place) in cases.iter().filter_map(|case| case.oddity.as_ref()) {
        odd.entry(*oddity).or_insert((0, place)).0 += 1;
    }
    let describe = |(oddity, (count, place)): (Oddity, (usize, &str))| {
        let what = if what.is_empty() {
            String::new()
        } else {
            format!("{what} ")
        };
        format!(
            "{count} of {} {what}rows {}; the first is at {place}",
            cases.len(),
            oddity.describe()
        )
    };
    odd.into_iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Regress;

    #[test]
    fn values_are_listed_from_the_furthest_off() {
        let row = |text: &str, truth: f64| {
            let case = Case {
                truth: Some(Truth::Value(truth)),
                ..Case::default()
            };
            (Record::new(text, &[("text", text)]), case)
        };
        let rows = [row("near", 1.0), row("far", 2.0)];
        let said = [1.5, 4.0].map(Prediction::Value);
        let listed = errors(&Regress::default(), &rows, &said, &[]);
        assert_eq!(listed.len(), 2);
        assert_eq!(
            (&listed[0]["place"], &listed[0]["truth"]),
            (&json!("far"), &json!(2.0))
        );
        assert_eq!(listed[1]["prediction"]["value"], 1.5);
    }
}
