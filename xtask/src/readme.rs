//! The README's commands, run as they are written.
//!
//! A fenced block that follows the line `<!-- test -->` holds commands, one a line (`\` continues a line, `#` starts a comment). They run in order in one scratch
//! folder inside the repository that sees `configs`, `data` and `golden` where a reader in the root would, so that nothing is left behind in the tree.

use std::path::Path;
use std::time::Instant;

use crate::shell::{bash, succeeds};
use crate::summary::Step;

/// The line that marks a block of commands for the test.
const MARKER: &str = "<!-- test -->";

/// Commands of the marked blocks, in order.
///
/// # Errors
/// A marker is not followed by a fenced block, or a block is not closed.
pub fn commands(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if line.trim() != MARKER {
            continue;
        }
        while lines.peek().is_some_and(|(_, next)| next.trim().is_empty()) {
            lines.next();
        }
        if !lines
            .next()
            .is_some_and(|(_, fence)| fence.starts_with("```"))
        {
            return Err(format!(
                "line {}: expected a fenced block after {MARKER}",
                number + 1
            ));
        }
        let mut pending = String::new();
        loop {
            let Some((_, line)) = lines.next() else {
                return Err(format!(
                    "line {}: the fenced block after {MARKER} is not closed",
                    number + 1
                ));
            };
            if line.starts_with("```") {
                break;
            }
            if let Some(start) = line.trim_end().strip_suffix('\\') {
                pending.push_str(start);
                continue;
            }
            let command = format!("{pending}{line}").trim().to_owned();
            pending.clear();
            if !command.is_empty() && !command.starts_with('#') {
                found.push(command);
            }
        }
    }
    Ok(found)
}

/// Runs every marked command of README.md once.
pub fn run(root: &Path) -> Vec<Step> {
    let text = match std::fs::read_to_string(root.join("README.md")) {
        Ok(text) => text,
        Err(error) => {
            return vec![Step::one(
                "readme",
                false,
                format!("cannot read README.md: {error}"),
            )];
        }
    };
    let commands = match commands(&text) {
        Ok(commands) if commands.is_empty() => {
            return vec![Step::one(
                "readme",
                false,
                format!("README.md marks no command with {MARKER}"),
            )];
        }
        Ok(commands) => commands,
        Err(message) => return vec![Step::one("readme", false, message)],
    };
    let scratch = match scratch_folder(root) {
        Ok(scratch) => scratch,
        Err(error) => {
            return vec![Step::one(
                "readme",
                false,
                format!("cannot prepare a scratch folder: {error}"),
            )];
        }
    };
    let run_one = |command: &String| {
        let started = Instant::now();
        let passed = succeeds(&mut bash(&scratch, command));
        Step::one("readme", passed, command.clone()).timed(started.elapsed())
    };
    commands.iter().map(run_one).collect()
}

/// An empty folder under `target/` with links to what the commands name. It lies inside the repository, so that cargo finds the workspace from it.
fn scratch_folder(root: &Path) -> std::io::Result<std::path::PathBuf> {
    let folder = root.join("target").join("readme");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    for name in ["configs", "data", "golden"] {
        link(&root.join(name), &folder.join(name))?;
    }
    Ok(folder)
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(from, to)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "the README's commands are tested on Unix only",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_commands() {
        let text = "```sh\nrm -rf all\n```\n<!-- test -->\n\n```sh\n# a comment\ncargo run -- a\n\ncargo run -- \\\n  b\n```\n";
        assert_eq!(
            commands(text),
            Ok(vec!["cargo run -- a".into(), "cargo run --   b".into()])
        );
    }

    #[test]
    fn a_marker_without_a_block_is_an_error() {
        assert!(commands("<!-- test -->\ntext\n").is_err());
        assert!(commands("<!-- test -->\n```sh\ncargo run\n").is_err());
    }
}
