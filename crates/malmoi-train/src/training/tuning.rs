//! Which parameters a run trains, and how fast.

use std::collections::BTreeMap;

use malmoi_models::{Model, ParameterInfo};

use super::adapters::Adapters;

/// Which parameters a run trains, and how fast. By default all, at the same rate.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// Factor on the learning rate by parameter; 1 where there is none. Parameters with the factor 0 are frozen.
    pub factors: BTreeMap<String, f64>,
    /// Adapters, through which the weights they cover are trained.
    pub adapters: Option<Adapters>,
}

impl Tuning {
    /// Factor on the learning rate of a parameter.
    pub fn factor(&self, parameter: &str) -> f64 {
        self.factors.get(parameter).copied().unwrap_or(1.0)
    }

    /// Whether nothing changes a parameter.
    pub fn freezes(&self, parameter: &str) -> bool {
        let adapted = self
            .adapters
            .as_ref()
            .is_some_and(|all| all.covers(parameter));
        !adapted && self.factor(parameter) == 0.0
    }

    /// The model with frozen parameters left out of its graph.
    pub(super) fn apply(&self, model: Model) -> Model {
        let any = self.factors.values().any(|factor| *factor == 0.0);
        match any {
            true => model.freeze(|info: &ParameterInfo| self.freezes(&info.name)),
            false => model,
        }
    }
}
