//! Training run directories.

/// A training run's directory can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {}
