//! `[optimizer]`: an update rule by name, with the settings of that rule and no others.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::validate::positive;
use crate::error::ConfigProblem;
use crate::optim::{Adam, OptimizerError, Rule};

/// Peak learning rate of a section that names none.
const DEFAULT_LR: f64 = 1e-4;
/// Weight decay of AdamW where the section says nothing: the value of BERT (Devlin et al. 2019, appendix A.2).
const DEFAULT_DECAY: f64 = 0.01;

/// `[optimizer]`. In the file, `kind` names the rule (`adamw`, `adam`, `sgd`, `adagrad`, `rmsprop`, `adamax`, `radam`, `nadam`,
/// `adafactor`, `lamb`), and the other keys are the fields of its settings; `betas = [a, b]` is short for `beta1` and `beta2`. A key
/// that the rule does not have is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct OptimizerSection {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay norms and biases as well.
    pub decay_all: bool,
    /// The rule and its settings.
    pub rule: Rule,
}

impl Default for OptimizerSection {
    fn default() -> Self {
        Self {
            lr: DEFAULT_LR,
            decay_all: false,
            rule: Rule::AdamW(Adam {
                weight_decay: DEFAULT_DECAY,
                ..Adam::default()
            }),
        }
    }
}

impl TryFrom<Table> for OptimizerSection {
    type Error = String;

    fn try_from(mut table: Table) -> Result<Self, String> {
        let kind = table
            .remove("kind")
            .unwrap_or_else(|| Value::String("adamw".into()));
        let lr = match table.remove("lr") {
            None => DEFAULT_LR,
            Some(Value::Float(lr)) => lr,
            Some(Value::Integer(lr)) => lr as f64,
            Some(other) => {
                return Err(format!(
                    "`lr` of [optimizer]: expected a number, found {other}"
                ));
            }
        };
        let decay_all = match table.remove("decay_all") {
            None => false,
            Some(Value::Boolean(all)) => all,
            Some(other) => {
                return Err(format!(
                    "`decay_all` of [optimizer]: expected true or false, found {other}"
                ));
            }
        };
        if let Some(betas) = table.remove("betas") {
            let Some([beta1, beta2]) = betas.as_array().map(Vec::as_slice) else {
                return Err(format!(
                    "`betas` of [optimizer]: expected two numbers, found {betas}"
                ));
            };
            for (key, beta) in [("beta1", beta1), ("beta2", beta2)] {
                if table.insert(key.into(), beta.clone()).is_some() {
                    return Err(format!(
                        "[optimizer] has both `betas` and `{key}`: expected one of them"
                    ));
                }
            }
        }
        if kind.as_str() == Some("adamw") {
            table
                .entry("weight_decay")
                .or_insert(Value::Float(DEFAULT_DECAY));
        }
        let name = kind.to_string();
        table.insert("name".into(), kind);
        let rule = Rule::deserialize(Value::Table(table)).map_err(|error| {
            format!(
                "[optimizer] of kind {name}: {}",
                error.to_string().trim_end()
            )
        })?;
        Ok(Self {
            lr,
            decay_all,
            rule,
        })
    }
}

impl From<OptimizerSection> for Table {
    fn from(section: OptimizerSection) -> Self {
        let rule = Value::try_from(&section.rule);
        let mut table = match rule {
            Ok(Value::Table(table)) => table,
            _ => unreachable!("a rule is a struct of numbers and switches"),
        };
        if let Some(name) = table.remove("name") {
            table.insert("kind".into(), name);
        }
        table.insert("lr".into(), Value::Float(section.lr));
        table.insert("decay_all".into(), Value::Boolean(section.decay_all));
        table
    }
}

impl OptimizerSection {
    /// Checks the settings.
    pub(crate) fn validate(&self) -> Result<(), ConfigProblem> {
        positive("optimizer.lr", self.lr)?;
        match self.rule.validate() {
            Ok(()) => Ok(()),
            Err(OptimizerError::Setting {
                name,
                value,
                expected,
            }) => Err(ConfigProblem::new(
                format!("optimizer.{name}"),
                expected,
                value,
                "correct it, or leave it out for the published value",
            )),
            Err(other) => Err(ConfigProblem::new(
                "optimizer",
                "settings that the rule accepts",
                other,
                "correct them",
            )),
        }
    }
}
