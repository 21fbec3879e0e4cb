//! Training objectives as pure functions.
//!
//! Every rule takes its random draws as data, so that it can be checked against published references; the samplers beside
//! the rules take those draws from the counter-based generator ([`malmoi_kernels::random`]) and call the same functions.
//! Which tokens are hidden is therefore a function of (seed, step, sequence), and a resumed run hides the same ones.

pub mod causal;
pub mod infilling;
pub mod masked;
pub mod mixing;
pub mod ngram;
pub mod pairs;
pub mod patterns;
pub mod permutation;
pub mod replaced;
pub mod span_corruption;
pub mod translation;
pub mod words;

/// The label of a position that no loss counts, as in the published data formats.
pub const IGNORED: i64 = -100;

/// Why an objective cannot be applied to the data it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectiveError {
    /// Two lists that belong together have different lengths.
    #[error("{what} has {found} entries: expected {expected}, one for each token")]
    Length {
        /// The list.
        what: &'static str,
        /// Number of tokens.
        expected: usize,
        /// Entries of the list.
        found: usize,
    },
    /// A position or span lies outside the sequence.
    #[error("{what} {position} lies outside a sequence of {length} tokens")]
    Outside {
        /// The kind of position.
        what: &'static str,
        /// The position.
        position: usize,
        /// Length of the sequence.
        length: usize,
    },
    /// The maximal length leaves no room.
    #[error("a maximal length of {max_len} leaves no room: at least {needed} is needed")]
    NoRoom {
        /// The length given.
        max_len: usize,
        /// The least that works.
        needed: usize,
    },
    /// A setting is outside its range.
    #[error("{name} is {value}: expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
}

pub(crate) fn same_length(
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), ObjectiveError> {
    if found == expected {
        Ok(())
    } else {
        Err(ObjectiveError::Length {
            what,
            expected,
            found,
        })
    }
}
