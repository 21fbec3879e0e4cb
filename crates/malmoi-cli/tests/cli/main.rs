//! The program as users run it.

mod bad_input;
mod deploy;
mod finetune;
mod help;
mod speed;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod verbs;
mod zeroshot;
