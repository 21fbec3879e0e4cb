//! Losses of an operations fixture.

use std::sync::Arc;

use malmoi_kernels::loss::cross_entropy_forward;
use malmoi_nn::{host, ops};

use super::Checked;
use crate::{Fixture, FixtureError};

/// A loss on the logits of the fixture, and its gradient where one is given.
pub(super) fn check(fixture: &Fixture, name: &str) -> Checked {
    let logits = fixture.f32s("losses.in.logits")?;
    let &[rows, classes] = fixture.shape("losses.in.logits")? else {
        return Err(FixtureError::Tensor {
            name: "losses.in.logits".into(),
            expected: "two dimensions".into(),
            found: format!("{:?}", fixture.shape("losses.in.logits")?),
        });
    };
    let labels = fixture.i64s("losses.in.targets")?;
    let targets: Vec<u32> = labels
        .iter()
        .map(|&label| u32::try_from(label).unwrap_or(0))
        .collect();
    let counted: Vec<f32> = labels.iter().map(|&label| f32::from(label >= 0)).collect();
    let all = |weights: &[f32]| cross_entropy_forward(logits, &targets, weights, None);
    let got: Vec<f64> = match name {
        "cross_entropy_sum" => vec![all(&counted).loss],
        "cross_entropy_mean" => {
            let sum = all(&counted);
            vec![sum.loss / sum.weight]
        }
        "cross_entropy_each" => (0..rows)
            .map(|row| {
                let logits = &logits[row * classes..(row + 1) * classes];
                cross_entropy_forward(logits, &targets[row..=row], &counted[row..=row], None).loss
            })
            .collect(),
        "cross_entropy_weighted" => {
            let class_weights = fixture.f32s("losses.in.class_weights")?;
            let weight = |(&target, &counted): (&u32, &f32)| {
                counted
                    * class_weights
                        .get(target as usize)
                        .copied()
                        .unwrap_or(f32::NAN)
            };
            let weights: Vec<f32> = targets.iter().zip(&counted).map(weight).collect();
            let sum = all(&weights);
            vec![sum.loss / sum.weight]
        }
        "bce_with_logits" => {
            let first: Vec<f32> = logits.iter().step_by(classes).copied().collect();
            let above: Arc<[f32]> = labels.iter().map(|&label| f32::from(label > 3)).collect();
            let loss = ops::binary_cross_entropy(host::tensor(first, [rows, 1]), above);
            vec![f64::from(host::values(loss)[0])]
        }
        "mse" => {
            let teacher: Arc<[f32]> = fixture.f32s("losses.in.teacher_logits")?.into();
            let loss =
                ops::mean_squared_error(host::tensor(logits.to_vec(), [rows, classes]), teacher);
            vec![f64::from(host::values(loss)[0])]
        }
        _ => return soft(fixture, name, (rows, classes), &targets, &counted),
    };
    let out = format!("losses.out.{name}");
    Ok(Some(vec![fixture.compare(&out, &got, None)]))
}

/// Losses against soft targets, with their gradients.
fn soft(
    fixture: &Fixture,
    name: &str,
    (rows, classes): (usize, usize),
    targets: &[u32],
    counted: &[f32],
) -> Checked {
    let logits = fixture.f32s("losses.in.logits")?;
    let teacher = || -> Result<Arc<[f32]>, FixtureError> {
        Ok(fixture.f32s("losses.in.teacher_logits")?.into())
    };
    let mut x = host::tensor(logits.to_vec(), [rows, classes]);
    let gradient = format!("losses.grad.{name}");
    if fixture.has(&gradient) {
        x = x.autodiff().require_grad();
    }
    let number = |prefix: &str| {
        name.strip_prefix(prefix)
            .and_then(|text| text.parse::<f32>().ok())
    };
    let input = x.clone();
    let loss = if let Some(smoothing) = number("label_smoothing_") {
        let total: f32 = counted.iter().sum();
        let weights = counted.iter().map(|weight| weight / total).collect();
        ops::smoothed_cross_entropy(x, targets.into(), weights, smoothing)
    } else if let Some(temperature) = number("distillation_T") {
        ops::distillation(x, teacher()?, temperature)
    } else if let Some(margin) = number("hinge_margin") {
        // The first two classes, the first as the better one.
        ops::hinge(x.slice([0..rows, 0..2.min(classes)]), margin)
    } else if name == "smooth_l1" {
        ops::smooth_l1(x, teacher()?)
    } else if name == "cosine_embedding" {
        ops::cosine_distance(x, teacher()?)
    } else {
        return Ok(None);
    };
    let value = f64::from(host::values(loss.clone())[0]);
    let mut comparisons = vec![fixture.compare(&format!("losses.out.{name}"), &[value], None)];
    if fixture.has(&gradient) {
        let mut gradients = loss.backward();
        let got = input
            .grad_remove(&mut gradients)
            .map(host::values)
            .unwrap_or_default();
        comparisons.push(fixture.compare(&gradient, &got, None));
    }
    Ok(Some(comparisons))
}
