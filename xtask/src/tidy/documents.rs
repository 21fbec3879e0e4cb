//! Rules about documentation and data.

use super::Finding;
use super::tree::{File, Tree};

/// What a clone should weigh at most, for each of `golden/` and `data/`.
const DATA_LIMIT: u64 = 12 << 20;

/// The bundled data stays small.
pub fn data_size(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for folder in ["golden/", "data/"] {
        let bytes: u64 = tree
            .files
            .iter()
            .filter(|file| file.path.starts_with(folder))
            .map(|file| file.size)
            .sum();
        if bytes > DATA_LIMIT {
            found.push(Finding::error(
                folder,
                format!("{bytes} bytes: expected at most {DATA_LIMIT}"),
            ));
        }
    }
    found
}

/// The English and the Korean README have the same outline and the same commands.
pub fn readme_twins(tree: &Tree) -> Vec<Finding> {
    let (english, korean) = match (tree.file("README.md"), tree.file("README.ko.md")) {
        (Some(english), Some(korean)) => (outline(english), outline(korean)),
        (None, _) => return vec![Finding::error("README.md", "is missing")],
        (_, None) => return vec![Finding::error("README.ko.md", "is missing")],
    };
    let mut found = Vec::new();
    if english.headings != korean.headings {
        let message = format!(
            "heading levels differ from README.md: expected {:?}, found {:?}",
            english.headings, korean.headings
        );
        found.push(Finding::error("README.ko.md", message));
    }
    let first_difference = (0..english.commands.len().max(korean.commands.len()))
        .find(|&i| english.commands.get(i) != korean.commands.get(i));
    if let Some(i) = first_difference {
        let (want, got) = (english.commands.get(i), korean.commands.get(i));
        found.push(Finding::error(
            "README.ko.md",
            format!(
                "command {} differs from README.md: expected {want:?}, found {got:?}",
                i + 1
            ),
        ));
    }
    found
}

/// Levels of the headings and lines of the shell blocks, comments left out (they are translated).
#[derive(Debug, Default)]
struct Outline {
    headings: Vec<usize>,
    commands: Vec<String>,
}

fn outline(file: &File) -> Outline {
    let mut outline = Outline::default();
    let mut fence: Option<bool> = None;
    for (_, line) in file.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() {
                None
            } else {
                Some(["sh", "bash"].contains(&language.trim()))
            };
            continue;
        }
        match fence {
            None if line.starts_with('#') => outline
                .headings
                .push(line.chars().take_while(|c| *c == '#').count()),
            Some(true) => {
                let command = line.split(" #").next().unwrap_or_default().trim();
                if !command.is_empty() && !command.starts_with('#') {
                    outline.commands.push(command.to_owned());
                }
            }
            _ => {}
        }
    }
    outline
}

/// There is always a place for the next entry.
pub fn changelog(tree: &Tree) -> Vec<Finding> {
    match tree.file("CHANGELOG.md") {
        None => vec![Finding::error("CHANGELOG.md", "is missing")],
        Some(file)
            if file
                .lines()
                .any(|(_, line)| line.starts_with("## [Unreleased]")) =>
        {
            Vec::new()
        }
        Some(_) => vec![Finding::error(
            "CHANGELOG.md",
            "expected a section `## [Unreleased]`",
        )],
    }
}

/// Decisions are numbered without gaps and each says what was chosen, what else there was, and the numbers.
pub fn decisions(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let records = tree
        .files
        .iter()
        .filter(|file| file.path.starts_with("docs/decisions/") && file.path.ends_with(".md"));
    for (index, file) in records.enumerate() {
        let name = file.path.trim_start_matches("docs/decisions/");
        if !name.starts_with(&format!("{:04}-", index + 1)) {
            found.push(Finding::error(
                &file.path,
                format!("expected the number {:04}", index + 1),
            ));
        }
        for section in ["## Choice", "## Alternatives", "## Numbers"] {
            if !file.lines().any(|(_, line)| line.trim() == section) {
                found.push(Finding::error(
                    &file.path,
                    format!("expected a section `{section}`"),
                ));
            }
        }
    }
    found
}

/// Links between documents lead somewhere.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in file.lines() {
            let targets = line
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split([')', '#']).next());
            for target in targets.filter(|target| !target.is_empty() && !target.contains(':')) {
                let path = resolve(folder, target);
                let inside = format!("{path}/");
                if !tree
                    .files
                    .iter()
                    .any(|known| known.path == path || known.path.starts_with(&inside))
                {
                    found.push(Finding::error(
                        format!("{}:{number}", file.path),
                        format!("links to {target}, which does not exist"),
                    ));
                }
            }
        }
    }
    found
}

/// `target` as seen from `folder`, from the root: `..` and `.` are resolved.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}
