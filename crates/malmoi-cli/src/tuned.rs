//! Models that were fine-tuned for a task, with what they know about it.

use malmoi_infer::Pipeline;
use malmoi_models::Head;
use malmoi_tasks::{Encoder, OutputKind, TaskError, TaskSpec, TaskTokens};
use malmoi_train::finetune::{SavedTask, encoder, task_tokens};

use crate::arguments::{Global, ModelArguments};
use crate::failure::Result;
use crate::model;
use crate::task::TaskArguments;

/// Tokens of an input where neither flags nor model say it.
const MAX_LEN: usize = 128;
/// The same for a question with its context (Devlin et al. 2019, in the published code).
const LONG_MAX_LEN: usize = 384;

/// A model with its tokenizer and task.
pub struct Tuned {
    pub pipeline: Pipeline,
    pub spec: TaskSpec,
    max_len: usize,
    tokens: Option<TaskTokens>,
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
        let pipeline = model::pipeline(arguments, global)?;
        let with_tokens = saved.as_ref().is_some_and(|saved| saved.task_tokens);
        let tokens = task_tokens(&pipeline.tokenizer).filter(|_| with_tokens);
        let length = saved.as_ref().map(|saved| saved.max_len);
        let spec = flags.spec(saved.map(|saved| saved.task));
        flags.check(&spec)?;
        let long = matches!(spec, TaskSpec::Qa(_));
        let usual = if long { LONG_MAX_LEN } else { MAX_LEN };
        let tuned = Self {
            spec,
            tokens,
            max_len: max_len.or(length).unwrap_or(usual),
            pipeline,
        };
        tuned.check()?;
        Ok(tuned)
    }

    /// Refuses a model whose outputs are not those of the task: labels to choose from, or a single value.
    fn check(&self) -> Result<(), TaskError> {
        let task = self.spec.task();
        let head = self.pipeline.model.head();
        let (fits, needed) = match task.output() {
            OutputKind::Tags => (
                head == Head::TokenClassification,
                "a model that tags tokens",
            ),
            OutputKind::Spans => (
                head == Head::QuestionAnswering,
                "a model that finds answers",
            ),
            OutputKind::Choice => (
                matches!(head, Head::MultipleChoice | Head::SequenceClassification),
                "a model that scores choices",
            ),
            OutputKind::Classes | OutputKind::Labels => (
                head == Head::SequenceClassification,
                "a classifier with labels",
            ),
            OutputKind::Value => (
                head == Head::SequenceClassification,
                "a classifier with one output",
            ),
            OutputKind::Text => (true, ""),
        };
        if !fits {
            let config = self.pipeline.model.config();
            return Err(TaskError::WrongModel {
                task: task.name(),
                expected: needed.into(),
                found: config.architecture_name(head).into(),
            });
        }
        let expected = match (task.output(), self.labels().len()) {
            (OutputKind::Classes | OutputKind::Tags, 0 | 1) => "a model with several labels",
            (OutputKind::Labels, 0) => "a model with labels",
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
            self.tokens,
        )
    }
}
