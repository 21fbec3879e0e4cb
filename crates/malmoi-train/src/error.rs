//! Why a training run cannot start or go on.

use std::path::{Path, PathBuf};

use malmoi_checkpoint::run::RunError;

/// A problem of a run configuration: which key, what was found, what was expected, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config key `{key}`: expected {expected}, found {found}; {fix}")]
pub struct ConfigProblem {
    /// The key, with its section: `train.batch_size`.
    pub key: String,
    /// What is allowed.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to do.
    pub fix: String,
}

impl ConfigProblem {
    /// A problem of `key`.
    pub fn new(
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            expected: expected.into(),
            found: found.to_string(),
            fix: fix.into(),
        }
    }
}

/// Why a training run cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The configuration file is not TOML, or does not have the shape of a run configuration.
    #[error("{origin}: {problem}")]
    Syntax {
        /// The file, or "the configuration".
        origin: String,
        /// What is wrong, where.
        problem: String,
    },
    /// A `--set` that cannot be applied.
    #[error("--set {assignment}: {problem}")]
    Override {
        /// The assignment as given.
        assignment: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A key of the configuration has a value that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigProblem),
    /// Tokenizer or corpus.
    #[error(transparent)]
    Text(#[from] malmoi_text::TextError),
    /// Files of the run.
    #[error(transparent)]
    Checkpoint(#[from] malmoi_checkpoint::Error),
    /// The model.
    #[error(transparent)]
    Model(#[from] malmoi_models::ModelError),
    /// Using the model.
    #[error(transparent)]
    Infer(#[from] malmoi_infer::InferError),
    /// The data set of a task.
    #[error(transparent)]
    Task(#[from] malmoi_tasks::TaskError),
    /// A batch that does not fit the model.
    #[error(transparent)]
    Batch(#[from] malmoi_nn::BatchError),
    /// An objective that cannot be applied.
    #[error(transparent)]
    Objective(#[from] crate::objectives::ObjectiveError),
    /// The optimiser cannot make a step or take its saved state.
    #[error(transparent)]
    Optimizer(#[from] crate::optim::OptimizerError),
    /// A file that cannot be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The tokenizer gives ids that the model has no embedding for.
    #[error(
        "the tokenizer has {tokenizer} tokens, but the model's vocabulary has {model}; \
         set model.vocab_size to {tokenizer} or more, leave it out, or use the tokenizer of the model"
    )]
    VocabularyMismatch {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: usize,
    },
    /// Sequences longer than the position table.
    #[error(
        "config key `{key}`: sequences of {length} tokens, but the model has {max_len} positions; \
         lower `{key}` or raise model.max_len"
    )]
    TooLong {
        /// The key that sets the length of sequences.
        key: &'static str,
        /// Tokens of a sequence.
        length: usize,
        /// Positions of the model.
        max_len: usize,
    },
    /// A corpus that cannot give a single example.
    #[error("{corpus}: {problem}")]
    Corpus {
        /// Which corpus.
        corpus: String,
        /// What is missing, what was expected, what to do.
        problem: String,
    },
    /// A special token that the objective needs and the tokenizer has not.
    #[error(
        "the objective needs the token {token}, which the tokenizer has not; \
         add it when training the tokenizer, or name another in the configuration"
    )]
    NoToken {
        /// The token.
        token: String,
    },
    /// Tensors that never got a gradient.
    #[error(
        "no gradient reaches {}: the loss does not depend on {}; \
         use a head that fits the objective, or leave the tensors out of the model",
        tensors.join(", "), if tensors.len() == 1 { "it" } else { "them" }
    )]
    NoGradient {
        /// Names of the tensors.
        tensors: Vec<String>,
    },
    /// A loss or a gradient is NaN or infinite.
    #[error(
        "{what} is not finite at step {step}, so training stopped there; {}; \
         lower optimizer.lr, lengthen schedule.warmup_steps or set train.clip_norm, and look at the data of that step with --show",
        kept(checkpoint)
    )]
    NotFinite {
        /// The loss, or the first tensor in network order.
        what: String,
        /// The step that was not applied, from 1.
        step: u64,
        /// The last good checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// The configuration is not the one that the run was started with.
    #[error(
        "the run was started with another configuration, so it cannot be resumed with this one: {}; \
         undo the change, or start a new run with another --out", keys.join("; ")
    )]
    ConfigChanged {
        /// One entry a key: its name, what the run had, what was given.
        keys: Vec<String>,
    },
    /// The corpus is not the one that the run was started with.
    #[error(
        "the run was started with another {what} ({before}, now {now}), so resuming would not continue it; \
         restore the data, or start a new run with another --out"
    )]
    CorpusChanged {
        /// Training corpus, validation corpus or tokenizer.
        what: &'static str,
        /// Hash when the run was started.
        before: String,
        /// Hash now.
        now: String,
    },
    /// A run without a checkpoint.
    #[error(
        "`{}` has no complete checkpoint to resume from; start again with another --out, or delete it", .0.display()
    )]
    NoCheckpoint(PathBuf),
    /// The trainer's state in a checkpoint is not what it should be.
    #[error("the checkpoint `{}` cannot be resumed: {problem}; delete that directory to go back to the one before it", path.display())]
    BadState {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

fn kept(checkpoint: &Option<PathBuf>) -> String {
    match checkpoint {
        Some(path) => format!("the last good checkpoint is `{}`", path.display()),
        None => "there is no checkpoint yet".to_string(),
    }
}

impl TrainError {
    /// Wraps an I/O error with what was being done to which path.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Whether the input or the request was at fault (exit status 2) rather than the work (1).
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Checkpoint(malmoi_checkpoint::Error::Run(error)) => RunError::is_bad_input(error),
            Self::Checkpoint(error) => error.is_bad_input(),
            Self::Io { .. } | Self::NotFinite { .. } | Self::NoGradient { .. } => false,
            Self::BadState { .. } | Self::NoCheckpoint(_) => false,
            _ => true,
        }
    }
}
