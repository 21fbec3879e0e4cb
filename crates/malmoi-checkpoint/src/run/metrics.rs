//! `metrics.jsonl`: one JSON object a line, each with the `step` it belongs to.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::fs::write_atomically;

/// Longest line that is taken for one of ours, in bytes; what is longer is damage.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// The open metrics file of a run.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

/// What cutting the file back to a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CutBack {
    /// Lines kept.
    pub kept: usize,
    /// Lines of later steps that were removed.
    pub later: usize,
    /// Lines removed because they, or a line before them, couldn't be read.
    pub damaged: usize,
}

impl MetricsLog {
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(&path);
        Ok(Self {
            file: file.map_err(|e| Error::io("open", &path, e))?,
            path,
        })
    }

    /// Appends a line: `{"step": step, …fields}`. A number that isn't finite becomes `null`, as JSON has none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, step: u64, fields: &Map<String, Value>) -> Result<()> {
        let mut row = Map::new();
        row.insert("step".into(), step.into());
        row.extend(
            fields
                .iter()
                .filter(|(key, _)| *key != "step")
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        let mut line = Value::Object(row).to_string();
        line.push('\n');
        // One call, so that lines don't mix and a crash loses whole lines or the end of one.
        self.file
            .write_all(line.as_bytes())
            .map_err(|e| Error::io("append to", &self.path, e))
    }

    /// Makes the lines durable. Called before a checkpoint is marked complete.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| Error::io("sync", &self.path, e))
    }
}

/// Cuts a metrics file back to the lines of steps up to `step`. Lines that a crash left unreadable
/// end the file: those of `step` and before were synced with its checkpoint. An absent file is fine.
///
/// # Errors
/// [`Error::Io`]; the file is as it was then.
pub(super) fn cut_back(path: &Path, step: u64) -> Result<CutBack> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(CutBack::default()),
        other => other.map_err(|e| Error::io("open", path, e))?,
    };
    let mut reader = BufReader::new(file);
    let mut result = CutBack::default();
    write_atomically(path, |out| {
        let mut line = Vec::new();
        loop {
            line.clear();
            let length =
                std::io::Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
            if length == 0 {
                return Ok(());
            }
            match step_of_line(&line) {
                _ if result.damaged > 0 => result.damaged += 1,
                None => result.damaged += 1,
                Some(found) if found > step => result.later += 1,
                Some(_) => {
                    result.kept += 1;
                    out.write_all(&line)?;
                }
            }
        }
    })?;
    Ok(result)
}

/// The step of a whole line, `None` for anything else.
fn step_of_line(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\n")?;
    serde_json::from_slice::<Value>(line)
        .ok()?
        .get("step")?
        .as_u64()
}
