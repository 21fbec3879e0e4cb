//! Model fixtures: forward passes, losses, gradients, optimiser steps and generation, through the packed path that users
//! run. Attention probabilities come from a separate read-out.

mod forward;
mod generate;
mod layout;
mod train;

use std::path::Path;

use malmoi_models::{Head, Mode, Model, ModelConfig, ModelError, OpenOptions};

use crate::report::CaseOutcome;
use crate::rounding::{Bf16, Jumps};
use crate::values::Fields;
use crate::{Fixture, FixtureError, FixtureReport, Options, Precision};

/// Why a case could not be compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaseError {
    /// Something the product does not do (yet).
    #[error("{0}")]
    Unsupported(String),
    /// A broken fixture.
    #[error(transparent)]
    Fixture(#[from] FixtureError),
    /// A model that refused what it should have done.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Generation that failed.
    #[error(transparent)]
    Infer(#[from] malmoi_infer::InferError),
}

/// A fixture with its model.
pub(crate) struct Subject<'a> {
    pub fixture: &'a Fixture,
    pub model: Model,
    pub config: ModelConfig,
    pub head: Head,
}

/// Checks a model fixture.
pub fn check(dir: &Path, fixture: &Fixture, options: &Options) -> FixtureReport {
    let precision = match options.precision {
        Precision::F32 => malmoi_models::Precision::F32,
        Precision::Bf16 => malmoi_models::Precision::Bf16,
        Precision::Int8 => {
            let why = "models do not run in int8 yet";
            return FixtureReport::unsupported(&fixture.name, why);
        }
    };
    let open = |mode| {
        Model::open(
            dir,
            &OpenOptions {
                mode,
                precision,
                ..OpenOptions::default()
            },
        )
    };
    let model = match open(Mode::Inference) {
        Ok(model) => model,
        Err(error @ (ModelError::UnknownArchitecture { .. } | ModelError::UnknownHead { .. })) => {
            return FixtureReport::unsupported(&fixture.name, error.to_string());
        }
        Err(error) => return FixtureReport::failed(&fixture.name, error.to_string()),
    };
    let (config, head) = (model.config().clone(), model.head());
    let rounded = (options.precision == Precision::Bf16).then(|| {
        let rounding = Bf16::new(fixture, depth(&config, head), jumps(&config, head));
        fixture.in_bf16(rounding)
    });
    let fixture = rounded.as_ref().unwrap_or(fixture);
    let subject = Subject {
        fixture,
        model,
        config,
        head,
    };
    let mut report = FixtureReport::new(&fixture.name);
    for (name, case) in &fixture.cases {
        let fields = Fields::new(name, case);
        let compared = match fields.read::<String>("kind").as_deref() {
            Ok("forward") => forward::check(&subject, name, &fields),
            Ok("train") => open(Mode::Training)
                .map_err(CaseError::from)
                .and_then(|trainable| train::check(&subject, trainable, name, &fields)),
            Ok("generate") => generate::check(&subject, name, &fields),
            Ok(other) => Err(CaseError::Unsupported(format!("case kind {other}"))),
            Err(error) => {
                report.record(
                    name,
                    CaseOutcome::Fail(vec![crate::Comparison::failed(name, error.to_string())]),
                );
                continue;
            }
        };
        match compared {
            Ok(comparisons) => report.compare_case(name, comparisons),
            Err(CaseError::Unsupported(why)) => report.record(name, CaseOutcome::Unsupported(why)),
            Err(error) => {
                let failed = crate::Comparison::failed(name.clone(), error.to_string());
                report.record(name, CaseOutcome::Fail(vec![failed]));
            }
        }
    }
    report
}

/// Layers that run one after another, those of an encoder in front counted.
fn depth(config: &ModelConfig, head: Head) -> usize {
    let stacks = config.shape(head).stacks.into_iter();
    stacks
        .flat_map(|stack| stack.layers)
        .map(|layer| layer.times)
        .sum()
}

/// Where ReLU is: the configuration names that of the layers, plain or as a gate, and DistilBERT's head for classes of texts has one.
fn jumps(config: &ModelConfig, head: Head) -> Jumps {
    let json = config.to_json(head);
    let mut values = json.as_object().into_iter().flatten();
    if json["model_type"] == "distilbert" && head == Head::SequenceClassification {
        Jumps::Head
    } else if values.any(|(_, value)| value == "relu" || value == "gated-relu") {
        Jumps::Layers
    } else {
        Jumps::Nowhere
    }
}
