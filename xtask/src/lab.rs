//! The web lab in a headless browser (`tests/lab/run.mjs`).

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::shell::{malmoi, succeeds};
use crate::summary::Step;

/// Runs the script; the one package that it needs comes from the network, pinned by its lock file.
pub fn step(root: &Path) -> Step {
    let started = Instant::now();
    let folder = root.join("tests").join("lab");
    let mut install = Command::new("npm");
    install
        .current_dir(&folder)
        .args(["ci", "--no-audit", "--no-fund"]);
    let step = if succeeds(&mut install) {
        match malmoi(root) {
            Ok(program) => {
                let mut script = Command::new("node");
                script
                    .current_dir(root)
                    .arg("tests/lab/run.mjs")
                    .arg(program);
                Step::one("lab", succeeds(&mut script), "")
            }
            Err(message) => Step::one("lab", false, message),
        }
    } else {
        let message = "npm ci failed in tests/lab: is the package registry reachable?";
        Step::one("lab", false, message)
    };
    step.timed(started.elapsed())
}
