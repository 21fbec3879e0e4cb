//! Tasks of the repository: test, check, tidy, golden, bench-compare.
fn main() {}
