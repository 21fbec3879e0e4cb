//! Routes as OpenAI has them.

pub mod chat;
pub mod completions;
pub mod embeddings;
pub mod models;
mod settings;
mod writing;
