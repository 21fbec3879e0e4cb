//! Models that were fine-tuned for a task, with what they know about it.

use malmoi_infer::Pipeline;
use malmoi_tasks::{Encoder, OutputKind, TaskError, TaskSpec};
use malmoi_train::finetune::{SavedTask, encoder};

use crate::arguments::{Global, ModelArguments};
use crate::failure::Result;
use crate::model;
use crate::task::TaskArguments;

/// Tokens of an input where neither flags nor model say it.
const MAX_LEN: usize = 128;

/// A model with its tokenizer and task.
pub struct Tuned {
    pub pipeline: Pipeline,
    pub spec: TaskSpec,
    max_len: usize,
}

impl Tuned {
    /// Opens a model for a task. Flags come before what the model's folder says.
    pub fn open<T: TaskArguments>(
        arguments: &ModelArguments,
        flags: &T,
        max_len: Option<usize>,
        global: &Global,
    ) -> Result<Self> {
        let saved = SavedTask::load(&model::directory(&arguments.model, global)?)?;
        let (base, length) = match saved {
            Some(saved) => (Some(saved.task), Some(saved.max_len)),
            None => (None, None),
        };
        let tuned = Self {
            pipeline: model::pipeline(arguments, global)?,
            spec: flags.spec(base),
            max_len: max_len.or(length).unwrap_or(MAX_LEN),
        };
        tuned.check()?;
        Ok(tuned)
    }

    /// Refuses a model whose outputs are not those of the task: labels to choose from, or a single value.
    fn check(&self) -> Result<(), TaskError> {
        let task = self.spec.task();
        let expected = match (task.output(), self.labels().len()) {
            (OutputKind::Classes, 0 | 1) => "a model with several labels",
            (OutputKind::Value, n) if n != 1 => "a model with one output",
            _ => return Ok(()),
        };
        Err(TaskError::WrongModel {
            task: task.name(),
            expected: format!("{expected} (id2label in its config.json)"),
            found: match self.labels().len() {
                0 => "none".into(),
                n => format!("{n}"),
            },
        })
    }

    /// Names of the classes.
    pub fn labels(&self) -> &[String] {
        self.pipeline.model.config().labels()
    }

    /// How texts become tokens.
    pub fn encoder(&self) -> Encoder<'_> {
        encoder(
            self.pipeline.model.config(),
            &self.pipeline.tokenizer,
            self.max_len,
        )
    }
}
