//! The shipped run configurations. One that names no folder for its data reads a few rows of each set it wants from `data/samples`. Each one shows an example of its data, which reads all of it but the training loop; those that describe a small model train two
//! steps as well, from their own text to a checkpoint. A preset of a published size would take minutes a step here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::shell::{malmoi, succeeds};
use crate::summary::Step;

/// Overrides that make a run short without touching its data, model or objective.
const SHORT: [&str; 2] = ["schedule.warmup_steps=1", "evaluate.batches=1"];

/// The configuration with two steps in place of the length that it names. Overrides cannot do this: they add a key, and a length may be given once.
fn shortened(text: &str) -> String {
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let shorten = |line: &str| match key(line).as_str() {
        "steps" | "epochs" | "tokens" => "steps = 2".to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| shorten(line) + "\n").collect()
}

/// The arguments that say where the data is, for a configuration that leaves it open.
fn data_arguments(text: &str) -> &'static [&'static str] {
    let names_folder = |line: &str| line.trim_start().starts_with("dir =");
    if text.lines().any(names_folder) {
        &[]
    } else {
        &["--data-dir", "data/samples"]
    }
}

/// Whether the configuration describes its own, small model.
fn is_small(text: &str) -> bool {
    !text
        .lines()
        .any(|line| line.trim_start().starts_with("preset"))
}

/// Runs every file of `configs/`, with outputs under `target/configs`.
pub fn run(root: &Path) -> Vec<Step> {
    let failed = |message: String| vec![Step::one("configs", false, message)];
    let files = match files(&root.join("configs")) {
        Ok(files) if files.is_empty() => return failed("configs/ holds no .toml file".into()),
        Ok(files) => files,
        Err(error) => return failed(format!("cannot list configs/: {error}")),
    };
    let out = root.join("target").join("configs");
    let emptied = if out.exists() {
        std::fs::remove_dir_all(&out)
    } else {
        Ok(())
    };
    if let Err(error) = emptied.and_then(|()| std::fs::create_dir_all(&out)) {
        return failed(format!("cannot make {}: {error}", out.display()));
    }
    let program = match malmoi(root) {
        Ok(program) => program,
        Err(message) => return failed(message),
    };
    let run_one = |file: &PathBuf| {
        let started = Instant::now();
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let verdict = run_one(root, &program, file, &out.join(&name));
        let step = match verdict {
            Ok(what) => Step::one("configs", true, format!("{name}: {what}")),
            Err(message) => Step::one("configs", false, format!("{name}: {message}")),
        };
        step.timed(started.elapsed())
    };
    files.iter().map(run_one).collect()
}

/// Runs one configuration and says what was done.
fn run_one(root: &Path, program: &Path, file: &Path, out: &Path) -> Result<&'static str, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let mut show = Command::new(program);
    show.current_dir(root)
        .arg("pretrain")
        .arg(file)
        .args(data_arguments(&text))
        .args(["--show", "1"]);
    if !succeeds(&mut show) {
        return Err("`pretrain --show 1` failed".into());
    }
    if !is_small(&text) {
        return Ok("shown");
    }
    let short = out.with_extension("toml");
    std::fs::write(&short, shortened(&text)).map_err(|error| error.to_string())?;
    let mut train = Command::new(program);
    train
        .current_dir(root)
        .arg("pretrain")
        .arg(short)
        .args(data_arguments(&text))
        .arg("--out")
        .arg(out);
    for assignment in SHORT {
        train.arg("--set").arg(assignment);
    }
    if succeeds(&mut train) {
        Ok("shown, trained two steps")
    } else {
        Err("`pretrain` of two steps failed".into())
    }
}

/// The configurations, in the order of their names.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_config = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    let mut found: Vec<PathBuf> = entries.filter(is_config).collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_becomes_two_steps_and_nothing_else_changes() {
        let text = "[schedule]\nwarmup_steps = 9\n[train]\ntokens = 2_000\nbatch_size = 4\n";
        let expected = "[schedule]\nwarmup_steps = 9\n[train]\nsteps = 2\nbatch_size = 4\n";
        assert_eq!(shortened(text), expected);
        assert_eq!(shortened("epochs = 1.5\n"), "steps = 2\n");
    }

    #[test]
    fn open_data_comes_from_the_samples() {
        assert!(data_arguments("[data]\ndir = \"data/x\"\n").is_empty());
        assert_eq!(data_arguments("[data]\ntrain = \"x\"\n")[1], "data/samples");
    }

    #[test]
    fn a_preset_is_not_small() {
        assert!(is_small("[model]\narchitecture = \"gpt2\"\n"));
        assert!(!is_small("[model]\npreset = \"gpt2\"\n"));
    }
}
