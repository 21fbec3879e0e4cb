//! Optimisers, clipping by norm and learning-rate schedules on host slices.
//!
//! An [`Optimizer`] updates one parameter at a time and keeps its state by the parameter's name, so the order of the calls does
//! not matter and the state can be saved and loaded as named vectors. Sums over a parameter are made in a fixed order: the
//! result has the same bits for any number of threads.

mod adafactor;
mod adam;
pub mod clip;
pub mod schedule;
mod simple;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use adafactor::Adafactor;
pub use adam::{Adam, Lamb, NAdam, RAdam};
pub use schedule::{LearningRate, Schedule};
pub use simple::{Adagrad, Adamax, RmsProp, Sgd};

/// Why a step cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OptimizerError {
    /// Values, gradient or shape disagree.
    #[error(
        "parameter `{name}` has {values} values, {gradient} gradient elements and the shape {shape:?}: expected the same number"
    )]
    Length {
        /// The parameter.
        name: String,
        /// Number of values.
        values: usize,
        /// Number of gradient elements.
        gradient: usize,
        /// The stated shape.
        shape: Vec<usize>,
    },
    /// The saved state does not belong to this optimiser and model.
    #[error("the optimiser state `{name}`: expected {expected}, found {found}")]
    State {
        /// Name of the state vector.
        name: String,
        /// What this optimiser keeps.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A setting is outside its range.
    #[error("{name} is {value}: expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// The value given.
        value: f64,
        /// What is allowed.
        expected: &'static str,
    },
}

/// The update rule and its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Rule {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019): the default.
    AdamW(Adam),
    /// Adam (Kingma and Ba 2015); weight decay is added to the gradient.
    Adam(Adam),
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// Adagrad (Duchi et al. 2011).
    Adagrad(Adagrad),
    /// RMSprop (Tieleman and Hinton 2012).
    RmsProp(RmsProp),
    /// Adamax (Kingma and Ba 2015).
    Adamax(Adamax),
    /// Rectified Adam (Liu et al. 2020).
    RAdam(RAdam),
    /// Adam with Nesterov momentum (Dozat 2016).
    NAdam(NAdam),
    /// Adafactor (Shazeer and Stern 2018): a second moment of rows and columns.
    Adafactor(Adafactor),
    /// LAMB (You et al. 2020): Adam with a step relative to the size of each parameter.
    Lamb(Lamb),
}

/// One parameter, its gradient, and how it is treated.
#[derive(Debug)]
pub struct ParamSlot<'a> {
    /// Name, unique in the model: the key of the state.
    pub name: &'a str,
    /// Extent of each dimension; their product is the number of values.
    pub shape: &'a [usize],
    /// The values, changed in place.
    pub values: &'a mut [f32],
    /// The gradient of the loss.
    pub gradient: &'a [f32],
    /// Whether weight decay applies (usually not to norms and biases).
    pub decay: bool,
}

/// State of one parameter: how many updates it got and the vectors of the rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Moments {
    pub(crate) step: u64,
    pub(crate) vectors: Vec<Vec<f32>>,
}

/// State of an optimiser in a form that can be saved.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OptimizerState {
    /// Updates made, for each parameter.
    pub steps: BTreeMap<String, u64>,
    /// State vectors, named `PARAMETER/VECTOR`, for example `encoder.weight/exp_avg`.
    pub vectors: BTreeMap<String, Vec<f32>>,
}

/// An update rule with its state.
#[derive(Debug, Clone)]
pub struct Optimizer {
    rule: Rule,
    state: BTreeMap<String, Moments>,
}

impl Rule {
    /// Names and lengths of the state vectors for a parameter of this shape.
    fn vectors(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        let n = shape.iter().product();
        match self {
            Self::AdamW(_) | Self::Adam(_) | Self::RAdam(_) | Self::NAdam(_) | Self::Lamb(_) => {
                vec![("exp_avg", n), ("exp_avg_sq", n)]
            }
            Self::Sgd(rule) if rule.momentum == 0.0 => vec![],
            Self::Sgd(_) => vec![("momentum", n)],
            Self::Adagrad(_) => vec![("sum", n)],
            Self::RmsProp(rule) => rule.vectors(n),
            Self::Adamax(_) => vec![("exp_avg", n), ("exp_inf", n)],
            Self::Adafactor(rule) => rule.vectors(shape),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`OptimizerError::Setting`] names the first that is out of range.
    pub fn validate(&self) -> Result<(), OptimizerError> {
        let beta = |name, value: f64| {
            check(
                name,
                value,
                (0.0..1.0).contains(&value),
                "a number from 0, below 1",
            )
        };
        let positive = |name, value: f64| check(name, value, value > 0.0, "a number above 0");
        let not_negative = |name, value: f64| {
            check(
                name,
                value,
                value >= 0.0 && value.is_finite(),
                "a number of 0 or more",
            )
        };
        match self {
            Self::AdamW(Adam {
                beta1,
                beta2,
                eps,
                weight_decay,
            })
            | Self::Adam(Adam {
                beta1,
                beta2,
                eps,
                weight_decay,
            })
            | Self::RAdam(RAdam {
                beta1,
                beta2,
                eps,
                weight_decay,
            })
            | Self::NAdam(NAdam {
                beta1,
                beta2,
                eps,
                weight_decay,
                ..
            })
            | Self::Lamb(Lamb {
                beta1,
                beta2,
                eps,
                weight_decay,
            })
            | Self::Adamax(Adamax {
                beta1,
                beta2,
                eps,
                weight_decay,
            }) => {
                beta("beta1", *beta1)?;
                beta("beta2", *beta2)?;
                positive("eps", *eps)?;
                not_negative("weight_decay", *weight_decay)
            }
            Self::Sgd(rule) => {
                beta("momentum", rule.momentum)?;
                not_negative("weight_decay", rule.weight_decay)?;
                let plain = rule.momentum > 0.0 && rule.dampening == 0.0;
                check(
                    "momentum",
                    rule.momentum,
                    !rule.nesterov || plain,
                    "momentum without dampening for nesterov",
                )
            }
            Self::Adagrad(rule) => {
                positive("eps", rule.eps)?;
                not_negative("weight_decay", rule.weight_decay)
            }
            Self::RmsProp(rule) => {
                beta("alpha", rule.alpha)?;
                beta("momentum", rule.momentum)?;
                positive("eps", rule.eps)?;
                not_negative("weight_decay", rule.weight_decay)
            }
            Self::Adafactor(rule) => {
                positive("clip_threshold", rule.clip_threshold)?;
                beta("beta1", rule.beta1.unwrap_or(0.0))?;
                check(
                    "decay_rate",
                    rule.decay_rate,
                    rule.decay_rate < 0.0,
                    "a number below 0",
                )?;
                not_negative("weight_decay", rule.weight_decay)
            }
        }
    }
}

fn check(
    name: &'static str,
    value: f64,
    valid: bool,
    expected: &'static str,
) -> Result<(), OptimizerError> {
    if valid {
        Ok(())
    } else {
        Err(OptimizerError::Setting {
            name,
            value,
            expected,
        })
    }
}

impl Optimizer {
    /// An optimiser without state.
    ///
    /// # Errors
    /// [`OptimizerError::Setting`] when a setting is out of range.
    pub fn new(rule: Rule) -> Result<Self, OptimizerError> {
        rule.validate()?;
        Ok(Self {
            rule,
            state: BTreeMap::new(),
        })
    }

    /// The rule and its settings.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Updates one parameter with the learning rate `lr`. A parameter without a gradient is simply not passed: it gets no update
    /// at all, not even weight decay.
    ///
    /// # Errors
    /// [`OptimizerError::Length`] when values, gradient and shape disagree; [`OptimizerError::State`] when the parameter had another size
    /// before.
    pub fn update(&mut self, lr: f64, param: ParamSlot<'_>) -> Result<(), OptimizerError> {
        let n: usize = param.shape.iter().product();
        if param.values.len() != n || param.gradient.len() != n {
            return Err(OptimizerError::Length {
                name: param.name.to_owned(),
                values: param.values.len(),
                gradient: param.gradient.len(),
                shape: param.shape.to_vec(),
            });
        }
        if !self.state.contains_key(param.name) {
            let vectors = self
                .rule
                .vectors(param.shape)
                .into_iter()
                .map(|(_, n)| vec![0.0; n])
                .collect();
            self.state
                .insert(param.name.to_owned(), Moments { step: 0, vectors });
        }
        let state = self
            .state
            .get_mut(param.name)
            .expect("the state was just made");
        for ((vector, expected), found) in self
            .rule
            .vectors(param.shape)
            .into_iter()
            .zip(&state.vectors)
        {
            if found.len() != expected {
                return Err(OptimizerError::State {
                    name: format!("{}/{vector}", param.name),
                    expected: format!("{expected} elements for the shape {:?}", param.shape),
                    found: found.len().to_string(),
                });
            }
        }
        state.step += 1;
        match &self.rule {
            Rule::AdamW(rule) => rule.update_decoupled(lr, state, param),
            Rule::Adam(rule) => rule.update(lr, state, param),
            Rule::Sgd(rule) => rule.update(lr, state, param),
            Rule::Adagrad(rule) => rule.update(lr, state, param),
            Rule::RmsProp(rule) => rule.update(lr, state, param),
            Rule::Adamax(rule) => rule.update(lr, state, param),
            Rule::RAdam(rule) => rule.update(lr, state, param),
            Rule::NAdam(rule) => rule.update(lr, state, param),
            Rule::Adafactor(rule) => rule.update(lr, state, param),
            Rule::Lamb(rule) => rule.update(lr, state, param),
        }
        Ok(())
    }

    /// Updates several parameters.
    ///
    /// # Errors
    /// As [`Optimizer::update`]; the parameters before the failing one have been updated.
    pub fn step(&mut self, lr: f64, params: Vec<ParamSlot<'_>>) -> Result<(), OptimizerError> {
        params
            .into_iter()
            .try_for_each(|param| self.update(lr, param))
    }

    /// A copy of the state.
    pub fn state(&self) -> OptimizerState {
        let mut saved = OptimizerState::default();
        for (name, moments) in &self.state {
            saved.steps.insert(name.clone(), moments.step);
            // The names do not depend on the shape; their number may (Adafactor factors matrices only).
            for (vector, data) in self
                .vector_names(moments.vectors.len())
                .iter()
                .zip(&moments.vectors)
            {
                saved
                    .vectors
                    .insert(format!("{name}/{vector}"), data.clone());
            }
        }
        saved
    }

    fn vector_names(&self, count: usize) -> Vec<&'static str> {
        [&[1usize][..], &[1, 1][..]]
            .iter()
            .map(|shape| {
                self.rule
                    .vectors(shape)
                    .into_iter()
                    .map(|(name, _)| name)
                    .collect::<Vec<_>>()
            })
            .find(|names| names.len() == count)
            .unwrap_or_default()
    }

    /// Replaces the state by a saved one. `shapes` gives name and shape of every parameter that will be updated.
    ///
    /// # Errors
    /// [`OptimizerError::State`] for a vector that is missing, has another length, or belongs to no parameter of `shapes`.
    pub fn load<'a>(
        &mut self,
        mut saved: OptimizerState,
        shapes: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<(), OptimizerError> {
        let mut state = BTreeMap::new();
        for (name, shape) in shapes {
            // A parameter that had no gradient so far has no state.
            let Some(step) = saved.steps.remove(name) else {
                continue;
            };
            let mut vectors = Vec::new();
            for (vector, expected) in self.rule.vectors(shape) {
                let key = format!("{name}/{vector}");
                match saved.vectors.remove(&key) {
                    Some(data) if data.len() == expected => vectors.push(data),
                    other => {
                        return Err(OptimizerError::State {
                            name: key,
                            expected: format!("{expected} elements"),
                            found: other.map_or("nothing".into(), |data| {
                                format!("{} elements", data.len())
                            }),
                        });
                    }
                }
            }
            state.insert(name.to_owned(), Moments { step, vectors });
        }
        if let Some(name) = saved
            .vectors
            .into_keys()
            .chain(saved.steps.into_keys())
            .next()
        {
            return Err(OptimizerError::State {
                name,
                expected: "state of the parameters of this model under the same rule".into(),
                found: "state of something else".into(),
            });
        }
        self.state = state;
        Ok(())
    }
}
