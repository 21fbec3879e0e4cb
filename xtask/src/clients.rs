//! Other people's clients against the server: the openai package, plain HTTP, schemathesis (`tests/clients/run.py`).

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::shell::{malmoi, succeeds};
use crate::summary::Step;

/// Runs the script; its packages come from the network once and stay in `target/clients`.
pub fn step(root: &Path) -> Step {
    let started = Instant::now();
    let step = match malmoi(root) {
        Ok(program) => {
            let mut script = Command::new("python3");
            script
                .current_dir(root)
                .arg("tests/clients/run.py")
                .arg(program);
            Step::one("clients", succeeds(&mut script), "")
        }
        Err(message) => Step::one("clients", false, message),
    };
    step.timed(started.elapsed())
}
