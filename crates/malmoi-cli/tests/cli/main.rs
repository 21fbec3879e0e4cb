//! The program as users run it.

mod bad_input;
mod finetune;
mod help;
#[path = "../support/mod.rs"]
mod support;
mod verbs;
