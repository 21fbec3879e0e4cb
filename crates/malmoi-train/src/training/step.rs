//! One optimiser step.

use malmoi_kernels::profile::{self, Cost, Direction, Label};
use malmoi_kernels::random::{Key, Purpose};
use malmoi_kernels::{optim, reduce};
use malmoi_models::{Model, NamedGradient, ParameterInfo, Pass};
use malmoi_nn::buffers;

use crate::data::{Counts, MicroBatch};
use crate::error::TrainError;
use crate::optim::{LearningRate, Optimizer, ParamSlot, clip};

use super::adapters::Adapters;
use super::tuning::Tuning;

/// The parts of a run that change with every step.
#[derive(Debug)]
pub struct Trainer {
    /// Taken out only while it is being updated.
    model: Option<Model>,
    optimizer: Optimizer,
    /// Steps done.
    step: u64,
    /// The gradients of the first step of this process are checked for coverage.
    checked: bool,
    untrained: &'static [&'static str],
    options: StepOptions,
    tuning: Tuning,
}

/// How a step is made.
#[derive(Debug, Clone, Copy)]
pub struct StepOptions {
    /// Seed of the run.
    pub seed: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// Its course.
    pub schedule: LearningRate,
    /// Largest global norm of the gradient; 0 for no clipping.
    pub clip_norm: f64,
    /// Decay norms and biases as well.
    pub decay_all: bool,
    /// Compute the activations of blocks again in the backward pass instead of keeping them.
    pub recompute: bool,
}

/// What a step found.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The loss before the step: the mean over all targets of the step, terms added.
    pub loss: f64,
    /// Its terms.
    pub parts: Vec<(&'static str, f64)>,
    /// Share of the targets that came out on top; `None` where there is nothing to choose from (regression).
    pub accuracy: Option<f64>,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate.
    pub lr: f64,
    /// Tokens of the step.
    pub tokens: u64,
}

/// A loss and its gradient over some micro-batches.
#[derive(Debug, Clone)]
pub struct Accumulated {
    /// The loss.
    pub loss: f64,
    /// Its terms.
    pub parts: Vec<(&'static str, f64)>,
    /// Share of the targets that came out on top; `None` where there is nothing to choose from (regression).
    pub accuracy: Option<f64>,
    /// A gradient a parameter, in module order; `None` where the loss does not depend on it.
    pub gradients: Vec<(ParameterInfo, Option<Vec<f32>>)>,
}

impl Trainer {
    /// A trainer that has done `step` steps.
    pub fn new(model: Model, optimizer: Optimizer, step: u64, options: StepOptions) -> Self {
        Self {
            model: Some(model),
            optimizer,
            step,
            checked: false,
            untrained: &[],
            options,
            tuning: Tuning::default(),
        }
    }

    /// The same trainer for some of the parameters, or with rates of their own.
    #[must_use]
    pub fn with_tuning(mut self, tuning: Tuning) -> Self {
        self.model = self.model.map(|model| tuning.apply(model));
        self.tuning = tuning;
        self
    }

    /// The adapters, where there are some.
    pub fn adapters(&self) -> Option<&Adapters> {
        self.tuning.adapters.as_ref()
    }

    /// The same, when parameters whose names hold one of `parts` need no gradient.
    #[must_use]
    pub fn without_training(self, parts: &'static [&'static str]) -> Self {
        Self {
            untrained: parts,
            ..self
        }
    }

    /// The model.
    ///
    /// # Panics
    /// After a step that failed while the parameters were being changed, which leaves no model.
    pub fn model(&self) -> &Model {
        self.model
            .as_ref()
            .expect("the model is taken out only while a step changes it")
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Loss and gradient of the next step, before clipping.
    ///
    /// # Errors
    /// Those of the model; [`TrainError::Corpus`] when there is nothing to predict.
    pub fn gradients(&self, micro_batches: &[MicroBatch]) -> Result<Accumulated, TrainError> {
        let counts = Counts::of(micro_batches);
        if !micro_batches.iter().any(MicroBatch::has_labels) {
            return Err(TrainError::Corpus {
                corpus: "the training text".into(),
                problem: format!(
                    "step {} has no token to predict; use larger batches or add text",
                    self.step + 1
                ),
            });
        }
        let dropout = Key::new(self.options.seed, Purpose::Dropout, self.step);
        let mut sum: Option<Accumulated> = None;
        for (index, micro) in micro_batches
            .iter()
            .enumerate()
            .filter(|(_, micro)| micro.has_labels())
        {
            let pass = Pass::training(dropout.fold(index as u64));
            let pass = pass.recomputing(self.options.recompute);
            let (report, mut gradients) =
                self.model()
                    .loss_and_gradients(&micro.batch, &micro.labels(counts), &pass)?;
            let share = micro.share(counts);
            if share != 1.0 {
                let scaled = gradients.iter_mut().filter_map(|(_, g)| g.as_mut());
                scaled.for_each(|gradient| optim::scale_in_place(gradient, share as f32));
            }
            let parts = report
                .parts
                .iter()
                .map(|part| (part.name, share * part.loss))
                .collect();
            let correct = report.parts.first().and_then(|part| part.correct);
            let loss = share * report.loss;
            match &mut sum {
                None => {
                    sum = Some(Accumulated {
                        loss,
                        parts,
                        accuracy: correct,
                        gradients,
                    })
                }
                Some(sum) => sum.add(loss, &parts, correct, gradients),
            }
        }
        let mut sum = sum.expect("a step with targets has a micro-batch with targets");
        // Blocks that are computed again know nothing of what is frozen in them.
        for (info, gradient) in &mut sum.gradients {
            if self.tuning.freezes(&info.name) {
                *gradient = None;
            }
        }
        Ok(sum)
    }

    /// Makes one step.
    ///
    /// # Errors
    /// Those of [`Trainer::gradients`]; [`TrainError::NoGradient`] in the first step; [`TrainError::NotFinite`], with the
    /// parameters as they were before the step.
    pub fn advance(&mut self, micro_batches: &[MicroBatch]) -> Result<StepReport, TrainError> {
        let mut sum = self.gradients(micro_batches)?;
        let step = self.step + 1;
        let not_finite = |what: String| TrainError::NotFinite {
            what,
            step,
            checkpoint: None,
        };
        if !sum.loss.is_finite() {
            return Err(not_finite("the loss".into()));
        }
        if !self.checked {
            check_coverage(&sum.gradients, &self.tuning, self.untrained)?;
            self.checked = true;
        }
        let of_adapters = match &self.tuning.adapters {
            Some(adapters) => adapters.gradients(&mut sum.gradients),
            None => Vec::new(),
        };
        let n_parameters = sum.gradients.len();
        sum.gradients.extend(of_adapters);
        let span = profile::span(|| label("GradientNorm", &sum.gradients, 1, 2));
        let squares: Vec<f64> = sum
            .gradients
            .iter()
            .map(|(_, gradient)| gradient.as_deref().map_or(0.0, reduce::sum_of_squares))
            .collect();
        drop(span);
        if let Some(at) = squares.iter().position(|square| !square.is_finite()) {
            return Err(not_finite(format!(
                "the gradient of `{}`",
                sum.gradients[at].0.name
            )));
        }
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        let factor = match self.options.clip_norm > 0.0 {
            true => clip::coefficient(grad_norm, self.options.clip_norm) as f32,
            false => 1.0,
        };
        // Counted from 1, so that the first step of a warm-up already moves.
        let lr = self.options.lr * self.options.schedule.factor(step);
        let of_adapters = sum.gradients.split_off(n_parameters);
        self.apply(lr, factor, sum.gradients, of_adapters)?;
        self.step = step;
        Ok(StepReport {
            loss: sum.loss,
            parts: sum.parts,
            accuracy: sum.accuracy,
            grad_norm,
            lr,
            tokens: Counts::of(micro_batches).tokens as u64,
        })
    }

    /// Updates the parameters with `clip` times their gradients. Each gradient is scaled just before the rule reads it, while it is still in a
    /// cache: one pass over memory less than scaling all of them first.
    fn apply(
        &mut self,
        lr: f64,
        clip: f32,
        gradients: Vec<NamedGradient>,
        mut of_adapters: Vec<NamedGradient>,
    ) -> Result<(), TrainError> {
        // Parameter and both moments are read and written, the gradient is read; the rules differ little in their arithmetic.
        let _span = profile::span(|| label("Optimizer", &gradients, 7, 14));
        let clipped = |gradient: &mut Vec<f32>| {
            if clip < 1.0 {
                optim::scale_in_place(gradient, clip);
            }
        };
        let Some(model) = self.model.take() else {
            unreachable!("the model is taken out only here")
        };
        if let Some(adapters) = &mut self.tuning.adapters {
            of_adapters
                .iter_mut()
                .filter_map(|(_, gradient)| gradient.as_mut())
                .for_each(clipped);
            adapters.update(lr, &mut self.optimizer, &of_adapters)?;
        }
        let tuning = &self.tuning;
        let merged = (tuning.adapters.as_ref()).map_or_else(Default::default, Adapters::weights);
        let mut gradients = gradients.into_iter();
        let mut failed = None;
        let (optimizer, decay_all) = (&mut self.optimizer, self.options.decay_all);
        let model = model.update(|info, values| {
            if let Some(weight) = merged.get(info.name.as_str()) {
                values.copy_from_slice(weight);
            }
            let Some((named, Some(mut gradient))) = gradients.next() else {
                return;
            };
            clipped(&mut gradient);
            debug_assert_eq!(
                named.name, info.name,
                "gradients come in the order of the parameters"
            );
            let slot = ParamSlot {
                name: &info.name,
                shape: &info.shape,
                values,
                gradient: &gradient,
                // Norms and biases are vectors; matrices and embeddings have two axes.
                decay: decay_all || info.shape.len() >= 2,
            };
            if let Err(error) = optimizer.update(lr * tuning.factor(&info.name), slot) {
                failed.get_or_insert(error);
            }
            buffers::give(gradient);
        });
        self.model = Some(model);
        match failed {
            None => Ok(()),
            Some(error) => Err(TrainError::Optimizer(error)),
        }
    }
}

impl Accumulated {
    fn add(
        &mut self,
        loss: f64,
        parts: &Vec<(&'static str, f64)>,
        correct: Option<f64>,
        gradients: Vec<(ParameterInfo, Option<Vec<f32>>)>,
    ) {
        self.loss += loss;
        self.accuracy = self.accuracy.zip(correct).map(|(mine, more)| mine + more);
        for (mine, (_, loss)) in self.parts.iter_mut().zip(parts) {
            mine.1 += loss;
        }
        for ((_, mine), (_, gradient)) in self.gradients.iter_mut().zip(gradients) {
            match (mine.as_mut(), gradient) {
                (Some(mine), Some(gradient)) => optim::add_in_place(mine, &gradient),
                (None, gradient) => *mine = gradient,
                (Some(_), None) => {}
            }
        }
    }
}

/// A span over all parameters that reads or writes `values` numbers and does `flops` operations for each.
fn label(
    name: &'static str,
    gradients: &[(ParameterInfo, Option<Vec<f32>>)],
    values: u64,
    flops: u64,
) -> Label {
    let n: u64 = gradients.iter().map(|(info, _)| info.len() as u64).sum();
    Label {
        name,
        direction: Direction::Update,
        shape: n.to_string(),
        cost: Cost {
            flops: flops * n,
            bytes: values * n * size_of::<f32>() as u64,
            far_bytes: values * n * size_of::<f32>() as u64,
        },
    }
}

/// Every parameter must get a gradient: one that doesn't was cut off the loss by mistake and would silently stay as it is.
/// Frozen ones are meant to, and those whose names hold one of `untrained` may.
fn check_coverage(
    gradients: &[NamedGradient],
    tuning: &Tuning,
    untrained: &[&str],
) -> Result<(), TrainError> {
    let meant =
        |name: &str| tuning.freezes(name) || untrained.iter().any(|part| name.contains(part));
    let tensors: Vec<String> = gradients
        .iter()
        .filter(|(info, gradient)| gradient.is_none() && !meant(&info.name))
        .map(|(info, _)| info.name.clone())
        .collect();
    if tensors.is_empty() {
        Ok(())
    } else {
        Err(TrainError::NoGradient { tensors })
    }
}
