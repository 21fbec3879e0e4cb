//! Tasks on the host: rows of a data set become cases, outputs of a model become predictions, and predictions become metrics.
//!
//! A task is a file here: its settings (which columns hold what) implement [`Task`]. Training, evaluation and prediction know tasks
//! through that trait alone.

pub mod classify;
pub mod error;
pub mod inputs;
pub mod metrics;
pub mod qa;
pub mod records;
pub mod regress;
pub mod task;
pub mod text2text;
pub mod zeroshot;

pub use classify::Classify;
pub use error::TaskError;
pub use records::{Record, read_records};
pub use regress::Regress;
pub use task::{
    Case, Encoder, OutputKind, Prediction, Sequence, Task, TaskSpec, TextColumns, Truth,
};
pub use text2text::Text2text;
