//! Running other programs and finding what they built.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Prints the command, runs it with its output going to the terminal, and says whether it succeeded.
pub fn succeeds(command: &mut Command) -> bool {
    println!("$ {}", display(command));
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("cannot start {}: {error}", display(command));
            false
        }
    }
}

/// Runs the command, printing its standard output line by line while handing each line to `see`. Returns whether it succeeded.
pub fn succeeds_with_lines(command: &mut Command, mut see: impl FnMut(&str)) -> bool {
    println!("$ {}", display(command));
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cannot start {}: {error}", display(command));
            return false;
        }
    };
    if let Some(output) = child.stdout.take() {
        // Lossy: a test may print bytes that are not UTF-8, and that must not end the count.
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            see(&line);
        }
    }
    child.wait().is_ok_and(|status| status.success())
}

/// Runs the command and returns its standard output, or what went wrong as a message.
pub fn output_of(command: &mut Command) -> Result<String, String> {
    let shown = display(command);
    let output = command
        .output()
        .map_err(|error| format!("cannot start {shown}: {error}"))?;
    printed(&shown, output)
}

/// The same of a command that is ended when it has run for `limit`.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<String, String> {
    let shown = display(command);
    let begin = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {shown}: {error}"))?;
    // Both streams are read meanwhile, or the program would wait for room in them.
    let (stdout, stderr) = (reading(child.stdout.take()), reading(child.stderr.take()));
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begin.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => {
                // Both fail only if it has just ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{shown} took longer than {} s", limit.as_secs()));
            }
            Err(error) => return Err(format!("{shown}: {error}")),
        }
    };
    let [stdout, stderr] = [stdout, stderr].map(|stream| stream.join().unwrap_or_default());
    let output = Output {
        status,
        stdout,
        stderr,
    };
    printed(&shown, output)
}

/// Everything that comes from a stream, read by a thread of its own.
fn reading(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What came before an error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// The standard output of a command that has ended, or its complaint.
fn printed(shown: &str, output: Output) -> Result<String, String> {
    if output.status.success() {
        String::from_utf8(output.stdout)
            .map_err(|_| format!("{shown} printed bytes that are not UTF-8"))
    } else {
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "{shown} failed with {}: {}",
            output.status,
            complaint.trim()
        ))
    }
}

/// Whether a program can be started at all; its output is thrown away.
pub fn exists(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as a user would type it.
fn display(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// A `cargo` command in the repository's root.
pub fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = undescribed(Command::new(program));
    command.current_dir(root).args(arguments);
    command
}

/// A script of the shell, which ends at its first failure.
pub fn bash(folder: &Path, script: &str) -> Command {
    let mut command = undescribed(Command::new("bash"));
    command
        .current_dir(folder)
        .args(["-euo", "pipefail", "-c", script]);
    command
}

/// A command without the variables in which cargo described this program to it. A build script that reads the same ones (ring's does)
/// would take them for a change, and what depends on it would be built again whenever cargo is called from here and from a shell in turn.
fn undescribed(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if describes_a_package(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether cargo sets a variable for a program that it runs, to say which package it belongs to.
fn describes_a_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"]
        .iter()
        .any(|start| variable.starts_with(start))
}

/// What `cargo metadata` says about the workspace, without its outside dependencies.
///
/// # Errors
/// Cargo refuses a manifest, or prints something that is not JSON.
pub fn metadata(root: &Path) -> Result<Value, String> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let printed = output_of(&mut cargo(root, &arguments))?;
    serde_json::from_str(&printed).map_err(|error| format!("cargo metadata: {error}"))
}

/// Builds the command-line program and returns where it is.
///
/// # Errors
/// The build failed; cargo has already said why.
pub fn malmoi(root: &Path) -> Result<PathBuf, String> {
    if !succeeds(&mut cargo(root, &["build", "--release", "--quiet"])) {
        return Err("building the malmoi program failed".into());
    }
    let metadata = metadata(root)?;
    let target = metadata["target_directory"]
        .as_str()
        .ok_or("cargo metadata names no target_directory")?;
    let name = format!("malmoi{}", std::env::consts::EXE_SUFFIX);
    Ok(Path::new(target).join("release").join(name))
}

/// What `malmoi doctor --json` says of the machine.
///
/// # Errors
/// The program fails, or prints something that is not JSON.
pub fn doctor(program: &Path) -> Result<Value, String> {
    let printed = output_of(Command::new(program).args(["doctor", "--json"]))?;
    serde_json::from_str(&printed).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let here = Path::new(".");
        let begin = Instant::now();
        let ended = output_within(&mut bash(here, "exec sleep 60"), Duration::from_millis(50));
        assert!(
            ended.is_err_and(|message| message.contains("took longer")),
            "it was waited for"
        );
        assert!(begin.elapsed() < Duration::from_secs(30));
        // More than a pipe holds.
        let minute = Duration::from_secs(60);
        let printed = output_within(&mut bash(here, "seq 100000"), minute);
        assert_eq!(printed.map(|text| text.lines().count()), Ok(100_000));
        let failed = output_within(&mut bash(here, "echo no >&2; exit 3"), minute);
        assert!(failed.is_err_and(|message| message.ends_with("no")));
    }

    #[test]
    fn cargo_is_called_as_from_a_shell() {
        let here = Path::new(".");
        for command in [cargo(here, &["check"]), bash(here, "cargo check")] {
            let removed: Vec<String> = command
                .get_envs()
                .filter(|(_, value)| value.is_none())
                .map(|(name, _)| name.to_string_lossy().into_owned())
                .collect();
            // Cargo runs this test, so the variables are there.
            for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
                assert!(removed.iter().any(|other| other == name), "{removed:?}");
            }
            assert!(!removed.iter().any(|name| name == "CARGO_TARGET_DIR"));
        }
    }
}
