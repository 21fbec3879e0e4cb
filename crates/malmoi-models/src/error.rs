//! What can go wrong with a model before it computes.

use malmoi_nn::BatchError;

use crate::head::Head;

/// An error of opening, saving or running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// An architecture that is not here.
    #[error(
        "config.json: `model_type` = \"{found}\" isn't supported, expected one of {expected}; use a model of one of these"
    )]
    UnknownArchitecture {
        /// The `model_type` found.
        found: String,
        /// The supported ones.
        expected: String,
    },
    /// A class name that this architecture does not have here.
    #[error("config.json: architecture \"{found}\" isn't supported, expected one of {expected}")]
    UnknownHead {
        /// The class name found.
        found: String,
        /// The supported ones.
        expected: String,
    },
    /// Two tensors that the configuration calls one.
    #[error(
        "`{name}` and `{copy}` hold different values, but the configuration ties them: set `tie_word_embeddings` to false if both count"
    )]
    NotTied {
        /// The one that is read.
        name: String,
        /// The other.
        copy: String,
    },
    /// A configuration that cannot be used.
    #[error(transparent)]
    Config(#[from] malmoi_checkpoint::ConfigError),
    /// Files that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] malmoi_checkpoint::Error),
    /// A batch that does not fit the model.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A generator whose embeddings cannot be shared with the discriminator.
    #[error(
        "the generator's `{key}` is {found}, the discriminator's {expected}: the two share their embeddings, make them equal"
    )]
    GeneratorMismatch {
        /// The configuration key.
        key: &'static str,
        /// The discriminator's value.
        expected: usize,
        /// The generator's value.
        found: usize,
    },
    /// A generator on a model that has no replaced-token detection.
    #[error(
        "a generator belongs to an ELECTRA discriminator; the models here are {discriminator} and {generator}"
    )]
    NoPair {
        /// Architecture of the model.
        discriminator: &'static str,
        /// Architecture of the generator.
        generator: &'static str,
    },
    /// Generator and discriminator files whose embeddings differ.
    #[error(
        "`{name}` differs between the discriminator and its generator, which share their embeddings: \
         open files that were trained together"
    )]
    UntiedEmbeddings {
        /// Our name of the parameter.
        name: String,
    },
    /// Layers that should be one and differ.
    #[error(
        "`{name}` differs from `{first}`, though `num_hidden_groups` says that the two layers share their parameters"
    )]
    NotShared {
        /// Published name in the first layer.
        first: String,
        /// Published name in the other layer.
        name: String,
    },
    /// A model without the head that the work needs.
    #[error("this model ends in {found:?}, but {work} needs {needed}: open a model with that head")]
    WrongHead {
        /// The model's head.
        found: Head,
        /// What was asked.
        work: &'static str,
        /// Heads that would do.
        needed: &'static str,
    },
}

impl ModelError {
    /// Whether the input is at fault (exit code 2) rather than the work (exit code 1).
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Checkpoint(error) => error.is_bad_input(),
            _ => true,
        }
    }
}
