//! Files that are complete or absent: written beside their final name, synced, renamed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Start of the names of files and directories that are still being written.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Tells apart temporary names within one process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The directory that holds `path`, `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// A name beside `path` that nobody else uses.
pub(crate) fn sibling(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    parent(path).join(format!("{TEMPORARY}{name}-{}-{count}", std::process::id()))
}

/// Makes the entries of a directory durable. Not every file system can do that; those that can't
/// say so with `InvalidInput` or `Unsupported`, which is no error of ours.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    use std::io::ErrorKind::{InvalidInput, Unsupported};
    if cfg!(not(unix)) {
        return Ok(());
    }
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    match synced {
        Err(e) if !matches!(e.kind(), InvalidInput | Unsupported) => {
            Err(Error::io("sync", path, e))
        }
        _ => Ok(()),
    }
}

/// Syncs every file below `path`, then the directories, deepest first.
pub(crate) fn sync_tree(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).map_err(|e| Error::io("list", path, e))? {
        let entry = entry.map_err(|e| Error::io("list", path, e))?;
        let kind = entry
            .file_type()
            .map_err(|e| Error::io("inspect", entry.path(), e))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            let file = File::open(entry.path()).map_err(|e| Error::io("open", entry.path(), e))?;
            file.sync_all()
                .map_err(|e| Error::io("sync", entry.path(), e))?;
        }
    }
    sync_dir(path)
}

/// Removes a file or a whole directory; an absent one is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => Err(e),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(|e| Error::io("remove", path, e))
}

/// Removes its path when dropped, unless [`keep`](Self::keep) was called: what a failed write
/// leaves must not fill the disk further.
#[derive(Debug)]
pub(crate) struct Cleanup {
    path: Option<PathBuf>,
}

impl Cleanup {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    pub(crate) fn keep(&mut self) {
        self.path = None;
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The error that led here is the one to report.
            let _ = remove(path);
        }
    }
}

/// Writes a file through `fill` so that `path` holds either what it held before or all of it.
///
/// # Errors
/// What `fill` returns, or [`Error::Io`]; `path` is untouched then and nothing is left beside it.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let temporary = sibling(path);
    let mut cleanup = Cleanup::new(temporary.clone());
    let file = File::create_new(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    fill(&mut out).map_err(|e| Error::io("write", path, e))?;
    let file = out
        .into_inner()
        .map_err(|e| Error::io("write", path, e.into_error()))?;
    file.sync_all().map_err(|e| Error::io("sync", path, e))?;
    drop(file);
    fs::rename(&temporary, path).map_err(|e| Error::io("rename into", path, e))?;
    cleanup.keep();
    sync_dir(parent(path))
}

/// Makes `link` a symbolic link to the directory `target`, relative to the link's own directory.
pub(crate) fn symlink_dir(target: &Path, link: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(target, link);
    #[cfg(windows)]
    return std::os::windows::fs::symlink_dir(target, link);
    #[cfg(not(any(unix, windows)))]
    return Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        format!("{target:?} {link:?}"),
    ));
}

/// Makes `link` a symbolic link to the file `target`, relative to the link's own directory.
pub(crate) fn symlink_file(target: &Path, link: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(target, link);
    #[cfg(windows)]
    return std::os::windows::fs::symlink_file(target, link);
    #[cfg(not(any(unix, windows)))]
    return Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        format!("{target:?} {link:?}"),
    ));
}
