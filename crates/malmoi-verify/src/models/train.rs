//! Training cases: gradients at the initial weights, and three AdamW steps.

use std::collections::{BTreeMap, BTreeSet};

use malmoi_kernels::optim::{AdamW, adamw_step};
use malmoi_models::{Model, NamedGradient, ParameterInfo, Pass};
use serde_json::Value;

use super::layout::Padded;
use super::{CaseError, Subject};
use crate::report::Comparison;
use crate::values::Fields;

/// Published tensors by name.
type Published = BTreeMap<String, Vec<f32>>;

/// Compares losses, gradients, their norms, and the parameters after the steps.
pub(crate) fn check(
    subject: &Subject<'_>,
    mut model: Model,
    case: &str,
    fields: &Fields<'_>,
) -> Result<Vec<Comparison>, CaseError> {
    let fixture = subject.fixture;
    let inputs: String = fields.read("inputs_from")?;
    let padded = Padded::read(subject, &inputs)?;
    let labels = padded.labels(subject, &inputs)?;
    let labels =
        labels.ok_or_else(|| CaseError::Unsupported("a training case without labels".into()))?;
    let optimizer = Fields::new("optimizer", fields.get("optimizer")?);
    if optimizer.read::<String>("name")? != "AdamW" {
        return Err(CaseError::Unsupported(
            "an optimiser other than AdamW".into(),
        ));
    }
    let names: Vec<String> = fields.read("param_names")?;
    let dominated: BTreeSet<String> = fields.read("rounding_dominated")?;
    let without: BTreeSet<String> = fields.read("params_without_gradient")?;

    let initial = published(subject, &model, &values(&model));
    let steps: u64 = optimizer.read("steps")?;
    let (mut losses, mut comparisons) = (Vec::new(), Vec::new());
    let mut moments: Vec<(Vec<f32>, Vec<f32>)> = Vec::new();
    for step in 1..=steps {
        let (report, gradients) =
            model.loss_and_gradients(&padded.batch, &labels, &Pass::inference())?;
        losses.push(report.loss);
        if step == 1 {
            compare_gradients(subject, case, &model, &gradients, &names, &mut comparisons);
            moments = gradients
                .iter()
                .map(|(info, _)| (vec![0.0; info.len()], vec![0.0; info.len()]))
                .collect();
        }
        let options = AdamW {
            lr: optimizer.read("lr")?,
            beta1: optimizer.read("beta1")?,
            beta2: optimizer.read("beta2")?,
            eps: optimizer.read("eps")?,
            weight_decay: optimizer.read("weight_decay")?,
            step,
        };
        let mut state = gradients.into_iter().zip(&mut moments);
        model = model.update(|_, parameter| {
            let ((_, gradient), (m, v)) = state.next().expect("one gradient a parameter");
            // Parameters without a gradient are left alone, also by weight decay.
            if let Some(gradient) = gradient {
                adamw_step(parameter, &gradient, m, v, options);
            }
        });
    }
    losses.push(model.loss(&padded.batch, &labels)?.loss);
    comparisons.push(fixture.compare(&format!("{case}.losses"), &losses, None));

    let stepped = published(subject, &model, &values(&model));
    for name in names.iter().filter(|name| !dominated.contains(*name)) {
        let tensor = format!("{case}.adamw.{name}");
        if fixture.has(&tensor) {
            comparisons.push(match stepped.get(name) {
                Some(values) => fixture.compare(&tensor, values, None),
                None => Comparison::failed(tensor, "the model has no such parameter"),
            });
        }
    }
    let deltas: Vec<f64> = names
        .iter()
        .filter(|name| !dominated.contains(*name) && !without.contains(*name))
        .map(|name| match (stepped.get(name), initial.get(name)) {
            (Some(after), Some(before)) => norm(
                after
                    .iter()
                    .zip(before)
                    .map(|(a, b)| f64::from(*a) - f64::from(*b)),
            ),
            _ => f64::NAN,
        })
        .collect();
    comparisons.push(fixture.compare(&format!("{case}.delta_norms"), &deltas, None));
    Ok(comparisons)
}

fn compare_gradients(
    subject: &Subject<'_>,
    case: &str,
    model: &Model,
    gradients: &[NamedGradient],
    names: &[String],
    comparisons: &mut Vec<Comparison>,
) {
    let fixture = subject.fixture;
    let dense: Vec<(ParameterInfo, Vec<f32>)> = gradients
        .iter()
        .map(|(info, gradient)| {
            (
                info.clone(),
                gradient.clone().unwrap_or_else(|| vec![0.0; info.len()]),
            )
        })
        .collect();
    let gradients = published(subject, model, &dense);
    for name in names {
        let tensor = format!("{case}.grad.{name}");
        if fixture.has(&tensor) {
            comparisons.push(match gradients.get(name) {
                Some(values) => fixture.compare(&tensor, values, None),
                None => Comparison::failed(tensor, "the model has no such parameter"),
            });
        }
    }
    let norms: Vec<f64> = names
        .iter()
        .map(|name| {
            gradients.get(name).map_or(f64::NAN, |values| {
                norm(values.iter().map(|x| f64::from(*x)))
            })
        })
        .collect();
    comparisons.push(fixture.compare(&format!("{case}.grad_norms"), &norms, None));
}

fn values(model: &Model) -> Vec<(ParameterInfo, Vec<f32>)> {
    let mut values = Vec::new();
    model.read(|info, parameter| values.push((info.clone(), parameter.to_vec())));
    values
}

/// Tensors under every name that the fixture knows them by: tied ones have several.
fn published(
    subject: &Subject<'_>,
    model: &Model,
    values: &[(ParameterInfo, Vec<f32>)],
) -> Published {
    let tensors = model.publish(values).into_iter();
    let mut published: Published = tensors.map(|(name, _, values)| (name, values)).collect();
    let groups = subject.fixture.json.get("tied_parameters");
    for group in groups.and_then(Value::as_array).into_iter().flatten() {
        let names: Vec<&str> = group
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let held = names.iter().find_map(|name| published.get(*name)).cloned();
        for name in names {
            if let Some(values) = &held {
                published
                    .entry(name.to_owned())
                    .or_insert_with(|| values.clone());
            }
        }
    }
    published
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}
