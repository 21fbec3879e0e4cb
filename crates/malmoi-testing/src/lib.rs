//! Case tables and tolerances for tests.
