//! Read-only memory maps: the only unsafe code of this crate.
//!
//! A checkpoint of several gigabytes is opened in microseconds and only the pages that are read
//! come into memory. Mapping is unsafe in Rust because another process could change the file
//! while we hold a reference into it. The exception is kept to this module.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A whole file, mapped read-only, for as long as this value or a clone of it lives. An empty file is an empty slice.
#[derive(Clone, Debug)]
pub struct MappedFile {
    // `None` for an empty file, which the operating system refuses to map.
    map: Option<Arc<memmap2::Mmap>>,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file can't be opened, isn't a regular file or can't be mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let meta = file.metadata().map_err(|e| Error::io("inspect", path, e))?;
        if !meta.is_file() {
            let kind =
                std::io::Error::new(std::io::ErrorKind::InvalidInput, "it isn't a regular file");
            return Err(Error::io("map", path, kind));
        }
        if meta.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the map is private to this value, read-only, and lives as long as the slices
        // borrowed from it. A writer that truncates the file in place would make reads fault; all
        // writers of this crate (and Python's) write a new file and rename it over the old one,
        // which leaves the mapped one as it was.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
        Ok(Self {
            map: Some(Arc::new(map)),
        })
    }

    /// Tells the operating system that nobody reads `bytes`, a part of the file, any time soon, so that its pages stop counting as this
    /// process's memory. Who reads them all the same gets them from the file again.
    pub fn release(&self, bytes: &[u8]) {
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.as_ref().as_ptr() as usize);
        if start
            .checked_add(bytes.len())
            .is_none_or(|end| end > self.as_ref().len())
        {
            return;
        }
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // SAFETY: the advice would throw away what had been written to private pages. This map is read-only: its pages come back
            // from the file with the same content. It is a hint, so a refusal changes nothing.
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, bytes.len())
            };
        }
    }
}

/// The bytes of the file.
impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| &map[..])
    }
}
