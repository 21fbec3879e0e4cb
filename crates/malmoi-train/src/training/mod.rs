//! The loop of every run: steps, evaluations, checkpoints and resume. Pretraining and fine-tuning give it a job.

mod adapters;
mod evaluation;
mod event;
mod job;
mod pace;
mod run;
mod state;
mod step;
mod tuning;

pub use adapters::{AdapterOptions, Adapters, FOLDER as ADAPTER_FOLDER};
pub use evaluation::{Evaluation, Judge, Metric};
pub use event::{Event, Observer, Silent, Started, StepEvent, StopReason};
pub(crate) use job::{Job, Sections, Work};
pub(crate) use run::run;
pub use run::{RunOptions, Summary};
pub(crate) use state::{DataIdentity, TrainerState};
pub use step::{Accumulated, StepOptions, StepReport, Trainer};
pub use tuning::Tuning;
