//! Small helpers on files.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use malmoi_text::Tokenizer;

use crate::error::TrainError;

/// Directory of the tokenizer in a run directory.
pub(crate) const TOKENIZER: &str = "tokenizer";

/// Directory of the files that say how vectors of sentences are made.
pub(crate) const LAYOUT: &str = "layout";

/// Name and path of the files of a directory.
pub(crate) fn files_in(dir: &Path) -> Result<Vec<(String, PathBuf)>, TrainError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| TrainError::io("list", dir, e))? {
        let entry = entry.map_err(|e| TrainError::io("list", dir, e))?;
        files.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    files.sort();
    Ok(files)
}

/// CRC-32C and length of the content of some files, one after another.
pub(crate) fn checksum(files: &[PathBuf]) -> Result<String, TrainError> {
    let (mut sum, mut length) = (0, 0_u64);
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let mut file = fs::File::open(path).map_err(|e| TrainError::io("open", path, e))?;
        loop {
            match file
                .read(&mut buffer)
                .map_err(|e| TrainError::io("read", path, e))?
            {
                0 => break,
                n => {
                    sum = crc32c::crc32c_append(sum, &buffer[..n]);
                    length += n as u64;
                }
            }
        }
    }
    Ok(format!("{sum:08x}-{length}"))
}

/// Writes the tokenizer under a temporary name, so that the directory is complete or absent.
pub(crate) fn save_tokenizer(
    tokenizer: &Tokenizer,
    dir: &Path,
    max_len: usize,
) -> Result<(), TrainError> {
    let temporary = dir.with_file_name(format!(".tmp-{TOKENIZER}"));
    if temporary.is_dir() {
        fs::remove_dir_all(&temporary).map_err(|e| TrainError::io("remove", &temporary, e))?;
    }
    fs::create_dir_all(&temporary).map_err(|e| TrainError::io("create", &temporary, e))?;
    tokenizer.save(&temporary, Some(max_len))?;
    fs::rename(&temporary, dir).map_err(|e| TrainError::io("rename into", dir, e))
}
