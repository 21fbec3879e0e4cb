//! How tasks are named and described on the command line.

use clap::Args;
use malmoi_tasks::{Classify, Regress, TaskSpec, Text2text, TextColumns};

/// Flags of a task. What is not given comes from the model (which knows what it was fine-tuned for) or the task's default.
pub trait TaskArguments {
    /// The task with these flags over `base`, when `base` is the same task.
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec;
}

/// Columns of texts and labels
#[derive(Args, Debug, Clone)]
pub struct TextFlags {
    /// Column of the text (default: text)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    text_column: Option<String>,
    /// Column of a second text, for pairs
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    pair_column: Option<String>,
    /// Column of the label (default: label)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    label_column: Option<String>,
}

impl TextFlags {
    fn over(&self, mut base: TextColumns) -> TextColumns {
        if let Some(column) = &self.text_column {
            base.text_column.clone_from(column);
        }
        if let Some(column) = &self.pair_column {
            base.pair_column = Some(column.clone());
        }
        if let Some(column) = &self.label_column {
            base.label_column.clone_from(column);
        }
        base
    }
}

/// Classification
#[derive(Args, Debug, Clone)]
pub struct ClassifyFlags {
    #[command(flatten)]
    columns: TextFlags,
}

impl TaskArguments for ClassifyFlags {
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec {
        let base = match base {
            Some(TaskSpec::Classify(Classify(columns))) => columns,
            _ => TextColumns::default(),
        };
        TaskSpec::Classify(Classify(self.columns.over(base)))
    }
}

/// Regression
#[derive(Args, Debug, Clone)]
pub struct RegressFlags {
    #[command(flatten)]
    columns: TextFlags,
}

impl TaskArguments for RegressFlags {
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec {
        let base = match base {
            Some(TaskSpec::Regress(Regress(columns))) => columns,
            _ => TextColumns::default(),
        };
        TaskSpec::Regress(Regress(self.columns.over(base)))
    }
}

/// Text from text
#[derive(Args, Debug, Clone)]
pub struct Text2textFlags {
    /// Column of the source (default: source)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    source_column: Option<String>,
    /// Column of the target (default: target)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    target_column: Option<String>,
    /// Text before every source, such as "translate Korean to English: "
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Tokens of a target, and the most that is generated (default: 64)
    #[arg(long, value_name = "N")]
    max_target_len: Option<usize>,
}

impl TaskArguments for Text2textFlags {
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec {
        let mut task = match base {
            Some(TaskSpec::Text2text(task)) => task,
            _ => Text2text::default(),
        };
        if let Some(column) = &self.source_column {
            task.source_column.clone_from(column);
        }
        if let Some(column) = &self.target_column {
            task.target_column.clone_from(column);
        }
        if let Some(prefix) = &self.prefix {
            task.prefix.clone_from(prefix);
        }
        task.max_target_len = self.max_target_len.unwrap_or(task.max_target_len);
        TaskSpec::Text2text(task)
    }
}
