//! Why a run directory can't be used.

use std::path::PathBuf;

/// A training run's directory can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Another process writes it.
    #[error("the run `{}` is being written by another process ({holder}); wait for it to end, or use another --out", path.display())]
    Locked {
        /// The run directory.
        path: PathBuf,
        /// Who holds it, as far as known.
        holder: String,
    },
    /// A new run would be mixed into an old one.
    #[error("`{}` already holds a training run; continue it with --resume, or use another --out", path.display())]
    AlreadyARun {
        /// The run directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("`{}` isn't empty and isn't a training run, expected a new or empty directory; use another --out", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing to resume.
    #[error("`{}` isn't a training run: expected the file `run.json` in it, found none; check the path, or start \
        the run without --resume", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// Written by another version of the format.
    #[error("`{}` has run format {found}, expected {expected}; use the malmoi version that wrote it", path.display())]
    Version {
        /// The file with the version.
        path: PathBuf,
        /// Its version, as written.
        found: String,
        /// The version we read and write.
        expected: u64,
    },
    /// A checkpoint marked complete isn't what its marker says.
    #[error("the checkpoint `{}` is damaged: {problem}; delete that directory to go back to the one before it", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
}

impl RunError {
    /// Whether the request was at fault (exit status 2) rather than the work (1).
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, RunError::Locked { .. } | RunError::Damaged { .. })
    }
}
