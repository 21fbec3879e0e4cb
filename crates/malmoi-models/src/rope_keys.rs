//! Reader of rotary positions: one form of old files (`rope_theta`, `rope_scaling`), one of new ones (`rope_parameters`).

use std::sync::Arc;

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{Pairs, Rotary};
use serde_json::{Map, Value, json};

type Result<T> = std::result::Result<T, ConfigError>;

/// Frequencies of rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f32,
    /// How they are stretched for contexts longer than the model was first trained with.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All by one factor (Chen et al., 2023, "position interpolation").
    Linear {
        /// The factor.
        factor: f32,
    },
    /// Low frequencies by a factor, high ones not, those between in proportion (LLaMA 3.1).
    ByFrequency {
        /// The factor of low frequencies.
        factor: f32,
        /// Waves longer than the original context divided by this are low frequencies.
        low: f32,
        /// Waves shorter than the original context divided by this are high ones.
        high: f32,
        /// Positions that the model was first trained with.
        original: usize,
    },
}

impl RopeConfig {
    /// Unstretched frequencies.
    pub fn new(theta: f32) -> Self {
        Self {
            theta,
            scaling: RopeScaling::None,
        }
    }

    /// Reads `rope_parameters`, or `rope_theta` and `rope_scaling`.
    ///
    /// # Errors
    /// A value of the wrong kind, or a kind of stretching that isn't implemented.
    pub fn read(read: &ConfigReader<'_>, theta: f32) -> Result<Self> {
        let theta = read.f64_or("rope_theta", f64::from(theta))? as f32;
        let old = match read.value("rope_scaling") {
            Some(value) => Self::from_value(read, "rope_scaling", value, theta)?,
            None => Self::new(theta),
        };
        match read.value("rope_parameters") {
            Some(value) => Self::from_value(read, "rope_parameters", value, theta),
            None => Ok(old),
        }
    }

    /// Reads one object of such parameters.
    ///
    /// # Errors
    /// As [`RopeConfig::read`].
    pub fn from_value(
        read: &ConfigReader<'_>,
        key: &str,
        value: &Value,
        theta: f32,
    ) -> Result<Self> {
        let Some(given) = value.as_object() else {
            return Err(read.wrong_type(key, value, "an object"));
        };
        let number = |name: &str| -> Result<Option<f32>> {
            match given.get(name).filter(|value| !value.is_null()) {
                None => Ok(None),
                Some(found) => match found.as_f64() {
                    Some(x) if x.is_finite() && x > 0.0 => Ok(Some(x as f32)),
                    _ => Err(read.wrong_type(&format!("{key}.{name}"), found, "a number above 0")),
                },
            }
        };
        let needed = |name: &str| -> Result<f32> {
            let missing = || read.wrong_type(&format!("{key}.{name}"), &Value::Null, "a number");
            number(name)?.ok_or_else(missing)
        };
        let kind = given.get("rope_type").or_else(|| given.get("type"));
        let (scaling, known): (_, &[&str]) = match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => (RopeScaling::None, &[]),
            Some("linear") => {
                let factor = needed("factor")?;
                (RopeScaling::Linear { factor }, &["factor"])
            }
            Some("llama3") => {
                let scaling = RopeScaling::ByFrequency {
                    factor: needed("factor")?,
                    low: needed("low_freq_factor")?,
                    high: needed("high_freq_factor")?,
                    original: needed("original_max_position_embeddings")? as usize,
                };
                const KEYS: &[&str] = &[
                    "factor",
                    "low_freq_factor",
                    "high_freq_factor",
                    "original_max_position_embeddings",
                ];
                (scaling, KEYS)
            }
            _ => {
                let found = kind.cloned().unwrap_or_default();
                let key = format!("{key}.rope_type");
                return Err(read.unsupported(&key, &found, "default, linear or llama3"));
            }
        };
        for (name, found) in given {
            let expected = ["rope_type", "type", "rope_theta"];
            if !expected.contains(&name.as_str()) && !known.contains(&name.as_str()) {
                return Err(read.unsupported(&format!("{key}.{name}"), found, "no such setting"));
            }
        }
        Ok(Self {
            theta: number("rope_theta")?.unwrap_or(theta),
            scaling,
        })
    }

    /// What [`RopeConfig::from_value`] reads.
    pub fn to_value(&self) -> Value {
        let decimal = crate::config_keys::decimal;
        let mut value = Map::new();
        value.insert("rope_theta".into(), decimal(self.theta).into());
        let kind = match self.scaling {
            RopeScaling::None => "default",
            RopeScaling::Linear { factor } => {
                value.insert("factor".into(), decimal(factor).into());
                "linear"
            }
            RopeScaling::ByFrequency {
                factor,
                low,
                high,
                original,
            } => {
                value.insert("factor".into(), decimal(factor).into());
                value.insert("low_freq_factor".into(), decimal(low).into());
                value.insert("high_freq_factor".into(), decimal(high).into());
                value.insert("original_max_position_embeddings".into(), json!(original));
                "llama3"
            }
        };
        value.insert("rope_type".into(), kind.into());
        value.into()
    }

    /// Rotary positions of heads whose first `d_rotary` elements turn.
    pub fn rotary(&self, d_rotary: usize, pairs: Pairs) -> Rotary {
        let rotary = Rotary::new(self.theta, d_rotary, pairs);
        let stretch = |frequency: f32| match self.scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::ByFrequency {
                factor,
                low,
                high,
                original,
            } => {
                let turns = original as f32 * frequency / std::f32::consts::TAU;
                if turns < low {
                    frequency / factor
                } else if turns > high {
                    frequency
                } else {
                    let smooth = (turns - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        };
        if self.scaling == RopeScaling::None {
            return rotary;
        }
        let frequencies: Arc<[f32]> = rotary.frequencies.iter().map(|f| stretch(*f)).collect();
        Rotary::with_frequencies(frequencies, pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: Value) -> std::result::Result<RopeConfig, String> {
        let mut all = json!({"model_type": "llama"});
        for (key, value) in config.as_object().expect("an object") {
            all[key] = value.clone();
        }
        let reader = ConfigReader::new(&all, "llama").expect("an object");
        RopeConfig::read(&reader, 10_000.0).map_err(|error| error.to_string())
    }

    #[test]
    fn old_and_new_forms_say_the_same() {
        let old =
            json!({"rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 2.0}});
        let new = json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}});
        let expected = RopeConfig {
            theta: 500_000.0,
            scaling: RopeScaling::Linear { factor: 2.0 },
        };
        assert_eq!(read(old), Ok(expected.clone()));
        assert_eq!(read(new), Ok(expected.clone()));
        assert_eq!(
            read(json!({"rope_parameters": expected.to_value()})),
            Ok(expected)
        );
        assert_eq!(read(json!({})), Ok(RopeConfig::new(10_000.0)));
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (value, named) in [
            (json!({"rope_type": "yarn", "factor": 4.0}), "rope_type"),
            (json!({"rope_type": "linear"}), "factor"),
            (json!({"rope_type": "default", "surprise": 1}), "surprise"),
            (json!(3), "rope_parameters"),
        ] {
            let message = read(json!({"rope_parameters": value})).expect_err(named);
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn stretching_by_frequency_leaves_high_ones_alone() {
        let config = RopeConfig {
            theta: 10_000.0,
            scaling: RopeScaling::ByFrequency {
                factor: 8.0,
                low: 1.0,
                high: 4.0,
                original: 64,
            },
        };
        let plain = RopeConfig::new(10_000.0).rotary(16, Pairs::Halves);
        let stretched = config.rotary(16, Pairs::Halves);
        assert_eq!(stretched.frequencies[0], plain.frequencies[0]);
        assert_eq!(stretched.frequencies[7], plain.frequencies[7] / 8.0);
        // 64 / 2π · 10000^(-2/16) = 3.22 turns: 0.74 of the way from low to high.
        let ratio = stretched.frequencies[1] / plain.frequencies[1];
        assert!((ratio - 0.773).abs() < 0.002, "{ratio}");
    }
}
