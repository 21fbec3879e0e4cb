//! Finding a model: a directory, a snapshot in the local cache, or a download from a hub.
//!
//! The cache has the standard layout (`models--org--name/{blobs,refs,snapshots}`), so what Python
//! downloaded is found here and the other way round. Transfers go through the `hf-hub` crate; the
//! environment variables it doesn't know (`HF_HUB_CACHE`, `HF_TOKEN`, `HF_HUB_OFFLINE`) are read here.

mod cache;
mod download;
mod error;
mod id;

use std::path::{Path, PathBuf};

pub use error::HubError;
pub use id::HubId;

use crate::error::Result;

/// Where models come from and where they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// The cache directory that holds `models--org--name`.
    pub cache: PathBuf,
    /// Access token, for private and gated models.
    pub token: Option<String>,
    /// Whether to use the cache only.
    pub offline: bool,
}

/// Told about downloads as they go on.
pub trait Progress {
    /// A file is about to be downloaded (or continued): its name and size in bytes.
    fn start(&mut self, file: &str, bytes: u64);
    /// So many more bytes of it have arrived.
    fn advance(&mut self, bytes: u64);
    /// The file is complete.
    fn finish(&mut self, file: &str);
    /// Something the user should know, though the work goes on.
    fn notice(&mut self, message: &str);
}

/// Tells nobody.
impl Progress for () {
    fn start(&mut self, _file: &str, _bytes: u64) {}
    fn advance(&mut self, _bytes: u64) {}
    fn finish(&mut self, _file: &str) {}
    fn notice(&mut self, _message: &str) {}
}

/// The directory of a model given as a path or a hub id (`org/name`, `name`, `org/name@revision`),
/// with the hub and cache that the environment names.
///
/// # Errors
/// [`HubError`], wrapped: neither a directory nor a hub id, not on the hub, no access, or the
/// transfer failed.
pub fn resolve(model: &str) -> Result<PathBuf> {
    resolve_with(model, &Hub::from_env()?, &mut ())
}

/// [`resolve`] with a given hub and a listener for progress.
///
/// # Errors
/// Those of [`resolve`].
pub fn resolve_with(model: &str, hub: &Hub, progress: &mut dyn Progress) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    if path.is_file() {
        return Err(HubError::IsAFile {
            path: path.to_path_buf(),
        }
        .into());
    }
    let id = HubId::parse(model).map_err(|reason| HubError::NeitherPathNorId {
        model: model.to_string(),
        reason,
    })?;
    hub.fetch(&id, progress)
}

impl Hub {
    /// The hub and cache that the environment names: `HF_ENDPOINT`, `HF_HUB_CACHE` (or `HF_HOME`,
    /// or `~/.cache/huggingface`), `HF_TOKEN` (or the token file), `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`HubError::NoCache`] when neither these nor `HOME` say where the cache is.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// [`from_env`](Self::from_env) with variables from anywhere; an empty value counts as unset.
    ///
    /// # Errors
    /// [`HubError::NoCache`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let home = || get("HOME").map(PathBuf::from);
        let expand = |path: String| match (path.strip_prefix("~/"), home()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        };
        let hf_home = get("HF_HOME")
            .map(expand)
            .or_else(|| get("XDG_CACHE_HOME").map(|p| expand(p).join("huggingface")))
            .or_else(|| home().map(|p| p.join(".cache/huggingface")));
        let cache = get("HF_HUB_CACHE")
            .or_else(|| get("HUGGINGFACE_HUB_CACHE"))
            .map(expand)
            .or_else(|| hf_home.as_ref().map(|p| p.join("hub")))
            .ok_or(HubError::NoCache)?;
        let token = get("HF_TOKEN").or_else(|| {
            let file = get("HF_TOKEN_PATH")
                .map(expand)
                .or_else(|| hf_home.map(|p| p.join("token")))?;
            std::fs::read_to_string(file).ok()
        });
        let on = |name: &str| {
            get(name).is_some_and(|v| {
                matches!(
                    v.trim().to_ascii_uppercase().as_str(),
                    "1" | "ON" | "YES" | "TRUE"
                )
            })
        };
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        Ok(Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_string(),
            cache: std::path::absolute(&cache).unwrap_or(cache),
            token: token
                .map(|t| t.trim().to_string())
                .filter(|t| !t.is_empty()),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
        })
    }

    /// The snapshot directory of a model: asks the hub for the current revision and downloads what
    /// the cache lacks; offline, or when the hub can't be reached, takes the snapshot from the cache.
    ///
    /// # Errors
    /// Those of [`resolve`].
    pub fn fetch(&self, id: &HubId, progress: &mut dyn Progress) -> Result<PathBuf> {
        let cached = cache::find(&self.cache, id);
        if self.offline {
            return cached.ok_or_else(|| {
                HubError::OfflineWithoutCache {
                    id: id.to_string(),
                    cache: self.cache.clone(),
                }
                .into()
            });
        }
        // A commit never changes, so a snapshot of it needs no question to the hub; but Python fetches
        // the tokenizer separately, so one without is completed.
        let complete = |snapshot: &&PathBuf| id.is_commit() && cache::has_tokenizer(snapshot);
        if let Some(snapshot) = cached.as_ref().filter(complete) {
            return Ok(snapshot.clone());
        }
        match (download::snapshot(self, id, progress), cached) {
            (Err(error), Some(snapshot)) if error.is_unreachable() => {
                progress.notice(&format!(
                    "{error}; using the cached copy in `{}`",
                    snapshot.display()
                ));
                Ok(snapshot)
            }
            (result, _) => Ok(result?),
        }
    }
}
