//! A discriminator with its generator on disk: the generator is a model directory of its own inside the discriminator's.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;

use malmoi_nn::parameters::Mode;

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::head::Head;
use crate::model::{Model, OpenOptions};

/// Folder of the generator in the discriminator's directory.
pub const GENERATOR_FOLDER: &str = "generator";

/// What the generator's parameters are called in the pair.
pub(crate) const PREFIX: &str = "generator.";

/// What the two share.
const SHARED: &str = "embeddings.";

impl Model {
    /// Opens a discriminator together with the generator in its folder [`GENERATOR_FOLDER`], to train both further.
    ///
    /// # Errors
    /// What [`Model::open`] finds in either, or embeddings that differ between the two.
    pub fn open_with_generator(
        directory: &Path,
        options: &OpenOptions,
    ) -> Result<Self, ModelError> {
        let part = |head, directory: &Path| {
            let options = OpenOptions {
                head: Some(head),
                mode: Mode::Inference,
                ..*options
            };
            Self::open(directory, &options)
        };
        let discriminator = part(Head::ReplacedTokens, directory)?;
        let generator = part(Head::MaskedLm, &directory.join(GENERATOR_FOLDER))?;
        let config = discriminator.config().clone();
        let config = config.with_generator(generator.config().clone())?;
        let mut values = HashMap::new();
        discriminator.read(|info, parameter| {
            values.insert(info.name.clone(), parameter.to_vec());
        });
        let mut differing = None;
        generator.read(|info, parameter| {
            if !info.name.starts_with(SHARED) {
                values.insert(format!("{PREFIX}{}", info.name), parameter.to_vec());
            } else if values[&info.name] != parameter {
                differing.get_or_insert(info.name.clone());
            }
        });
        if let Some(name) = differing {
            return Err(ModelError::UntiedEmbeddings { name });
        }
        let filled = Self::blank(config, Head::ReplacedTokens).fill(options.mode, |info| {
            Ok::<_, Infallible>(values.remove(&info.name).expect("a value a parameter"))
        });
        Ok(filled.unwrap_or_else(|never| match never {}))
    }

    /// The generator of a pair as a model of its own, with a copy of the shared embeddings.
    pub fn generator(&self) -> Option<Self> {
        let ModelConfig::Encoder(config) = self.config() else {
            return None;
        };
        let generator = ModelConfig::Encoder(*config.generator.clone()?);
        let mut values = HashMap::new();
        self.read(|info, parameter| {
            let name = info.name.strip_prefix(PREFIX);
            if let Some(name) = name.or_else(|| info.name.starts_with(SHARED).then_some(&info.name))
            {
                values.insert(name.to_owned(), parameter.to_vec());
            }
        });
        let filled = Self::blank(generator, Head::MaskedLm)
            .fill(Mode::Inference, |info| values.remove(&info.name).ok_or(()));
        // A discriminator that is opened for another head trains without its generator.
        filled.ok()
    }
}
