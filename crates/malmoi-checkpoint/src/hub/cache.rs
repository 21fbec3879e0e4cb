//! Snapshots in the local cache.

use std::path::{Path, PathBuf};

use super::HubId;
use super::id::is_commit;
use crate::directory::CONFIG;
use crate::tensors::{WEIGHTS, WEIGHTS_INDEX, read_index};

/// The snapshot of a revision, if the cache holds all that a model needs.
pub(super) fn find(cache: &Path, id: &HubId) -> Option<PathBuf> {
    let model = cache.join(id.folder());
    let commit = if id.is_commit() {
        id.revision.clone()
    } else {
        let text = std::fs::read_to_string(model.join("refs").join(&id.revision)).ok()?;
        text.trim().to_string()
    };
    if !is_commit(&commit) {
        return None;
    }
    let snapshot = model.join("snapshots").join(commit);
    is_complete(&snapshot).then_some(snapshot)
}

/// Whether a snapshot has a configuration and all of its weights (every shard of an index).
pub(super) fn is_complete(snapshot: &Path) -> bool {
    if !snapshot.join(CONFIG).is_file() {
        return false;
    }
    if snapshot.join(WEIGHTS).is_file() {
        return true;
    }
    // A broken index counts as incomplete, so that it is fetched again.
    read_index(&snapshot.join(WEIGHTS_INDEX)).is_ok_and(|pairs| {
        pairs
            .iter()
            .all(|(_, shard)| snapshot.join(shard).is_file())
    })
}

/// Whether a snapshot has a vocabulary of any kind.
pub(super) fn has_tokenizer(snapshot: &Path) -> bool {
    const VOCABULARIES: [&str; 6] = [
        "tokenizer.json",
        "vocab.txt",
        "vocab.json",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tokenizer.model",
    ];
    VOCABULARIES
        .iter()
        .any(|file| snapshot.join(file).is_file())
}
