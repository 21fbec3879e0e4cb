//! Reader of rotary positions: one form of old files (`rope_theta`, `rope_scaling`), one of new ones (`rope_parameters`).

use std::sync::Arc;

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{Pairs, Rotary};
use serde_json::{Value, json};

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
    /// Not at all up to the length that the model was trained with; beyond it, by as much as a sequence is longer ("dynamic NTK"). That
    /// length is the longest that we compute, so the factor is kept for the file alone.
    Dynamic {
        /// The factor.
        factor: f32,
    },
    /// Low frequencies by a factor, high ones not, those between in proportion to their index (Peng et al., 2023, "YaRN").
    Yarn(Yarn),
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

/// Settings of YaRN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// The factor of low frequencies.
    pub factor: f32,
    /// Frequencies of more turns than this within the original context are high (`beta_fast`).
    pub fast: f32,
    /// Frequencies of fewer turns than this are low (`beta_slow`).
    pub slow: f32,
    /// Positions that the model was first trained with.
    pub original: usize,
    /// Factor on cosines and sines, if it is given (`attention_factor`).
    pub amplitude: Option<f32>,
    /// How strongly the factor's logarithm raises the amplitude, and how strongly it lowers it again (`mscale`, `mscale_all_dim`), if
    /// both are given.
    pub scales: Option<(f32, f32)>,
    /// Whether the borders between high, middle and low fall on whole indices.
    pub truncate: bool,
}

impl Yarn {
    /// Factor on cosines and sines: `0.1 ln(factor) + 1` (section 3.4 of the paper) unless something else is given.
    fn amplitude(&self) -> f32 {
        let scale = |strength: f32| match self.factor > 1.0 {
            true => 0.1 * f64::from(strength) * f64::from(self.factor).ln() + 1.0,
            false => 1.0,
        };
        let followed = match self.scales {
            Some((up, down)) => scale(up) / scale(down),
            None => scale(1.0),
        };
        self.amplitude.unwrap_or(followed as f32)
    }

    /// The frequencies of heads of which `d_rotary` elements turn.
    fn stretched(&self, frequencies: &[f32], theta: f32, d_rotary: usize) -> Arc<[f32]> {
        let d = d_rotary as f64;
        // The index at which a frequency makes so many turns within the original context.
        let index = |turns: f32| {
            let wave = self.original as f64 / (f64::from(turns) * std::f64::consts::TAU);
            d * wave.ln() / (2.0 * f64::from(theta).ln())
        };
        let (mut first, mut last) = (index(self.fast), index(self.slow));
        if self.truncate {
            (first, last) = (first.floor(), last.ceil());
        }
        (first, last) = (first.max(0.0), last.min(d - 1.0));
        if first == last {
            // As published, against a division by zero.
            last += 0.001;
        }
        let ramp = |i: usize| ((i as f64 - first) / (last - first)).clamp(0.0, 1.0) as f32;
        let mixed = frequencies.iter().enumerate().map(|(i, frequency)| {
            let low = ramp(i);
            frequency / self.factor * low + frequency * (1.0 - low)
        });
        mixed.collect()
    }
}

const YARN_KEYS: &[&str] = &[
    "factor",
    "beta_fast",
    "beta_slow",
    "original_max_position_embeddings",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "truncate",
];

const LLAMA3_KEYS: &[&str] = &[
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
];

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
        let original = "original_max_position_embeddings";
        let (scaling, known): (_, &[&str]) = match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => (RopeScaling::None, &[]),
            Some("linear") => {
                let factor = needed("factor")?;
                (RopeScaling::Linear { factor }, &["factor"])
            }
            Some("dynamic") => {
                let factor = needed("factor")?;
                (RopeScaling::Dynamic { factor }, &["factor"])
            }
            Some("yarn") => {
                let yarn = Yarn {
                    factor: needed("factor")?,
                    fast: number("beta_fast")?.unwrap_or(32.0),
                    slow: number("beta_slow")?.unwrap_or(1.0),
                    original: needed(original)? as usize,
                    amplitude: number("attention_factor")?,
                    scales: number("mscale")?.zip(number("mscale_all_dim")?),
                    truncate: match given.get("truncate") {
                        None | Some(Value::Null) => true,
                        Some(Value::Bool(truncate)) => *truncate,
                        Some(other) => {
                            let key = format!("{key}.truncate");
                            return Err(read.wrong_type(&key, other, "true or false"));
                        }
                    },
                };
                (RopeScaling::Yarn(yarn), YARN_KEYS)
            }
            Some("llama3") => {
                let scaling = RopeScaling::ByFrequency {
                    factor: needed("factor")?,
                    low: needed("low_freq_factor")?,
                    high: needed("high_freq_factor")?,
                    original: needed(original)? as usize,
                };
                (scaling, LLAMA3_KEYS)
            }
            _ => {
                let found = kind.cloned().unwrap_or_default();
                let key = format!("{key}.rope_type");
                let expected = "default, linear, dynamic, yarn or llama3";
                return Err(read.unsupported(&key, &found, expected));
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
        let mut value = json!({ "rope_theta": decimal(self.theta) });
        value["rope_type"] = match self.scaling {
            RopeScaling::None => "default",
            RopeScaling::Linear { factor } => {
                value["factor"] = decimal(factor).into();
                "linear"
            }
            RopeScaling::Dynamic { factor } => {
                value["factor"] = decimal(factor).into();
                "dynamic"
            }
            RopeScaling::Yarn(yarn) => {
                value["factor"] = decimal(yarn.factor).into();
                value["beta_fast"] = decimal(yarn.fast).into();
                value["beta_slow"] = decimal(yarn.slow).into();
                value["original_max_position_embeddings"] = yarn.original.into();
                value["truncate"] = yarn.truncate.into();
                if let Some(amplitude) = yarn.amplitude {
                    value["attention_factor"] = decimal(amplitude).into();
                }
                if let Some((up, down)) = yarn.scales {
                    value["mscale"] = decimal(up).into();
                    value["mscale_all_dim"] = decimal(down).into();
                }
                "yarn"
            }
            RopeScaling::ByFrequency {
                factor,
                low,
                high,
                original,
            } => {
                value["factor"] = decimal(factor).into();
                value["low_freq_factor"] = decimal(low).into();
                value["high_freq_factor"] = decimal(high).into();
                value["original_max_position_embeddings"] = original.into();
                "llama3"
            }
        }
        .into();
        value
    }

    /// Rotary positions of heads whose first `d_rotary` elements turn.
    pub fn rotary(&self, d_rotary: usize, pairs: Pairs) -> Rotary {
        let plain = Rotary::new(self.theta, d_rotary, pairs);
        let each = |stretch: &dyn Fn(f32) -> f32| {
            let frequencies = plain.frequencies.iter().map(|f| stretch(*f)).collect();
            Rotary::with_frequencies(frequencies, pairs)
        };
        match self.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => plain,
            RopeScaling::Linear { factor } => each(&|frequency| frequency / factor),
            RopeScaling::Yarn(yarn) => {
                let frequencies = yarn.stretched(&plain.frequencies, self.theta, d_rotary);
                let mut rotary = Rotary::with_frequencies(frequencies, pairs);
                rotary.amplitude = yarn.amplitude();
                rotary
            }
            RopeScaling::ByFrequency {
                factor,
                low,
                high,
                original,
            } => each(&|frequency| {
                let turns = original as f32 * frequency / std::f32::consts::TAU;
                if turns < low {
                    frequency / factor
                } else if turns > high {
                    frequency
                } else {
                    let smooth = (turns - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }),
        }
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
            (json!({"rope_type": "longrope", "factor": 4.0}), "rope_type"),
            (
                json!({"rope_type": "yarn", "factor": 4.0}),
                "original_max_position_embeddings",
            ),
            (json!({"rope_type": "dynamic"}), "factor"),
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

    #[test]
    fn yarn_leaves_high_frequencies_and_raises_the_amplitude() {
        let yarn = Yarn {
            factor: 8.0,
            fast: 32.0,
            slow: 1.0,
            original: 1024,
            amplitude: None,
            scales: None,
            truncate: true,
        };
        let config = RopeConfig {
            theta: 10_000.0,
            scaling: RopeScaling::Yarn(yarn),
        };
        let plain = RopeConfig::new(10_000.0).rotary(16, Pairs::Halves);
        let stretched = config.rotary(16, Pairs::Halves);
        // 32 turns within 1024 positions at index 16 ln(1024 / 64π) / 2 ln 10000 = 1.41, one turn at 4.42: borders 1 and 5.
        assert_eq!(stretched.frequencies[..2], plain.frequencies[..2]);
        let ratio = |i: usize| stretched.frequencies[i] / plain.frequencies[i];
        assert!((ratio(3) - (0.5 / 8.0 + 0.5)).abs() < 1e-6, "{}", ratio(3));
        assert_eq!(ratio(5), 0.125);
        assert!((stretched.amplitude - (0.1 * 8_f32.ln() + 1.0)).abs() < 1e-6);
        let scaled = Yarn {
            scales: Some((1.0, 2.0)),
            ..yarn
        };
        let expected = (0.1 * 8_f32.ln() + 1.0) / (0.2 * 8_f32.ln() + 1.0);
        assert!((scaled.amplitude() - expected).abs() < 1e-6);
        let read_back = read(json!({"rope_parameters": config.to_value()}));
        assert_eq!(read_back, Ok(config));
    }
}
