//! The malmoi command.
fn main() {}
