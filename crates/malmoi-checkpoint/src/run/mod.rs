//! Training run directories: checkpoints that are complete or don't count.
//!
//! ```text
//! run.json            format and version
//! run.lock            held while a process writes the run
//! config.toml         the resolved configuration (written by the trainer)
//! metrics.jsonl       one object a line, cut back on resume
//! tensorboard/
//! checkpoints/step-N/ a model directory, optimiser state, and the marker complete.json
//! best, last          relative links to checkpoints
//! ```

mod checkpoint;
mod error;
mod metrics;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

pub use checkpoint::{Checkpoint, MARKER, PendingCheckpoint};
pub use error::RunError;
pub use metrics::{CutBack, MetricsLog};

use crate::directory::{read_json, write_json};
use crate::error::{Error, Result};
use crate::fs::{TEMPORARY, parent, remove, sibling, symlink_dir, sync_dir, write_atomically};
use crate::tensors::is_plain_name;
use checkpoint::{REPLACED, step_of};

/// Version of the run format that is read and written.
pub const RUN_VERSION: u64 = 1;

/// File that marks a directory as a run and holds the format's version.
const RUN_FILE: &str = "run.json";
const LOCK_FILE: &str = "run.lock";
const METRICS_FILE: &str = "metrics.jsonl";
const CHECKPOINTS: &str = "checkpoints";
const BEST: &str = "best";
const LAST: &str = "last";

/// A training run's directory, locked against other writers while this value lives.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    metrics: MetricsLog,
    // The operating system releases it when the process ends, however it ends.
    _lock: File,
}

impl RunDirectory {
    /// Starts a run in a new or empty directory.
    ///
    /// # Errors
    /// [`RunError::AlreadyARun`], [`RunError::NotEmpty`], [`RunError::Locked`] or [`Error::Io`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        // Looked for first: a listing may come in any order, and the files of a run aren't foreign.
        if path.join(RUN_FILE).exists() {
            return Err(RunError::AlreadyARun {
                path: path.to_path_buf(),
            }
            .into());
        }
        for entry in fs::read_dir(path).map_err(|e| Error::io("list", path, e))? {
            let name = entry.map_err(|e| Error::io("list", path, e))?.file_name();
            let name = name.to_string_lossy();
            // A start that was interrupted leaves these.
            if name != LOCK_FILE
                && name != CHECKPOINTS
                && name != METRICS_FILE
                && !name.starts_with(TEMPORARY)
            {
                return Err(RunError::NotEmpty {
                    path: path.to_path_buf(),
                }
                .into());
            }
        }
        let lock = lock(path)?;
        let checkpoints = path.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints).map_err(|e| Error::io("create", &checkpoints, e))?;
        let metrics = MetricsLog::open(path.join(METRICS_FILE))?;
        write_json(
            &path.join(RUN_FILE),
            &json!({ "format": "malmoi-run", "version": RUN_VERSION }),
        )?;
        sync_dir(parent(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            metrics,
            _lock: lock,
        })
    }

    /// Opens an existing run for writing. What an interrupted process left (unmarked checkpoints,
    /// temporary files) is removed, and the links are mended.
    ///
    /// # Errors
    /// [`RunError::NotARun`], [`RunError::Version`], [`RunError::Locked`], [`RunError::Damaged`] or [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = path.join(RUN_FILE);
        if !file.is_file() {
            return Err(RunError::NotARun {
                path: path.to_path_buf(),
            }
            .into());
        }
        let header = read_json(&file)?;
        if header["version"] != RUN_VERSION || header["format"] != "malmoi-run" {
            let found = header["version"].to_string();
            return Err(RunError::Version {
                path: file,
                found,
                expected: RUN_VERSION,
            }
            .into());
        }
        let lock = lock(path)?;
        clean(path)?;
        let metrics = MetricsLog::open(path.join(METRICS_FILE))?;
        let run = Self {
            path: path.to_path_buf(),
            metrics,
            _lock: lock,
        };
        match run.latest()? {
            Some(latest) => run.link(LAST, &latest)?,
            None => remove(&run.path.join(LAST))?,
        }
        if run.path.join(BEST).symlink_metadata().is_ok() && run.best()?.is_none() {
            remove(&run.path.join(BEST))?;
        }
        Ok(run)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file of the run (`config.toml`) completely or not at all.
    ///
    /// # Errors
    /// [`Error::BadFileName`] or [`Error::Io`].
    pub fn write_file(&self, name: &str, content: &[u8]) -> Result<()> {
        if !is_plain_name(name) {
            return Err(Error::BadFileName {
                name: name.to_string(),
            });
        }
        write_atomically(&self.path.join(name), |out| out.write_all(content))
    }

    /// The metrics file.
    pub fn metrics(&mut self) -> &mut MetricsLog {
        &mut self.metrics
    }

    /// Removes the metrics of steps after `step`, which a resumed run will write again.
    ///
    /// # Errors
    /// [`Error::Io`]; the file is as it was then.
    pub fn cut_metrics_back(&mut self, step: u64) -> Result<CutBack> {
        let path = self.path.join(METRICS_FILE);
        let result = metrics::cut_back(&path, step)?;
        // The old handle belongs to the file that was replaced.
        self.metrics = MetricsLog::open(path)?;
        Ok(result)
    }

    /// Starts a checkpoint; write into its [`path`](PendingCheckpoint::path), then
    /// [`commit`](Self::commit) it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin_checkpoint(&self, step: u64) -> Result<PendingCheckpoint> {
        PendingCheckpoint::begin(&self.path.join(CHECKPOINTS), step)
    }

    /// Makes a checkpoint count, atomically, and points `last` to it. An older checkpoint of the
    /// same step is replaced.
    ///
    /// # Errors
    /// [`Error::Io`]; earlier checkpoints are untouched then and nothing is left of the new one.
    pub fn commit(&mut self, pending: PendingCheckpoint) -> Result<Checkpoint> {
        self.metrics.sync()?;
        let checkpoint = pending.commit()?;
        self.link(LAST, &checkpoint)?;
        Ok(checkpoint)
    }

    /// All complete checkpoints by rising step.
    ///
    /// # Errors
    /// [`RunError::Damaged`] or [`Error::Io`].
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        list_checkpoints(&self.path)
    }

    /// The complete checkpoint of the latest step.
    ///
    /// # Errors
    /// [`RunError::Damaged`] or [`Error::Io`].
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        latest_checkpoint(&self.path)
    }

    /// The checkpoint that `best` points to.
    ///
    /// # Errors
    /// [`RunError::Damaged`] or [`Error::Io`].
    pub fn best(&self) -> Result<Option<Checkpoint>> {
        let link = self.path.join(BEST);
        match fs::read_link(&link) {
            Ok(target) => Checkpoint::open(&self.path.join(target)),
            Err(_) => Ok(None),
        }
    }

    /// Points `best` to a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_best(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.link(BEST, checkpoint)
    }

    /// Deletes all checkpoints but the `keep` latest (at least one) and the best; returns the
    /// deleted ones.
    ///
    /// # Errors
    /// [`RunError::Damaged`] or [`Error::Io`].
    pub fn rotate(&self, keep: usize) -> Result<Vec<Checkpoint>> {
        let mut old = self.checkpoints()?;
        old.truncate(old.len().saturating_sub(keep.max(1)));
        let best = self.best()?.map(|checkpoint| checkpoint.step);
        old.retain(|checkpoint| Some(checkpoint.step) != best);
        old.iter().try_for_each(Checkpoint::delete)?;
        Ok(old)
    }

    /// Replaces a link atomically: made under a temporary name, then renamed over the old one.
    fn link(&self, name: &str, checkpoint: &Checkpoint) -> Result<()> {
        let link = self.path.join(name);
        // Relative, so that a run directory can be moved or copied.
        let target = Path::new(CHECKPOINTS).join(checkpoint.path.file_name().unwrap_or_default());
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let temporary = sibling(&link);
        symlink_dir(&target, &temporary).map_err(|e| Error::io("link", &temporary, e))?;
        fs::rename(&temporary, &link).map_err(|e| Error::io("rename into", &link, e))?;
        sync_dir(&self.path)
    }
}

/// All complete checkpoints of a run by rising step, without locking it: for readers.
///
/// # Errors
/// [`RunError::Damaged`] or [`Error::Io`].
pub fn list_checkpoints(run: &Path) -> Result<Vec<Checkpoint>> {
    let mut found = Vec::new();
    for (step, path) in step_directories(run)? {
        match Checkpoint::open(&path)? {
            Some(checkpoint) if checkpoint.step == step => found.push(checkpoint),
            Some(checkpoint) => {
                let problem = format!("its marker says step {}, expected {step}", checkpoint.step);
                return Err(RunError::Damaged { path, problem }.into());
            }
            None => {}
        }
    }
    found.sort();
    Ok(found)
}

/// The complete checkpoint of the latest step of a run, without locking it.
///
/// # Errors
/// Those of [`list_checkpoints`].
pub fn latest_checkpoint(run: &Path) -> Result<Option<Checkpoint>> {
    Ok(list_checkpoints(run)?.pop())
}

fn step_directories(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let dir = run.join(CHECKPOINTS);
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).map_err(|e| Error::io("list", &dir, e))? {
        let entry = entry.map_err(|e| Error::io("list", &dir, e))?;
        if let Some(step) = step_of(&entry.file_name().to_string_lossy()) {
            found.push((step, entry.path()));
        }
    }
    Ok(found)
}

/// Removes what an interrupted process left. Only called under the lock.
fn clean(run: &Path) -> Result<()> {
    let checkpoints = run.join(CHECKPOINTS);
    fs::create_dir_all(&checkpoints).map_err(|e| Error::io("create", &checkpoints, e))?;
    for (_, path) in step_directories(run)? {
        if Checkpoint::open(&path)?.is_none() {
            remove(&path)?;
        }
    }
    for dir in [run, checkpoints.as_path()] {
        for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
            let entry = entry.map_err(|e| Error::io("list", dir, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY) {
                remove(&entry.path())?;
            } else if let Some(original) = name.strip_prefix(REPLACED) {
                restore(&entry.path(), &dir.join(original))?;
            }
        }
    }
    sync_dir(&checkpoints)
}

/// Puts a checkpoint back that was set aside for one that never became complete.
fn restore(aside: &Path, target: &Path) -> Result<()> {
    if fs::symlink_metadata(target).is_ok() {
        return remove(aside);
    }
    fs::rename(aside, target).map_err(|e| Error::io("rename into", target, e))
}

/// Takes the lock of a run.
fn lock(run: &Path) -> Result<File> {
    let path = run.join(LOCK_FILE);
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = open.map_err(|e| Error::io("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known {
                format!("process {}", holder.trim())
            } else {
                "unknown".into()
            };
            return Err(RunError::Locked {
                path: run.to_path_buf(),
                holder,
            }
            .into());
        }
        Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
    }
    // For the message above. A full disk must not keep a run from being opened, so a failure is ignored.
    let _ = file
        .set_len(0)
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    Ok(file)
}
