//! What a failed command prints, and its exit status.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use malmoi_checkpoint as checkpoint;
use malmoi_infer::InferError;
use malmoi_infer::pipeline::OpenError;
use malmoi_models::{BatchError, ModelError};
use malmoi_tasks::TaskError;
use malmoi_text::TextError;
use malmoi_train::TrainError;

/// Exit status when the work failed.
pub const WORK_FAILED: u8 = 1;
/// Exit status for bad usage or input.
pub const BAD_INPUT: u8 = 2;
/// Exit status after Ctrl-C, as shells have it: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// Print this.
    Message {
        /// Exit status.
        code: u8,
        /// What was expected, what was found, what to do.
        message: String,
        /// What led to it, outermost first.
        causes: Vec<String>,
    },
    /// Everything has been said already.
    Said(u8),
    /// Whoever read our output has stopped reading.
    BrokenPipe,
}

impl Failure {
    /// The input or the usage is at fault.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Message {
            code: BAD_INPUT,
            message: message.into(),
            causes: Vec::new(),
        }
    }

    /// The work failed.
    pub fn work(message: impl Into<String>) -> Self {
        Self::Message {
            code: WORK_FAILED,
            message: message.into(),
            causes: Vec::new(),
        }
    }

    /// An error with its causes.
    pub fn from_error(code: u8, error: &dyn Error) -> Self {
        let message = error.to_string();
        let mut causes: Vec<String> = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many messages already hold their cause.
            if !message.contains(&text) && !causes.iter().any(|known| known.contains(&text)) {
                causes.push(text);
            }
            next = cause.source();
        }
        Self::Message {
            code,
            message,
            causes,
        }
    }

    /// An input/output error on a file.
    pub fn io(path: &std::path::Path, error: &io::Error) -> Self {
        Self::Message {
            code: io_code(error),
            message: format!("{}: {error}", path.display()),
            causes: Vec::new(),
        }
    }

    /// Prints the message to stderr and gives the exit status.
    pub fn report(self) -> ExitCode {
        match self {
            Self::BrokenPipe => ExitCode::SUCCESS,
            Self::Said(code) => ExitCode::from(code),
            Self::Message {
                code,
                message,
                causes,
            } => {
                eprintln!("error: {message}");
                for cause in causes {
                    eprintln!("  because: {cause}");
                }
                ExitCode::from(code)
            }
        }
    }
}

/// A file that isn't there is bad input; a disk that fails is not.
fn io_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidData => BAD_INPUT,
        _ => WORK_FAILED,
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Self {
        let code = match &error {
            TextError::Io { source, .. } => io_code(source),
            _ => BAD_INPUT,
        };
        Self::from_error(code, &error)
    }
}

impl From<checkpoint::Error> for Failure {
    fn from(error: checkpoint::Error) -> Self {
        let code = match &error {
            checkpoint::Error::Io { source, .. } => io_code(source),
            error if error.is_bad_input() => BAD_INPUT,
            _ => WORK_FAILED,
        };
        Self::from_error(code, &error)
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Checkpoint(error) => error.into(),
            error => Self::from_error(BAD_INPUT, &error),
        }
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        Self::from_error(BAD_INPUT, &error)
    }
}

impl From<InferError> for Failure {
    fn from(error: InferError) -> Self {
        match error {
            InferError::Text(error) => error.into(),
            InferError::Interrupted => Self::Said(INTERRUPTED),
            // Logits that are no numbers come from the model, everything else from what was asked.
            InferError::Sampling(malmoi_infer::sampling::SamplingError::NotFinite { .. }) => {
                Self::from_error(WORK_FAILED, &error)
            }
            error => Self::from_error(BAD_INPUT, &error),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Model(error) => error.into(),
            OpenError::Text(error) => error.into(),
            OpenError::Mismatch(error) => error.into(),
            error => Self::from_error(BAD_INPUT, &error),
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Text(error) => error.into(),
            error => Self::from_error(BAD_INPUT, &error),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Text(error) => error.into(),
            TrainError::Model(error) => error.into(),
            TrainError::Task(error) => error.into(),
            TrainError::Infer(error) => error.into(),
            TrainError::Checkpoint(error) => error.into(),
            TrainError::Io { ref source, .. } => Self::from_error(io_code(source), &error),
            error if error.is_bad_input() => Self::from_error(BAD_INPUT, &error),
            error => Self::from_error(WORK_FAILED, &error),
        }
    }
}
