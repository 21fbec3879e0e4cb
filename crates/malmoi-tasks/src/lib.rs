//! Tasks on the host: rows of a data set become cases, outputs of a model become predictions, and predictions become metrics.
//!
//! A task is a file here: its settings (which columns hold what) implement [`Task`]. Training, evaluation and prediction know tasks
//! through that trait alone.

pub mod charts;
pub mod choice;
pub mod classify;
pub mod conll;
pub mod encoder;
pub mod error;
pub mod inputs;
pub mod metrics;
pub mod multilabel;
pub mod pair;
pub mod qa;
pub mod records;
pub mod regress;
pub mod report;
pub mod tag;
pub mod task;
pub mod text2text;
pub mod zeroshot;

pub use choice::Choice;
pub use classify::Classify;
pub use encoder::{Encoded, Encoder};
pub use error::TaskError;
pub use inputs::TaskTokens;
pub use multilabel::MultiLabel;
pub use pair::Pair;
pub use qa::QuestionAnswering;
pub use records::{Record, Records, collected, read_records, read_rows, read_stdin};
pub use regress::Regress;
pub use tag::Tag;
pub use task::{
    Case, Layout, Oddity, OutputKind, Prediction, Sequence, Task, TaskSpec, TextColumns, Truth,
};
pub use text2text::Text2text;
