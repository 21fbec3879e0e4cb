//! The server from outside: every route, and everything that can go wrong.

#[path = "../support/mod.rs"]
mod support;

mod encoders;
mod faults;
mod lab;
mod openai;
mod operation;

use std::sync::LazyLock;

use support::Server;

/// One server for the tests that change nothing about it.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(|config, files| {
        config.runs = vec![support::runs(files)];
    })
});
