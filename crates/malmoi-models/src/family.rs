//! Architectures that share one configuration and one network: what tells one family from another.

use std::fmt;

use malmoi_checkpoint::{ConfigError, ConfigReader};
use serde_json::Value;

use crate::head::Head;
use crate::names::Rule;
use crate::published::Published;

/// A family of models with configuration `C` and network `N`: how its files are read and written and what its network is composed
/// of. `X` is what else tells families of this kind apart.
pub struct Family<C, N, X> {
    /// What its files call things.
    pub published: Published,
    /// Published sizes: name and configuration, without `model_type`.
    pub sizes: fn() -> Vec<(&'static str, Value)>,
    /// Reads the family's keys; the caller sets the family.
    pub read: fn(&ConfigReader<'_>) -> Result<C, ConfigError>,
    /// Writes them.
    pub write: fn(&C) -> Value,
    /// The network for a head.
    pub build: fn(&C, Head) -> N,
    /// The table of names for a head.
    pub rules: fn(Head) -> Vec<&'static [Rule]>,
    /// What else there is.
    pub own: X,
}

impl<C, N, X> Family<C, N, X> {
    /// Published sizes: names and what `config.json` says.
    pub(crate) fn presets(&self) -> Vec<(&'static str, Value)> {
        let mut presets = (self.sizes)();
        for (_, config) in &mut presets {
            config["model_type"] = self.published.model_type.into();
        }
        presets
    }

    /// The one of `all` with this `model_type`; the first where there is none of that name.
    pub(crate) fn named(all: &[&'static Self], model_type: &str) -> &'static Self {
        let is = |family: &&&'static Self| family.published.model_type == model_type;
        all.iter().find(is).unwrap_or(&all[0])
    }
}

impl<C, N, X> PartialEq for Family<C, N, X> {
    fn eq(&self, other: &Self) -> bool {
        self.published.model_type == other.published.model_type
    }
}

impl<C, N, X> fmt::Debug for Family<C, N, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.published.model_type)
    }
}
