//! How tasks are named and described on the command line.

use clap::{Args, ValueEnum};
use malmoi_tasks::qa::Normalization;
use malmoi_tasks::tag::Units;
use malmoi_tasks::{
    Choice, Classify, MultiLabel, Pair, QuestionAnswering, Regress, Tag, TaskSpec, Text2text,
    TextColumns,
};

use crate::failure::{Failure, Result};

/// Flags of a task. What is not given comes from the model (which knows what it was fine-tuned for), from a recipe, or is the task's
/// default.
pub trait TaskArguments {
    /// The task with these flags over `base`, when `base` is the same task.
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec;

    /// Refuses flags that mean nothing for the task that they made.
    fn check(&self, _spec: &TaskSpec) -> Result<()> {
        Ok(())
    }
}

/// Puts what a flag gives in the place of a setting.
fn over<T: Clone>(setting: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        setting.clone_from(value);
    }
}

/// Columns of texts and labels
#[derive(Args, Debug, Clone)]
pub struct TextFlags {
    /// Column of the text (default: text; of a pair: sentence1)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    text_column: Option<String>,
    /// Column of a second text, for pairs
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    pair_column: Option<String>,
    /// Column of the label (default: label)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    label_column: Option<String>,
    /// Read a pair in both orders and add what the model says (GPT-1's similarity)
    #[arg(long, help_heading = "Columns")]
    both_orders: bool,
}

impl TextFlags {
    fn over(&self, mut base: TextColumns) -> TextColumns {
        over(&mut base.text_column, &self.text_column);
        over(&mut base.label_column, &self.label_column);
        if self.pair_column.is_some() {
            base.pair_column.clone_from(&self.pair_column);
        }
        base.both_orders |= self.both_orders;
        base
    }
}

/// Classification
#[derive(Args, Debug, Clone)]
#[command(mut_arg("both_orders", |arg| arg.conflicts_with("multi_label")))]
pub struct ClassifyFlags {
    #[command(flatten)]
    columns: TextFlags,
    /// Any number of labels a row: a list, or a text with a separator between labels
    #[arg(long)]
    multi_label: bool,
    /// What stands between two labels (default: a comma)
    #[arg(long, value_name = "TEXT")]
    label_separator: Option<String>,
    /// Probability from which a label is said, with --multi-label (default: 0.5)
    #[arg(long, value_name = "P")]
    threshold: Option<f64>,
}

impl TaskArguments for ClassifyFlags {
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec {
        match base {
            Some(TaskSpec::MultiLabel(task)) => self.multi_label(task),
            base if self.multi_label => {
                let columns = match base {
                    Some(TaskSpec::Classify(Classify(columns))) => columns,
                    _ => TextColumns::default(),
                };
                self.multi_label(MultiLabel {
                    text_column: columns.text_column,
                    pair_column: columns.pair_column,
                    label_column: columns.label_column,
                    ..MultiLabel::default()
                })
            }
            Some(TaskSpec::Classify(Classify(columns))) => {
                TaskSpec::Classify(Classify(self.columns.over(columns)))
            }
            _ => TaskSpec::Classify(Classify(self.columns.over(TextColumns::default()))),
        }
    }

    fn check(&self, spec: &TaskSpec) -> Result<()> {
        let several = matches!(spec, TaskSpec::MultiLabel(_));
        let given = [
            ("--label-separator", self.label_separator.is_some()),
            ("--threshold", self.threshold.is_some()),
        ];
        match given.iter().find(|(_, given)| *given && !several) {
            Some((flag, _)) => Err(Failure::input(format!(
                "{flag} is for rows with any number of labels: add --multi-label, or leave {flag} out"
            ))),
            None => Ok(()),
        }
    }
}

impl ClassifyFlags {
    fn multi_label(&self, mut task: MultiLabel) -> TaskSpec {
        over(&mut task.text_column, &self.columns.text_column);
        over(&mut task.label_column, &self.columns.label_column);
        if self.columns.pair_column.is_some() {
            task.pair_column.clone_from(&self.columns.pair_column);
        }
        over(&mut task.separator, &self.label_separator);
        over(&mut task.threshold, &self.threshold);
        TaskSpec::MultiLabel(task)
    }
}

/// Classification of pairs
#[derive(Args, Debug, Clone)]
pub struct PairFlags {
    #[command(flatten)]
    columns: TextFlags,
}

impl TaskArguments for PairFlags {
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec {
        let base = match base {
            Some(TaskSpec::Pair(pair)) => pair,
            _ => Pair::default(),
        };
        TaskSpec::Pair(Pair::over(self.columns.over(base.columns().clone())))
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

/// What gets a tag
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum UnitsFlag {
    /// Words
    Words,
    /// Characters
    Characters,
}

/// Tags
#[derive(Args, Debug, Clone)]
pub struct TagFlags {
    /// Column of the text, or of the list of tokens, in tables (default: tokens)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    text_column: Option<String>,
    /// Column of the list of tags in tables (default: tags)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    label_column: Option<String>,
    /// What gets a tag (default: characters where the training file has KLUE's headers, else words)
    #[arg(long, value_enum)]
    units: Option<UnitsFlag>,
}

impl TaskArguments for TagFlags {
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec {
        let mut task = match base {
            Some(TaskSpec::Tag(task)) => task,
            _ => Tag::default(),
        };
        over(&mut task.text_column, &self.text_column);
        over(&mut task.label_column, &self.label_column);
        task.units = match self.units {
            None => task.units,
            Some(UnitsFlag::Words) => Units::Words,
            Some(UnitsFlag::Characters) => Units::Characters,
        };
        TaskSpec::Tag(task)
    }
}

/// How answers are compared
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum NormalizationFlag {
    /// SQuAD: articles and punctuation dropped, F1 over words
    Squad,
    /// KorQuAD: brackets and punctuation dropped, F1 over characters
    Korquad,
}

/// Question answering
#[derive(Args, Debug, Clone)]
pub struct QaFlags {
    /// Column of the context, in tables (default: context)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    context_column: Option<String>,
    /// Column of the question, in tables (default: question)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    question_column: Option<String>,
    /// Column of the answers, in tables (default: answers)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    answers_column: Option<String>,
    /// Context tokens by which windows advance (default: 128)
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Tokens of an answer (default: 30)
    #[arg(long, value_name = "N")]
    max_answer_len: Option<usize>,
    /// Answers that are weighed against each other (default: 20)
    #[arg(long, value_name = "N")]
    n_best: Option<usize>,
    /// Questions may have no answer (SQuAD 2.0)
    #[arg(long)]
    no_answer: bool,
    /// How much "no answer" must exceed the best span by (default: 0)
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    null_threshold: Option<f64>,
    /// How answers are compared (default: squad)
    #[arg(long, value_enum)]
    normalization: Option<NormalizationFlag>,
}

impl TaskArguments for QaFlags {
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec {
        let mut task = match base {
            Some(TaskSpec::Qa(task)) => task,
            _ => QuestionAnswering::default(),
        };
        over(&mut task.context_column, &self.context_column);
        over(&mut task.question_column, &self.question_column);
        over(&mut task.answers_column, &self.answers_column);
        over(&mut task.stride, &self.stride);
        over(&mut task.max_answer_len, &self.max_answer_len);
        over(&mut task.n_best, &self.n_best);
        over(&mut task.null_threshold, &self.null_threshold);
        task.no_answer |= self.no_answer;
        task.normalization = match self.normalization {
            None => task.normalization,
            Some(NormalizationFlag::Squad) => Normalization::Squad,
            Some(NormalizationFlag::Korquad) => Normalization::Korquad,
        };
        TaskSpec::Qa(task)
    }
}

/// Multiple choice
#[derive(Args, Debug, Clone)]
pub struct ChoiceFlags {
    /// Column of the context (default: text)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    text_column: Option<String>,
    /// Column of a question that follows the context
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    question_column: Option<String>,
    /// Columns of the choices, with commas between them, or one column with lists (default: choices)
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = "Columns"
    )]
    choice_columns: Option<Vec<String>>,
    /// Column of the number of the right choice, from 0 (default: label)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    label_column: Option<String>,
}

impl TaskArguments for ChoiceFlags {
    fn spec(&self, base: Option<TaskSpec>) -> TaskSpec {
        let mut task = match base {
            Some(TaskSpec::Choice(task)) => task,
            _ => Choice::default(),
        };
        over(&mut task.text_column, &self.text_column);
        over(&mut task.choice_columns, &self.choice_columns);
        over(&mut task.label_column, &self.label_column);
        if self.question_column.is_some() {
            task.question_column.clone_from(&self.question_column);
        }
        TaskSpec::Choice(task)
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
        over(&mut task.source_column, &self.source_column);
        over(&mut task.target_column, &self.target_column);
        over(&mut task.prefix, &self.prefix);
        over(&mut task.max_target_len, &self.max_target_len);
        TaskSpec::Text2text(task)
    }
}
