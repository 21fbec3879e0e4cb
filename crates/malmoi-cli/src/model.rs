//! Finding and opening the model that an argument names.

use std::path::PathBuf;

use indicatif::ProgressBar;
use malmoi_checkpoint::hub::{self, Hub};
use malmoi_checkpoint::{directory as checkpoint, read_config};
use malmoi_infer::Pipeline;
use malmoi_infer::pipeline::PipelineOptions;
use malmoi_models::{Head, ModelConfig, ModelError};

use crate::arguments::{Global, ModelArguments};
use crate::failure::{Failure, Result};
use crate::progress;

/// Shows downloads.
struct Download {
    quiet: bool,
    bar: Option<ProgressBar>,
}

impl hub::Progress for Download {
    fn start(&mut self, file: &str, bytes: u64) {
        self.bar = Some(progress::bar(self.quiet, bytes, file, "bytes"));
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn finish(&mut self, _file: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn notice(&mut self, message: &str) {
        progress::remark(self.quiet, format!("note: {message}"));
    }
}

/// The directory of a model that has weights.
pub fn directory(name: &str, global: &Global) -> Result<PathBuf> {
    let is_dir = std::path::Path::new(name).is_dir();
    if !is_dir && ModelConfig::preset_names().contains(&name) {
        return Err(Failure::input(format!(
            "`{name}` is a preset: a shape without weights; pretrain it first (`malmoi pretrain`), or give a directory or a hub id (org/name)"
        )));
    }
    if let Some(inside) = is_dir.then(|| of_run(std::path::Path::new(name))).flatten() {
        return Ok(inside);
    }
    let mut download = Download {
        quiet: global.quiet,
        bar: None,
    };
    Ok(hub::resolve_with(name, &Hub::from_env()?, &mut download)?)
}

/// The model of a training run's directory: its best checkpoint, or else its last.
fn of_run(dir: &std::path::Path) -> Option<PathBuf> {
    if dir.join("config.json").exists() {
        return None;
    }
    ["best", "last"]
        .map(|link| dir.join(link))
        .into_iter()
        .find(|checkpoint| checkpoint.join("config.json").is_file())
}

/// A model with its tokenizer.
pub fn pipeline(arguments: &ModelArguments, global: &Global) -> Result<Pipeline> {
    let dir = directory(&arguments.model, global)?;
    let options = PipelineOptions {
        head: None,
        accept_unknown_config: arguments.accept_unknown_config,
        accept_smaller_tokenizer: arguments.accept_smaller_tokenizer,
        precision: arguments.precision,
    };
    Ok(Pipeline::open(&dir, &options)?)
}

/// Configuration and head of a directory, hub id or preset; of presets, the encoder with its pooler or the decoder with its
/// language-model head, as published.
pub fn shape(
    name: &str,
    accept_unknown_config: bool,
    global: &Global,
) -> Result<(ModelConfig, Head)> {
    if !std::path::Path::new(name).is_dir()
        && let Some(config) = ModelConfig::preset(name)
    {
        let head = config.usual_head();
        return Ok((config, head));
    }
    let json = read_config(&directory(name, global)?)?;
    let config = ModelConfig::from_json(&json, accept_unknown_config)?;
    let head = match checkpoint::architectures(&json).into_iter().next() {
        None => Head::None,
        Some(name) => config
            .head_named(&name)
            .ok_or_else(|| ModelError::UnknownHead {
                expected: config
                    .architecture_names()
                    .iter()
                    .map(|(_, name)| *name)
                    .collect::<Vec<_>>()
                    .join(", "),
                found: name,
            })?,
    };
    Ok((config, head))
}
