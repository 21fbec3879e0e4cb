//! Tasks for language models without training: a template turns a row into a question, the model says how probable each answer is.
//!
//! Templates are plain TOML files. Those of common data sets ship with the program; [`Template::source`] of one is the start of
//! another.

mod error;
mod rows;
mod score;
mod template;
#[cfg(test)]
mod tests;
mod text;

pub use error::ZeroShotError;
pub use rows::{Choice, Item, Row, read_rows};
pub use score::{Group, Likelihood, Measure, Normalization, Report, best, report};
pub use template::{Kind, Template};
