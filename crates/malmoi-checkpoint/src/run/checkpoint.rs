//! One checkpoint: a directory that counts once its marker is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{RUN_VERSION, RunError};
use crate::error::{Error, Result};
use crate::fs::{Cleanup, parent, remove, sync_dir, sync_tree, write_atomically};

/// File name of the marker, written last.
pub const MARKER: &str = "complete.json";

/// Start of the name under which a checkpoint waits while another takes its place.
pub(super) const REPLACED: &str = ".replaced-";

/// A complete checkpoint of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checkpoint {
    /// Optimiser steps done when it was written.
    pub step: u64,
    /// Its directory: a model directory with the optimiser's state.
    pub path: PathBuf,
}

/// The marker's content: what the checkpoint should hold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    version: u64,
    step: u64,
    /// Length in bytes of every file, by path relative to the checkpoint.
    files: BTreeMap<String, u64>,
}

/// Name of the directory of a step's checkpoint.
pub(super) fn directory_name(step: u64) -> String {
    format!("step-{step}")
}

/// The step in a directory name as [`directory_name`] makes it.
pub(super) fn step_of(name: &str) -> Option<u64> {
    let step: u64 = name.strip_prefix("step-")?.parse().ok()?;
    (directory_name(step) == name).then_some(step)
}

impl Checkpoint {
    /// The checkpoint in a directory: `None` when it has no marker, so was never completed.
    ///
    /// # Errors
    /// [`RunError::Damaged`] when the files aren't what the marker says; [`RunError::Version`].
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let file = path.join(MARKER);
        let text = match fs::read(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| Error::io("read", &file, e))?,
        };
        let damaged = |problem: String| RunError::Damaged {
            path: path.to_path_buf(),
            problem,
        };
        let marker: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|e| damaged(format!("its marker `{MARKER}` isn't valid JSON ({e})")))?;
        if marker["version"] != RUN_VERSION {
            let found = marker["version"].to_string();
            return Err(RunError::Version {
                path: file,
                found,
                expected: RUN_VERSION,
            }
            .into());
        }
        let marker: Marker = serde_json::from_value(marker)
            .map_err(|e| damaged(format!("its marker `{MARKER}` can't be used ({e})")))?;
        for (name, &expected) in &marker.files {
            let found = fs::metadata(path.join(name)).map(|m| m.len());
            match found {
                Ok(length) if length == expected => {}
                Ok(length) => {
                    return Err(damaged(format!(
                        "`{name}` has {length} bytes, expected {expected}"
                    ))
                    .into());
                }
                Err(_) => return Err(damaged(format!("`{name}` is missing")).into()),
            }
        }
        Ok(Some(Self {
            step: marker.step,
            path: path.to_path_buf(),
        }))
    }

    /// Deletes the checkpoint, its marker first, so that a half-deleted one doesn't count.
    pub(super) fn delete(&self) -> Result<()> {
        remove(&self.path.join(MARKER))?;
        sync_dir(&self.path)?;
        remove(&self.path)
    }
}

/// A checkpoint that is being written. Dropping it without [`RunDirectory::commit`](super::RunDirectory::commit) removes it.
#[derive(Debug)]
pub struct PendingCheckpoint {
    step: u64,
    temporary: PathBuf,
    target: PathBuf,
    cleanup: Cleanup,
}

impl PendingCheckpoint {
    pub(super) fn begin(checkpoints: &Path, step: u64) -> Result<Self> {
        let target = checkpoints.join(directory_name(step));
        let temporary = crate::fs::sibling(&target);
        let cleanup = Cleanup::new(temporary.clone());
        fs::create_dir(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
        Ok(Self {
            step,
            temporary,
            target,
            cleanup,
        })
    }

    /// The directory to write into.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// The step it belongs to.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Syncs the files, renames the directory to its final name, and writes the marker.
    pub(super) fn commit(mut self) -> Result<Checkpoint> {
        let mut files = BTreeMap::new();
        list_files(&self.temporary, "", &mut files)?;
        sync_tree(&self.temporary)?;
        let aside = self
            .target
            .with_file_name(format!("{REPLACED}{}", directory_name(self.step)));
        let replaces = fs::symlink_metadata(&self.target).is_ok();
        if replaces {
            remove(&aside)?;
            rename(&self.target, &aside)?;
        }
        if let Err(error) = rename(&self.temporary, &self.target) {
            if replaces {
                rename(&aside, &self.target)?;
            }
            return Err(error);
        }
        self.cleanup.keep();
        let finished = self.mark(files);
        if let Err(error) = finished {
            // Without its marker it doesn't count; the one it replaced still does.
            remove(&self.target)?;
            if replaces {
                rename(&aside, &self.target)?;
            }
            return Err(error);
        }
        if replaces {
            remove(&aside)?;
        }
        Ok(Checkpoint {
            step: self.step,
            path: self.target.clone(),
        })
    }

    fn mark(&self, files: BTreeMap<String, u64>) -> Result<()> {
        sync_dir(parent(&self.target))?;
        let marker = Marker {
            version: RUN_VERSION,
            step: self.step,
            files,
        };
        write_atomically(&self.target.join(MARKER), |out| {
            serde_json::to_writer_pretty(&mut *out, &marker)?;
            out.write_all(b"\n")
        })
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename into", to, e))
}

/// Collects every file below `dir` with its length, by path with `/` between its parts.
fn list_files(dir: &Path, prefix: &str, files: &mut BTreeMap<String, u64>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, e))?;
        let meta = entry
            .metadata()
            .map_err(|e| Error::io("inspect", entry.path(), e))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if meta.is_dir() {
            list_files(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, meta.len());
        }
    }
    Ok(())
}
