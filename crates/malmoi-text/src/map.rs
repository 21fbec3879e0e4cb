//! Read-only memory maps, the one place in this crate with unsafe code.
#![allow(
    unsafe_code,
    reason = "memory mapping has no safe interface; corpora larger than memory need it"
)]

use std::fs::File;
use std::path::Path;

use crate::error::{Result, TextError};

/// A file mapped for reading.
pub(crate) struct Map {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<memmap2::Mmap>,
}

impl Map {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(TextError::io(path))?;
        let length = file.metadata().map_err(TextError::io(path))?.len();
        if length == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the map is private to this process and read-only. The documented condition of `TokenCorpus::open` is that
        // nobody changes the file while it is open; the program itself never writes to a finished corpus, it renames a
        // new file over it, which leaves existing maps intact.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(TextError::io(path))?;
        Ok(Self { map: Some(map) })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}
