//! HTTP server and web lab.
//!
//! [`run`] serves models under three families of routes: OpenAI's (`/v1/…`), those of text-embeddings-inference, and what neither
//! has (blanks, next tokens, attention, entities, answers); `docs/server-api.md` describes them, `/openapi.json` for programs. One
//! file a noun in `routes/`. Requests are understood on a few asynchronous threads; each model computes on a thread of its own
//! (`worker`), which packs the work of all clients.

mod body;
mod chat;
pub mod config;
mod error;
mod guard;
mod listener;
mod logging;
mod metrics;
mod routes;
mod served;
mod server;
mod state;
mod text;
mod traces;
mod worker;

pub use config::{Config, Limits, ModelSource};
pub use logging::{LogFormat, init as init_logging};
pub use routes::openapi;
pub use served::LoadError;
pub use server::{ServeError, run};
pub use traces::Collector;
