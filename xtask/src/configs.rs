//! The shipped run configurations: each one trains two steps, from its own text to a checkpoint.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::shell::{malmoi, succeeds};
use crate::summary::Step;

/// What makes a run short without touching its data, model or objective.
const SHORT: [&str; 3] = [
    "train.steps=2",
    "schedule.warmup_steps=1",
    "evaluate.batches=1",
];

/// Trains every file of `configs/` for two steps, with its outputs under `target/configs`.
pub fn run(root: &Path) -> Vec<Step> {
    let failed = |message: String| vec![Step::one("configs", false, message)];
    let files = match files(&root.join("configs")) {
        Ok(files) if files.is_empty() => return failed("configs/ holds no .toml file".into()),
        Ok(files) => files,
        Err(error) => return failed(format!("cannot list configs/: {error}")),
    };
    let out = root.join("target").join("configs");
    if out.exists()
        && let Err(error) = std::fs::remove_dir_all(&out)
    {
        return failed(format!("cannot remove {}: {error}", out.display()));
    }
    let program = match malmoi(root) {
        Ok(program) => program,
        Err(message) => return failed(message),
    };
    let run_one = |file: &PathBuf| {
        let started = Instant::now();
        let name = file.file_stem().unwrap_or_default();
        let mut command = Command::new(&program);
        command.current_dir(root).arg("pretrain").arg(file);
        command.arg("--out").arg(out.join(name));
        for assignment in SHORT {
            command.arg("--set").arg(assignment);
        }
        let note = name.to_string_lossy().into_owned();
        Step::one("configs", succeeds(&mut command), note).timed(started.elapsed())
    };
    files.iter().map(run_one).collect()
}

/// The configurations, in the order of their names.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_config = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    let mut found: Vec<PathBuf> = entries.filter(is_config).collect();
    found.sort();
    Ok(found)
}
