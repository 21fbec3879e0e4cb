//! All architectures: a line each.

use malmoi_checkpoint::ConfigError;
use serde_json::Value;

use crate::architecture::{Architecture, Config};

macro_rules! registry {
    ($($(#[$doc:meta])* $name:ident($config:ty),)*) => {
        /// Configuration of a model of any architecture.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ModelConfig {
            $($(#[$doc])* $name($config),)*
        }

        impl ModelConfig {
            pub(crate) fn get(&self) -> &dyn Config {
                match self {
                    $(Self::$name(config) => config,)*
                }
            }

            pub(crate) fn get_mut(&mut self) -> &mut dyn Config {
                match self {
                    $(Self::$name(config) => config,)*
                }
            }

            /// Reads `config.json` with the architecture that `model_type` belongs to, if there is one.
            pub(crate) fn read(
                model_type: &str,
                config: &Value,
                accept_unknown: bool,
            ) -> Option<Result<Self, ConfigError>> {
                $(if <$config>::MODEL_TYPES.contains(&model_type) {
                    return Some(<$config>::from_json(config, accept_unknown).map(Self::$name));
                })*
                None
            }

            /// Every supported `model_type`.
            pub fn model_types() -> Vec<&'static str> {
                [$(<$config>::MODEL_TYPES),*].concat()
            }

            /// Names of all presets and their published configurations.
            pub(crate) fn presets() -> Vec<(&'static str, Value)> {
                [$(<$config>::presets()),*].concat()
            }
        }
    };
}

registry! {
    /// BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ALBERT, ELECTRA and XLM.
    Encoder(crate::encoder::EncoderConfig),
    /// BART.
    Bart(crate::bart::BartConfig),
    /// GPT-1, GPT-2, GPT-3, GPT-Neo and LLaMA.
    Decoder(crate::decoder::DecoderConfig),
    /// ModernBERT.
    ModernBert(crate::modernbert::ModernBertConfig),
    /// T5 and mT5.
    T5(crate::t5::T5Config),
    /// The original Transformer.
    Vanilla(crate::vanilla::VanillaConfig),
}
