//! Fixtures of optimisers: parameters after 1, 3 and 6 steps on given gradients, clipping, and schedules.

use malmoi_train::optim::{
    Adafactor, Adagrad, Adam, Adamax, Lamb, LearningRate, NAdam, Optimizer, ParamSlot, RAdam,
    RmsProp, Rule, Schedule, Sgd, clip,
};
use serde_json::Value;

use crate::report::{CaseOutcome, Comparison};
use crate::values::Fields;
use crate::{Fixture, FixtureError, FixtureReport};

/// Steps after which the reference holds the parameters.
const RECORDED: [usize; 3] = [1, 3, 6];

/// A case that is not implemented, or a fixture that lacks something.
enum Problem {
    Unsupported(String),
    Fixture(FixtureError),
}

impl From<FixtureError> for Problem {
    fn from(error: FixtureError) -> Self {
        Self::Fixture(error)
    }
}

/// Checks a fixture of optimisers.
pub fn check(fixture: &Fixture) -> FixtureReport {
    let mut report = FixtureReport::new(&fixture.name);
    for (case, value) in &fixture.cases {
        let fields = Fields::new(format!("cases.{case}"), value);
        let checked = if fields.has("max_norm") {
            clipping(fixture, case, &fields)
        } else if fields.has("warmup") {
            schedules(fixture, &fields)
        } else {
            optimizer(fixture, case, &fields)
        };
        let outcome = match checked {
            Ok(comparisons) => CaseOutcome::from_comparisons(case, comparisons),
            Err(Problem::Unsupported(why)) => CaseOutcome::Unsupported(why),
            Err(Problem::Fixture(error)) => {
                CaseOutcome::Fail(vec![Comparison::failed(case, error.to_string())])
            }
        };
        report.record(case, outcome);
    }
    report
}

/// A setting with a number, 0 when the case does not mention it.
fn number(fields: &Fields<'_>, key: &str) -> Result<f64, FixtureError> {
    if fields.has(key) {
        fields.read(key)
    } else {
        Ok(0.0)
    }
}

fn flag(fields: &Fields<'_>, key: &str) -> Result<bool, FixtureError> {
    if fields.has(key) {
        fields.read(key)
    } else {
        Ok(false)
    }
}

/// The rule that the settings of a case describe. Each published optimiser has a setting that no other has; LAMB and Adamax, which
/// share all of theirs, are told apart by the case's name.
fn rule(case: &str, fields: &Fields<'_>) -> Result<Rule, Problem> {
    for option in ["amsgrad", "maximize"] {
        if flag(fields, option)? {
            return Err(Problem::Unsupported(option.to_owned()));
        }
    }
    let weight_decay = number(fields, "weight_decay")?;
    let eps = || fields.read::<f64>("eps");
    let decoupled = flag(fields, "decoupled_weight_decay")?;
    let betas = || fields.read::<(f64, f64)>("betas");
    if fields.has("relative_step") {
        let (eps_square, eps_scale) = fields.read("eps")?;
        return Ok(Rule::Adafactor(Adafactor {
            eps_square,
            eps_scale,
            clip_threshold: fields.read("clip_threshold")?,
            decay_rate: fields.read("decay_rate")?,
            beta1: if fields.has("beta1") {
                Some(fields.read("beta1")?)
            } else {
                None
            },
            weight_decay,
            scale_parameter: fields.read("scale_parameter")?,
            relative_step: fields.read("relative_step")?,
            warmup_init: fields.read("warmup_init")?,
        }));
    }
    if fields.has("nesterov") {
        return Ok(Rule::Sgd(Sgd {
            momentum: fields.read("momentum")?,
            dampening: number(fields, "dampening")?,
            nesterov: fields.read("nesterov")?,
            weight_decay,
        }));
    }
    if fields.has("initial_accumulator_value") {
        return Ok(Rule::Adagrad(Adagrad {
            lr_decay: fields.read("lr_decay")?,
            eps: eps()?,
            weight_decay,
            initial_accumulator: fields.read("initial_accumulator_value")?,
        }));
    }
    if fields.has("alpha") {
        return Ok(Rule::RmsProp(RmsProp {
            alpha: fields.read("alpha")?,
            eps: eps()?,
            weight_decay,
            momentum: number(fields, "momentum")?,
            centered: flag(fields, "centered")?,
        }));
    }
    if fields.has("momentum_decay") && !decoupled {
        let (beta1, beta2) = betas()?;
        let momentum_decay = fields.read("momentum_decay")?;
        return Ok(Rule::NAdam(NAdam {
            beta1,
            beta2,
            eps: eps()?,
            weight_decay,
            momentum_decay,
        }));
    }
    if fields.has("amsgrad") {
        let (beta1, beta2) = betas()?;
        let adam = Adam {
            beta1,
            beta2,
            eps: eps()?,
            weight_decay,
        };
        return Ok(if decoupled {
            Rule::AdamW(adam)
        } else {
            Rule::Adam(adam)
        });
    }
    if fields.has("decoupled_weight_decay") && !fields.has("momentum_decay") && !decoupled {
        let (beta1, beta2) = betas()?;
        return Ok(Rule::RAdam(RAdam {
            beta1,
            beta2,
            eps: eps()?,
            weight_decay,
        }));
    }
    if case.starts_with("lamb") {
        let (beta1, beta2) = betas()?;
        return Ok(Rule::Lamb(Lamb {
            beta1,
            beta2,
            eps: eps()?,
            weight_decay,
        }));
    }
    if case.starts_with("adamax") {
        let (beta1, beta2) = betas()?;
        return Ok(Rule::Adamax(Adamax {
            beta1,
            beta2,
            eps: eps()?,
            weight_decay,
        }));
    }
    Err(Problem::Unsupported(
        "no optimiser with these settings".into(),
    ))
}

/// Names of the parameters: every `in.X` that has gradients `in.grads_X`.
fn parameters(fixture: &Fixture) -> Vec<String> {
    fixture
        .names_with_prefix("in.")
        .filter_map(|name| name.strip_prefix("in."))
        .filter(|name| fixture.has(&format!("in.grads_{name}")))
        .map(str::to_owned)
        .collect()
}

fn optimizer(
    fixture: &Fixture,
    case: &str,
    fields: &Fields<'_>,
) -> Result<Vec<Comparison>, Problem> {
    let rule = rule(case, fields)?;
    let lr = number(fields, "lr")?;
    let mut optimizer = match Optimizer::new(rule) {
        Ok(optimizer) => optimizer,
        Err(error) => return Err(Problem::Unsupported(error.to_string())),
    };
    let names = parameters(fixture);
    let mut comparisons = Vec::new();
    for name in &names {
        let shape = fixture.shape(&format!("in.{name}"))?;
        let mut values = fixture.f32s(&format!("in.{name}"))?.to_vec();
        let gradients = fixture.f32s(&format!("in.grads_{name}"))?;
        let mut recorded = Vec::new();
        for (i, gradient) in gradients.chunks_exact(values.len().max(1)).enumerate() {
            let slot = ParamSlot {
                name,
                shape,
                values: &mut values,
                gradient,
                decay: true,
            };
            if let Err(error) = optimizer.update(lr, slot) {
                comparisons.push(Comparison::failed(
                    format!("out.{case}.{name}"),
                    error.to_string(),
                ));
                return Ok(comparisons);
            }
            if RECORDED.contains(&(i + 1)) {
                recorded.extend_from_slice(&values);
            }
        }
        comparisons.push(fixture.compare(&format!("out.{case}.{name}"), &recorded, None));
    }
    Ok(comparisons)
}

fn clipping(
    fixture: &Fixture,
    case: &str,
    fields: &Fields<'_>,
) -> Result<Vec<Comparison>, Problem> {
    let max_norm: f64 = fields.read("max_norm")?;
    let names = parameters(fixture);
    let mut first: Vec<Vec<f32>> = Vec::new();
    for name in &names {
        let size = fixture.f32s(&format!("in.{name}"))?.len();
        let gradients = fixture.f32s(&format!("in.grads_{name}"))?;
        first.push(gradients.iter().take(size).copied().collect());
    }
    let mut slices: Vec<&mut [f32]> = first.iter_mut().map(Vec::as_mut_slice).collect();
    let norm = clip::clip(&mut slices, max_norm);
    let mut comparisons = vec![fixture.compare(&format!("out.{case}.total"), &[norm], None)];
    for (name, gradient) in names.iter().zip(&first) {
        comparisons.push(fixture.compare(&format!("out.{case}.{name}"), gradient, None));
    }
    Ok(comparisons)
}

/// The number after a marker in a name: `2` for `p` in `polynomial_p2_end0.01`.
fn after(name: &str, marker: &str) -> Option<f64> {
    let rest = &name[name.find(marker)? + marker.len()..];
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').parse().ok()
}

fn schedule(name: &str, what: &str) -> Option<Schedule> {
    Some(match name {
        "constant" | "constant_with_warmup" => Schedule::Constant,
        "linear" => Schedule::Linear { end: 0.0 },
        "cosine" => Schedule::Cosine { end: 0.0 },
        "inverse_sqrt" => Schedule::InverseSqrt { timescale: None },
        "noam" => Schedule::Noam {
            d_model: after(what, "d_model ")? as usize,
        },
        _ if name.starts_with("cosine_restarts_") => Schedule::CosineRestarts {
            cycles: after(name, "cosine_restarts_")? as u32,
        },
        _ if name.starts_with("cosine_min_") => Schedule::Cosine {
            end: after(name, "cosine_min_")?,
        },
        _ if name.starts_with("polynomial_") => Schedule::Polynomial {
            power: after(name, "_p")?,
            end: after(name, "_end")?,
        },
        _ => return None,
    })
}

fn schedules(fixture: &Fixture, fields: &Fields<'_>) -> Result<Vec<Comparison>, Problem> {
    let (warmup, total) = (fields.read("warmup")?, fields.read("total")?);
    let mut comparisons = Vec::new();
    for tensor in fixture.names_with_prefix("schedule.") {
        let name = tensor.trim_start_matches("schedule.");
        let what = fixture.json["tensors"][tensor]
            .get("what")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some(schedule) = schedule(name, what) else {
            return Err(Problem::Unsupported(format!("the schedule `{name}`")));
        };
        let rate = LearningRate {
            schedule,
            warmup,
            total,
        };
        let steps = fixture.tensor(tensor)?.data.len() as u64;
        let factors: Vec<f64> = (0..steps).map(|step| rate.factor(step)).collect();
        comparisons.push(fixture.compare(tensor, &factors, None));
    }
    Ok(comparisons)
}
