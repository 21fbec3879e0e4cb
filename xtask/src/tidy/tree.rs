//! What the rules look at: the files that belong to the repository and the packages of the workspace.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::shell::{metadata, output_of};

/// A file of the repository.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the root, with `/` between the parts.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Contents when they are UTF-8.
    pub text: Option<String>,
}

impl File {
    /// Lines with their numbers from 1; none for a binary file.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .as_deref()
            .unwrap_or_default()
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Whether the file name ends in one of `ends`.
    pub fn ends_in(&self, ends: &[&str]) -> bool {
        ends.iter().any(|end| self.path.ends_with(end))
    }

    /// Data that is not written by hand.
    pub fn is_data(&self) -> bool {
        self.path.starts_with("data/")
            || (self.path.starts_with("golden/") && !self.ends_in(&[".py", ".md"]))
    }
}

/// A package of the workspace.
#[derive(Debug, Clone, Default)]
pub struct Package {
    pub name: String,
    pub description: Option<String>,
    /// Names of what it is built with.
    pub dependencies: Vec<String>,
    /// Names of what only its tests need.
    pub dev_dependencies: Vec<String>,
}

/// Files and packages.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub files: Vec<File>,
    pub packages: Vec<Package>,
}

impl Tree {
    /// Reads the repository at `root`: what git tracks and what it would track.
    ///
    /// # Errors
    /// `cargo metadata` failed, or a file cannot be read.
    pub fn read(root: &Path) -> Result<Self, String> {
        let mut files = Vec::new();
        for path in paths(root)? {
            let full = root.join(&path);
            if !full.is_file() {
                continue; // Deleted in the working tree.
            }
            let bytes =
                std::fs::read(&full).map_err(|error| format!("cannot read {path}: {error}"))?;
            files.push(File {
                size: bytes.len() as u64,
                text: String::from_utf8(bytes).ok(),
                path,
            });
        }
        Ok(Self {
            files,
            packages: packages(root)?,
        })
    }

    /// The file at `path`, when there is one.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// Paths that git tracks or would track; in a tree without git, everything but build outputs.
fn paths(root: &Path) -> Result<Vec<String>, String> {
    let mut list = Command::new("git");
    list.current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let mut found: Vec<String> = match output_of(&mut list) {
        Ok(output) => output
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
        Err(_) => {
            let mut found = Vec::new();
            walk(root, root, &mut found)
                .map_err(|error| format!("cannot list {}: {error}", root.display()))?;
            found
        }
    };
    found.sort();
    found.dedup();
    Ok(found)
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !path.is_symlink() {
            if !["target", ".git", ".venv"].contains(&name.as_ref()) {
                walk(root, &path, found)?;
            }
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

fn packages(root: &Path) -> Result<Vec<Package>, String> {
    let metadata = metadata(root)?;
    let listed = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let read = |package: &Value| {
        let names = |development: bool| {
            let all = package["dependencies"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            let of_kind = all
                .iter()
                .filter(|dependency| (dependency["kind"] == "dev") == development);
            of_kind
                .filter_map(|dependency| text(&dependency["name"]))
                .collect()
        };
        Package {
            name: text(&package["name"]).unwrap_or_default(),
            description: text(&package["description"]),
            dependencies: names(false),
            dev_dependencies: names(true),
        }
    };
    Ok(listed.iter().map(read).collect())
}
