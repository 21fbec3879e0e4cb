//! The program as users run it.

mod bad_input;
mod help;
mod support;
mod verbs;
