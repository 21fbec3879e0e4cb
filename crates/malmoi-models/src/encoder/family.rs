//! What tells one encoder family from another.

use std::fmt;

use malmoi_checkpoint::{ConfigError, ConfigReader};
use serde_json::Value;

use super::{Encoder, EncoderConfig};
use crate::head::Head;
use crate::names::{NameTable, Rule};
use crate::{albert, bert, distilbert, electra, roberta, xlm};

/// A family of encoders: how its files are read and written and which parts its network has.
pub struct Family {
    /// The published `model_type`.
    pub model_type: &'static str,
    /// Heads and the class names they are published under; the bare model first.
    pub heads: &'static [(Head, &'static str)],
    /// The same for models that see only the left; empty where a family has none.
    pub causal_heads: &'static [(Head, &'static str)],
    /// Published sizes: name and configuration, without `model_type`.
    pub sizes: fn() -> Vec<(&'static str, Value)>,
    /// Reads the family's keys; labels and `family` are filled in by the caller.
    pub read: fn(&ConfigReader<'_>) -> Result<EncoderConfig, ConfigError>,
    /// Writes them.
    pub write: fn(&EncoderConfig) -> Value,
    /// Width of the feed-forward layer for a width of the hidden states, where a family has no choice.
    pub d_ff: Option<fn(usize) -> usize>,
    /// What the loss over pairs of segments is called.
    pub pair_loss: &'static str,
    /// The network for a head.
    pub build: fn(&EncoderConfig, Head) -> Encoder,
    /// The table of names for a head.
    pub rules: fn(Head) -> Vec<&'static [Rule]>,
    /// What published files put before the names of the base model.
    pub prefix: &'static str,
    /// Names that start with one of these carry no prefix: the heads.
    pub unprefixed: &'static [&'static str],
    /// Parameters of ours and the published tensors that repeat them.
    pub tied: &'static [(&'static str, &'static str)],
}

impl Family {
    /// The families.
    pub(crate) const ALL: [&'static Self; 7] = [
        &bert::FAMILY,
        &roberta::FAMILY,
        &roberta::XLM_ROBERTA,
        &distilbert::FAMILY,
        &albert::FAMILY,
        &electra::FAMILY,
        &xlm::FAMILY,
    ];

    /// The family of a `model_type`; BERT where there is none of that name.
    pub(crate) fn named(model_type: &str) -> &'static Self {
        let found = Self::ALL
            .into_iter()
            .find(|family| family.model_type == model_type);
        found.unwrap_or(&bert::FAMILY)
    }

    /// Published sizes: names and what `config.json` says.
    pub(crate) fn presets(&self) -> Vec<(&'static str, Value)> {
        let mut presets = (self.sizes)();
        for (_, config) in &mut presets {
            config["model_type"] = self.model_type.into();
        }
        presets
    }

    /// The names of a model with `head`; a bare model carries no prefix unless the file at hand does.
    pub(crate) fn table(&self, config: &EncoderConfig, head: Head, prefixed: bool) -> NameTable {
        let prefix = if prefixed { self.prefix } else { "" };
        NameTable::new(&(self.rules)(head), prefix, self.unprefixed)
            .sharing(config.sharing, config.n_layers)
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type)
    }
}
