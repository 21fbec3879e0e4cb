//! Rules about source files.

use super::Finding;
use super::tree::{File, Tree};

/// Files written by hand that have a length worth bounding.
const SOURCE: [&str; 4] = [".rs", ".py", ".sh", ".toml"];
/// Where a file starts to be hard to read.
const LONG: usize = 500;
/// Where it stops.
const TOO_LONG: usize = 800;
/// An architecture must read alone: its layer order fits in this.
const LONG_MODEL: usize = 250;
/// Crates with one documented exception to the ban of unsafe code each: memory mapping.
const MAPPING: [&str; 2] = ["crates/malmoi-checkpoint/", "crates/malmoi-text/"];

/// Unsafe code lives in the kernels, and in one memory-mapping module of two other crates, which says so.
pub fn unsafe_code(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let rust = tree
        .files
        .iter()
        .filter(|file| file.ends_in(&[".rs"]) && !file.path.starts_with("crates/malmoi-kernels/"));
    let mut exceptions: Vec<&str> = Vec::new();
    for file in rust {
        let Some(line) = first_unsafe(file) else {
            continue;
        };
        let place = format!("{}:{line}", file.path);
        let mapping = MAPPING.iter().find(|start| file.path.starts_with(**start));
        match mapping {
            Some(start) if exceptions.contains(start) => {
                found.push(Finding::error(place, format!("unsafe code in a second file of {start}: one memory-mapping module is the exception")));
            }
            Some(start) if allows_with_reason(file) => exceptions.push(start),
            Some(_) => found.push(Finding::error(
                place,
                "unsafe code without `#![allow(unsafe_code, reason = \"…\")]` in this module",
            )),
            None => found.push(Finding::error(place, "unsafe code outside malmoi-kernels")),
        }
    }
    found
}

/// The first line with the keyword outside of comments and plain strings.
fn first_unsafe(file: &File) -> Option<usize> {
    file.lines()
        .find(|(_, line)| words(code_of(line)).any(|word| word == "unsafe"))
        .map(|(number, _)| number)
}

/// Whether the module allows itself unsafe code and says why, in the attribute or in the module's documentation above it.
fn allows_with_reason(file: &File) -> bool {
    let text = file.text.as_deref().unwrap_or_default();
    // The lint's name in an attribute: after an opening parenthesis, on the same line or the next.
    let start = text
        .match_indices("unsafe_code")
        .find(|(at, _)| text[..*at].trim_end().ends_with('('));
    start.is_some_and(|(start, _)| {
        let documented = text[..start]
            .lines()
            .any(|line| line.starts_with("//!") && line.contains("unsafe"));
        let attribute = text[start..].split(']').next().unwrap_or_default();
        documented || attribute.contains("reason")
    })
}

/// A line without its comment and without what stands in quotes. Good enough for the rules here; raw strings over several lines are not followed.
fn code_of(line: &str) -> &str {
    let trimmed = line.trim_start();
    if trimmed.starts_with("//") || trimmed.starts_with('#') && !trimmed.starts_with("#[") {
        return "";
    }
    let end = line.find("//").unwrap_or(line.len());
    let quote = line.find('"').unwrap_or(line.len());
    &line[..end.min(quote)]
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

/// Files stay short enough to read: a warning above 500 lines, an error above 800.
pub fn file_length(tree: &Tree) -> Vec<Finding> {
    let written = tree
        .files
        .iter()
        .filter(|file| file.ends_in(&SOURCE) && !file.is_data());
    let judge = |file: &File| match file.lines().count() {
        lines if lines > TOO_LONG => Some(Finding::error(
            &file.path,
            format!("{lines} lines: expected at most {TOO_LONG}; split it"),
        )),
        lines if lines > LONG => Some(Finding::warning(
            &file.path,
            format!("{lines} lines: consider splitting above {LONG}"),
        )),
        _ => None,
    };
    written.filter_map(judge).collect()
}

/// Each architecture's model.rs reads alone.
pub fn model_length(tree: &Tree) -> Vec<Finding> {
    let models = tree.files.iter().filter(|file| {
        let inside = file.path.strip_prefix("crates/malmoi-models/src/");
        inside.is_some_and(|inside| inside.ends_with("/model.rs"))
    });
    let long = models.filter(|file| file.lines().count() >= LONG_MODEL);
    long.map(|file| {
        let lines = file.lines().count();
        Finding::error(&file.path, format!("{lines} lines: expected fewer than {LONG_MODEL}; what is shared belongs in malmoi-nn"))
    })
    .collect()
}

/// Marks of unfinished work. They are spelt in two halves so that this file does not break its own rule.
const OPEN_ENDS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// A mark of unfinished work names an issue: `TODO(#12)`.
pub fn open_ends(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree
        .files
        .iter()
        .filter(|file| file.ends_in(&SOURCE) && !file.is_data())
    {
        for (number, line) in file.lines() {
            let open = OPEN_ENDS.iter().find(|mark| {
                words(line).any(|word| word == **mark) && !line.contains(&format!("{mark}(#"))
            });
            if let Some(mark) = open {
                found.push(Finding::error(
                    format!("{}:{number}", file.path),
                    format!("{mark} without an issue: expected {mark}(#number)"),
                ));
            }
        }
    }
    found
}

/// Beginnings of paths that exist on one machine only, and hosts that a build must not depend on; in halves, for the same reason as above.
const MACHINE: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("C:\\U", "sers"),
    concat!("/opt/whe", "els"),
    concat!("index.cra", "tes.io"),
    concat!("static.cra", "tes.io"),
    concat!("files.pytho", "nhosted.org"),
];

/// No path of one machine and no package registry's host is written down.
pub fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree
        .files
        .iter()
        .filter(|file| !file.is_data() && file.path != "Cargo.lock")
    {
        for (number, line) in file.lines() {
            let starts = |(at, _): (usize, &str)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || ".-_~".contains(c))
            };
            let hit = MACHINE
                .iter()
                .find(|path| line.match_indices(**path).any(starts));
            if let Some(path) = hit {
                found.push(Finding::error(
                    format!("{}:{number}", file.path),
                    format!("names {path}…, which other machines do not have"),
                ));
            }
        }
    }
    found
}

/// A test that does not run by itself says which command runs it, or which test of the same file does.
pub fn ignored_tests(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.ends_in(&[".rs"])) {
        let text = file.text.as_deref().unwrap_or_default();
        for (at, _) in text.match_indices(concat!("#[", "ignore")) {
            let attribute = text[at..].split(']').next().unwrap_or_default();
            let reason = attribute.split_once('"').map_or("", |(_, reason)| reason);
            let runner = reason
                .split_once("run by `")
                .and_then(|(_, name)| name.split('`').next());
            let is_run_here = runner.is_some_and(|name| text.contains(&format!("fn {name}(")));
            if !reason.contains("cargo ") && !is_run_here {
                let number = text[..=at].lines().count();
                let message = "expected a reason with the command that runs it: ignore = \"slow sweep; run: cargo test …\"";
                found.push(Finding::error(format!("{}:{number}", file.path), message));
            }
        }
    }
    found
}
