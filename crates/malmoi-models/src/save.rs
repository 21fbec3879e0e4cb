//! Writing a model directory that Python opens.

use std::path::Path;

use malmoi_checkpoint::{
    ExtraFile, ModelDirectory, ModelFiles, NamedTensor, Overwrite, TensorData,
};
use serde_json::Value;

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
        let config = self.config_json();
        let published = self.published_tensors();
        let tensors: Vec<NamedTensor<'_>> = published
            .iter()
            .map(|(name, shape, values)| NamedTensor {
                name: name.as_str().into(),
                shape: shape.clone(),
                data: TensorData::from(values.as_slice()),
            })
            .collect();
        write(&ModelFiles {
            config: &config,
            tensors: &tensors,
            generation_config: options.generation_config,
            extra: options.extra,
            card: options.card,
            max_shard_bytes: options.max_shard_bytes,
        })?;
        Ok(())
    }
}
