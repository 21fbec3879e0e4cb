//! Architectures: configuration, forward pass and weight names of each.
