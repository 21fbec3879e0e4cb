//! Helpers shared by the tests of this crate.
#![allow(dead_code, reason = "each test file uses some of them")]

use std::path::PathBuf;

/// The golden references of the repository.
pub fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

/// Golden model fixtures: directories with a `config.json` and weights.
pub fn golden_models() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(golden())
        .expect("golden/ is part of the repository")
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.join("config.json").is_file() && path.join("model.safetensors").is_file()
        })
        .collect();
    found.sort();
    assert!(
        found.len() >= 8,
        "BERT and GPT fixtures are there: {found:?}"
    );
    found
}

/// A file with this header text and this much data.
pub fn file_with(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}
