//! Tests of fine-tuning.
