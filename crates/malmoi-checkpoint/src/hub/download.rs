//! Fetching a snapshot into the cache.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::id::is_commit;
use super::{Hub, HubError, HubId, Progress};
use crate::directory::{CONFIG, GENERATION_CONFIG};
use crate::fs::{remove, write_atomically};
use crate::tensors::{WEIGHTS, WEIGHTS_INDEX, is_pickle, is_plain_name, read_index};

/// Small files that are fetched when a model has them.
const OPTIONAL: &[&str] = &[
    GENERATION_CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "preprocessor_config.json",
];

/// How often a broken transfer is continued before giving up.
const ATTEMPTS: usize = 4;

/// How long to wait for the hub's answer about a model. Transfers have no limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

type Result<T> = std::result::Result<T, HubError>;

/// Downloads what the cache lacks of the current snapshot and returns its directory.
///
/// All files are of one commit, and the branch's name (`refs/main`) points to the new snapshot
/// only when that is complete.
pub(super) fn snapshot(hub: &Hub, id: &HubId, progress: &mut dyn Progress) -> Result<PathBuf> {
    // `from_cache` rather than the default, which panics without a home directory.
    let api = ApiBuilder::from_cache(Cache::new(hub.cache.clone()))
        .with_endpoint(hub.endpoint.clone())
        .with_token(hub.token.clone())
        .with_progress(false)
        .build()
        .map_err(|e| unreachable(hub, id, &e.to_string()))?;
    let info = ask(hub, id, &api)?;
    let fetch = Fetch {
        hub,
        id,
        repo: api.repo(Repo::with_revision(
            id.name.clone(),
            RepoType::Model,
            info.commit.clone(),
        )),
        api: &api,
        folder: hub.cache.join(id.folder()),
        commit: &info.commit,
    };
    let has = |file: &str| info.files.contains(file);
    if !has(CONFIG) {
        return Err(HubError::MissingFile {
            id: id.to_string(),
            file: CONFIG.into(),
        });
    }
    if !has(WEIGHTS) && !has(WEIGHTS_INDEX) {
        return Err(no_safetensors(id, &info.files));
    }
    fetch.file(CONFIG, progress)?;
    for file in OPTIONAL.iter().filter(|file| has(file)) {
        fetch.file(file, progress)?;
    }
    if has(WEIGHTS) {
        fetch.file(WEIGHTS, progress)?;
    } else {
        let index = fetch.file(WEIGHTS_INDEX, progress)?;
        let pairs = read_index(&index).map_err(|e| HubError::BadAnswer {
            endpoint: hub.endpoint.clone(),
            problem: e.to_string(),
        })?;
        let shards: BTreeSet<String> = pairs.into_iter().map(|(_, shard)| shard).collect();
        for shard in shards {
            if !has(&shard) {
                return Err(HubError::MissingFile {
                    id: id.to_string(),
                    file: shard,
                });
            }
            fetch.file(&shard, progress)?;
        }
    }
    fetch.point_revision()?;
    Ok(fetch.snapshot())
}

/// What the hub says about a model.
struct Info {
    commit: String,
    files: BTreeSet<String>,
}

fn ask(hub: &Hub, id: &HubId, api: &Api) -> Result<Info> {
    let repo = api.repo(Repo::with_revision(
        id.name.clone(),
        RepoType::Model,
        id.revision.clone(),
    ));
    let request = repo
        .info_request()
        .config()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_TIMEOUT));
    let mut response = request
        .build()
        .call()
        .map_err(|e| unreachable(hub, id, &e.to_string()))?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(refused(hub, id, &id.to_string(), status));
    }
    let bad = |problem: String| HubError::BadAnswer {
        endpoint: hub.endpoint.clone(),
        problem,
    };
    let text = response
        .body_mut()
        .read_to_string()
        .map_err(|e| unreachable(hub, id, &e.to_string()))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| {
        bad(format!(
            "expected JSON about `{id}`, found something else ({e})"
        ))
    })?;
    // Commits become directory names, so nothing but a hash is let through.
    let commit = value["sha"].as_str().filter(|sha| is_commit(sha));
    let commit = commit.ok_or_else(|| {
        bad(format!(
            "expected a commit hash `sha` for `{id}`, found {}",
            value["sha"]
        ))
    })?;
    let siblings = value["siblings"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let files = siblings
        .iter()
        .filter_map(|s| Some(s["rfilename"].as_str()?.to_string()))
        .collect();
    Ok(Info {
        commit: commit.to_string(),
        files,
    })
}

/// One snapshot being fetched.
struct Fetch<'a> {
    hub: &'a Hub,
    id: &'a HubId,
    api: &'a Api,
    repo: ApiRepo,
    folder: PathBuf,
    commit: &'a str,
}

impl Fetch<'_> {
    fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshots").join(self.commit)
    }

    /// Makes sure the snapshot has a file, complete, and returns its path.
    fn file(&self, name: &str, progress: &mut dyn Progress) -> Result<PathBuf> {
        let pointer = self.snapshot().join(name);
        if pointer.is_file() {
            return Ok(pointer);
        }
        let mut problem = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(200 << attempt));
            }
            match self.attempt(name, &pointer, progress) {
                Ok(()) => {
                    progress.finish(name);
                    return Ok(pointer);
                }
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Again(found)) => problem = found,
            }
        }
        Err(HubError::Transfer {
            id: self.id.to_string(),
            file: name.to_string(),
            attempts: ATTEMPTS,
            problem,
        })
    }

    fn attempt(
        &self,
        name: &str,
        pointer: &Path,
        progress: &mut dyn Progress,
    ) -> std::result::Result<(), Attempt> {
        let meta = self
            .api
            .metadata(&self.repo.url(name))
            .map_err(|e| self.sort(name, e))?;
        // Both become file names in the cache.
        if !is_plain_name(meta.etag()) || meta.commit_hash() != self.commit {
            let problem = format!(
                "expected a plain tag and commit {} for `{name}`, found tag `{}` and commit `{}`",
                self.commit,
                meta.etag(),
                meta.commit_hash()
            );
            return Err(Attempt::Final(HubError::BadAnswer {
                endpoint: self.hub.endpoint.clone(),
                problem,
            }));
        }
        let blob = self.folder.join("blobs").join(meta.etag());
        let size = meta.size() as u64;
        if std::fs::symlink_metadata(pointer).is_ok() {
            // A link whose blob was deleted.
            remove(pointer).map_err(|e| Attempt::Final(self.cache_error(pointer, e)))?;
        }
        if blob
            .metadata()
            .is_ok_and(|m| m.is_file() && m.len() == size)
        {
            // Another revision has the same file, or a run ended before the link was made.
            return self.link(meta.etag(), pointer);
        }
        let part = blob.with_extension("part");
        if part.metadata().is_ok_and(|m| m.len() >= size) {
            // Left by something else than a broken transfer of this file.
            remove(&part).map_err(|e| Attempt::Final(self.cache_error(&part, e)))?;
        }
        let arrived = Cell::new(false);
        let listener = Listener {
            progress,
            name,
            arrived: &arrived,
        };
        self.repo
            .download_with_progress(name, listener)
            .map_err(|e| self.sort(name, e))?;
        // The crate doesn't compare: a server without range requests would have sent the file from
        // the start again, behind the part that was there.
        let found = blob.metadata().map(|m| m.len()).unwrap_or(0);
        if found != size {
            for path in [pointer, &blob] {
                remove(path).map_err(|e| Attempt::Final(self.cache_error(path, e)))?;
            }
            return Err(Attempt::Again(format!(
                "expected {size} bytes, found {found}"
            )));
        }
        Ok(())
    }

    /// Makes the snapshot's file point to a blob that is there already.
    fn link(&self, etag: &str, pointer: &Path) -> std::result::Result<(), Attempt> {
        let blob = Path::new("../../blobs").join(etag);
        std::fs::create_dir_all(self.snapshot())
            .and_then(|()| crate::fs::symlink_file(&blob, pointer))
            .map_err(|source| {
                Attempt::Final(HubError::Cache {
                    path: pointer.to_path_buf(),
                    source,
                })
            })
    }

    /// Tells errors that may pass from those that won't.
    fn sort(&self, name: &str, error: ApiError) -> Attempt {
        match error {
            ApiError::RequestError(request) => match *request {
                ureq::Error::StatusCode(status) if status < 500 && status != 429 => {
                    let what = format!("{}/{name}", self.id);
                    Attempt::Final(refused(self.hub, self.id, &what, status))
                }
                other => Attempt::Again(other.to_string()),
            },
            ApiError::IoError(source) if is_local(&source) => Attempt::Final(HubError::Cache {
                path: self.folder.clone(),
                source,
            }),
            ApiError::MissingHeader(header) | ApiError::InvalidHeader(header) => {
                let problem = format!("expected the header `{header}` for `{name}`");
                Attempt::Final(HubError::BadAnswer {
                    endpoint: self.hub.endpoint.clone(),
                    problem,
                })
            }
            other => Attempt::Again(other.to_string()),
        }
    }

    /// Makes the branch's name point to the snapshot, now that it is complete.
    fn point_revision(&self) -> Result<()> {
        // The crate made a reference named after the commit; the standard layout has none.
        let refs = self.folder.join("refs");
        remove(&refs.join(self.commit)).map_err(|e| self.cache_error(&refs, e))?;
        if self.id.is_commit() {
            return Ok(());
        }
        let path = refs.join(&self.id.revision);
        if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == self.commit) {
            return Ok(());
        }
        std::fs::create_dir_all(crate::fs::parent(&path)).map_err(|source| HubError::Cache {
            path: path.clone(),
            source,
        })?;
        write_atomically(&path, |out| out.write_all(self.commit.as_bytes()))
            .map_err(|e| self.cache_error(&path, e))
    }

    fn cache_error(&self, path: &Path, error: crate::Error) -> HubError {
        let source = match error {
            crate::Error::Io { source, .. } => source,
            other => std::io::Error::other(other.to_string()),
        };
        HubError::Cache {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Why one attempt at a file failed.
enum Attempt {
    /// Trying again may help.
    Again(String),
    /// It won't.
    Final(HubError),
}

/// Errors of the disk rather than of the connection.
fn is_local(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | PermissionDenied | ReadOnlyFilesystem | NotADirectory
    )
}

/// Hands the crate's progress on.
struct Listener<'a> {
    progress: &'a mut dyn Progress,
    name: &'a str,
    arrived: &'a Cell<bool>,
}

impl hf_hub::api::Progress for Listener<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        // The crate calls this twice.
        if !self.arrived.replace(true) {
            self.progress.start(self.name, size as u64);
        }
    }

    fn update(&mut self, size: usize) {
        self.progress.advance(size as u64);
    }

    fn finish(&mut self) {}
}

fn refused(hub: &Hub, id: &HubId, what: &str, status: u16) -> HubError {
    let (endpoint, has_token) = (hub.endpoint.clone(), hub.token.is_some());
    match status {
        401 | 403 => HubError::NoAccess {
            id: id.to_string(),
            endpoint,
            status,
            has_token,
        },
        404 => HubError::UnknownModel {
            id: id.to_string(),
            endpoint,
            has_token,
        },
        _ => HubError::Status {
            endpoint,
            what: what.to_string(),
            status,
        },
    }
}

fn unreachable(hub: &Hub, id: &HubId, problem: &str) -> HubError {
    HubError::Unreachable {
        id: id.to_string(),
        endpoint: hub.endpoint.clone(),
        problem: problem.to_string(),
    }
}

fn no_safetensors(id: &HubId, files: &BTreeSet<String>) -> HubError {
    let pickles: Vec<&str> = files
        .iter()
        .map(String::as_str)
        .filter(|file| is_pickle(file))
        .collect();
    let found = match pickles.as_slice() {
        [] => "no weights".to_string(),
        some => format!("only {}", some.join(", ")),
    };
    HubError::NoSafetensors {
        id: id.to_string(),
        found,
    }
}
