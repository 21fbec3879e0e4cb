//! Comparison with golden references.
