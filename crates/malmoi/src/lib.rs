//! The malmoi library: one import for all parts.
