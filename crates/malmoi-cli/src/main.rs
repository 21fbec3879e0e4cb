//! The malmoi command: arguments in, results out. The work is done by the libraries.

mod arguments;
mod commands;
mod embedding;
mod failure;
mod input;
mod interrupt;
mod model;
mod output;
mod profile;
mod progress;
mod task;
mod training;
mod tuned;

use std::process::ExitCode;

use clap::Parser;

/// Large outputs take fresh pages from the system's allocator at every step; this one keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A panic is a bug of ours; its message is for the person who reports it, and a backtrace would bury it.
    std::panic::set_hook(Box::new(|info| {
        eprintln!("malmoi: internal error, please report it: {info}");
    }));
    let arguments = arguments::Arguments::parse();
    interrupt::install();
    match std::panic::catch_unwind(|| commands::run(arguments)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        Err(_) => ExitCode::from(failure::WORK_FAILED),
    }
}
