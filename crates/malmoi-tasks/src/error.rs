//! Why a task cannot use the data it was given.

use std::path::PathBuf;

/// Why a task cannot use the data it was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The file or the tokenizer.
    #[error(transparent)]
    Text(#[from] malmoi_text::TextError),
    /// A file without a single row.
    #[error("{}: no rows; expected a header and at least one row below it", .0.display())]
    NoRows(PathBuf),
    /// A cell that should hold text.
    #[error(
        "{place}: column `{column}` holds {found}, expected {expected}; correct the row or remove it"
    )]
    BadCell {
        /// File and line.
        place: String,
        /// The column.
        column: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// A label that training has not seen.
    #[error(
        "{place}: the label `{label}` is none of those that the model knows ({known}); \
         correct the row, or train on data that has this label"
    )]
    UnknownLabel {
        /// File and line.
        place: String,
        /// The label.
        label: String,
        /// The labels of the model.
        known: String,
    },
    /// A choice that is none of those in its row.
    #[error(
        "{place}: column `{column}` holds `{found}`, expected the number of the right choice, 0 to {}; correct the row or remove it",
        choices.saturating_sub(1)
    )]
    BadChoice {
        /// File and line.
        place: String,
        /// The column.
        column: String,
        /// What is there.
        found: String,
        /// Choices of the row.
        choices: usize,
    },
    /// An answer that is not where its offset says.
    #[error(
        "{place}: the answer `{answer}` should begin at character {start} of its context, {}{}; \
         offsets count characters (not bytes) from 0: correct answer_start, or remove the question",
        match found.is_empty() {
            true => "which ends before that".to_owned(),
            false => format!("where `{found}` stands"),
        },
        elsewhere.map(|at| format!(" (the answer is found at {at})")).unwrap_or_default()
    )]
    BadAnswer {
        /// File and line.
        place: String,
        /// The answer.
        answer: String,
        /// Where it should begin.
        start: usize,
        /// What stands there.
        found: String,
        /// The first place where the context has it.
        elsewhere: Option<usize>,
    },
    /// All rows have the same label.
    #[error(
        "every row of the training data has the label `{0}`, expected at least two different ones; \
         name the column that holds them with --label-column"
    )]
    OneLabel(String),
    /// A model that was not made for the task.
    #[error(
        "the task {task} needs {expected}, found {found}; fine-tune a model for it first (`malmoi finetune {task}`)"
    )]
    WrongModel {
        /// The task.
        task: &'static str,
        /// What its model has.
        expected: String,
        /// What this one has.
        found: String,
    },
}
