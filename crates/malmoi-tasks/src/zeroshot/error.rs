//! Why a template or its data cannot be used.

use crate::error::TaskError;

/// Why a zero-shot template or its data cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZeroShotError {
    /// The file, its format, or a cell.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A file that is no template.
    #[error("{origin}: not a template: {problem}")]
    Syntax {
        /// File or name of the template.
        origin: String,
        /// What the parser says.
        problem: String,
    },
    /// No shipped template of that name.
    #[error(
        "there is no task `{name}`; expected one of {known}, or a template of your own (--template FILE)"
    )]
    Unknown {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A key that cannot be used as it is.
    #[error("{origin}: {key}: expected {expected}, found {found}")]
    Setting {
        /// File or name of the template.
        origin: String,
        /// The key.
        key: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A column that the template names and a row does not have.
    #[error("{place}: no column `{column}`, which {template} reads; there are {found}{hint}")]
    MissingColumn {
        /// File and line.
        place: String,
        /// The column.
        column: String,
        /// Name of the template.
        template: String,
        /// The columns there are.
        found: String,
        /// Shipped templates that read what is there, or nothing.
        hint: String,
    },
    /// More examples before the question than there are.
    #[error(
        "{wanted} examples before each question, but {place} has {found} other rows; lower --shots"
    )]
    TooFewExamples {
        /// Examples asked for.
        wanted: usize,
        /// The file.
        place: String,
        /// Rows there are to choose from.
        found: usize,
    },
}
