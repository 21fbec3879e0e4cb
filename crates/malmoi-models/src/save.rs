//! Writing a model directory that Python opens.

use std::path::Path;

use malmoi_checkpoint::{
    ExtraFile, ModelDirectory, ModelFiles, NamedTensor, Overwrite, TensorData,
};
use serde_json::Value;

use crate::electra::files::GENERATOR_FOLDER;
use crate::error::ModelError;
use crate::model::Model;

/// What goes into a model directory beside configuration and weights.
#[derive(Clone, Debug, Default)]
pub struct SaveOptions<'a> {
    /// Tokenizer files and the like.
    pub extra: &'a [ExtraFile<'a>],
    /// `generation_config.json`.
    pub generation_config: Option<&'a Value>,
    /// The model card.
    pub card: Option<&'a str>,
    /// Whether an existing directory may be replaced.
    pub overwrite: Overwrite,
    /// Split weights into files of at most so many bytes.
    pub max_shard_bytes: Option<u64>,
}

impl Model {
    /// Writes the model as a published model directory, complete or not at all.
    ///
    /// # Errors
    /// A path that is taken, or files that cannot be written.
    pub fn save(&self, directory: &Path, options: &SaveOptions<'_>) -> Result<(), ModelError> {
        self.with_files(options, |files| {
            ModelDirectory::write(directory, files, options.overwrite)
        })
    }

    /// Writes the same files into a directory that exists and becomes visible later (a checkpoint in the making).
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn save_into(&self, directory: &Path, options: &SaveOptions<'_>) -> Result<(), ModelError> {
        self.with_files(options, |files| files.write_into(directory))
    }

    fn with_files(
        &self,
        options: &SaveOptions<'_>,
        write: impl FnOnce(&ModelFiles<'_>) -> malmoi_checkpoint::Result<()>,
    ) -> Result<(), ModelError> {
        let (config, published) = (self.config_json(), self.published_tensors());
        let tensors = named(&published);
        let generator = self.generator();
        let generator = generator.map(|model| (model.config_json(), model.published_tensors()));
        let generator_tensors = generator.as_ref().map(|(_, published)| named(published));
        let files = |config, tensors, nested| ModelFiles {
            config,
            tensors,
            generation_config: None,
            extra: options.extra,
            card: None,
            max_shard_bytes: options.max_shard_bytes,
            nested,
        };
        let nested: Vec<(&str, ModelFiles<'_>)> = match (&generator, &generator_tensors) {
            (Some((config, _)), Some(tensors)) => {
                vec![(GENERATOR_FOLDER, files(config, tensors.as_slice(), &[]))]
            }
            _ => Vec::new(),
        };
        write(&ModelFiles {
            generation_config: options.generation_config,
            card: options.card,
            ..files(&config, &tensors, &nested)
        })?;
        Ok(())
    }
}

fn named(published: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<NamedTensor<'_>> {
    let tensors = published.iter();
    tensors
        .map(|(name, shape, values)| NamedTensor {
            name: name.as_str().into(),
            shape: shape.clone(),
            data: TensorData::from(values.as_slice()),
        })
        .collect()
}
