//! What can go wrong on the way from a name to a directory.

use std::path::PathBuf;

/// A model couldn't be found or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name fits nothing.
    #[error(
        "`{model}` isn't a model: no directory of that name, and not a hub id either ({reason}); \
        give a model directory or a hub id like `org/name`"
    )]
    NeitherPathNorId {
        /// What was given.
        model: String,
        /// Why it isn't a hub id.
        reason: &'static str,
    },
    /// A file where a directory is expected.
    #[error("`{}` is a file, expected a model directory; give the directory that holds it", path.display())]
    IsAFile {
        /// The file.
        path: PathBuf,
    },
    /// No place for the cache.
    #[error(
        "no place for the model cache: expected HF_HUB_CACHE, HF_HOME or HOME in the environment, found none; set one"
    )]
    NoCache,
    /// Offline, and the cache hasn't got it.
    #[error("`{id}` isn't complete in the cache `{}` and HF_HUB_OFFLINE forbids downloading; unset HF_HUB_OFFLINE once, \
        or give a model directory", cache.display())]
    OfflineWithoutCache {
        /// The model.
        id: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub doesn't know it.
    #[error("`{id}` is neither a directory here nor a model on {endpoint} (not found, 404); check the spelling{}",
        private_hint(*has_token))]
    UnknownModel {
        /// The model.
        id: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The hub wants a (better) token.
    #[error("{endpoint} refuses access to `{id}` ({status}); {}", token_hint(*has_token))]
    NoAccess {
        /// The model.
        id: String,
        /// The hub.
        endpoint: String,
        /// HTTP status: 401 or 403.
        status: u16,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The hub answered with another error.
    #[error("{endpoint} answered {status} for `{what}`; try again later")]
    Status {
        /// The hub.
        endpoint: String,
        /// The model or file.
        what: String,
        /// HTTP status.
        status: u16,
    },
    /// No connection.
    #[error(
        "{endpoint} can't be reached for `{id}`, and no directory has that name: {problem}; correct the name, or check the network and HF_ENDPOINT"
    )]
    Unreachable {
        /// The model.
        id: String,
        /// The hub.
        endpoint: String,
        /// What failed.
        problem: String,
    },
    /// The model has no weights we read.
    #[error(
        "`{id}` has no weights that can be read: expected `model.safetensors` (or shards with an index), found {found}; \
        convert it in Python: `AutoModel.from_pretrained(\"{id}\").save_pretrained(DIR)`, and give DIR"
    )]
    NoSafetensors {
        /// The model.
        id: String,
        /// What is there instead.
        found: String,
    },
    /// A file that every model has is absent.
    #[error(
        "`{id}` has no `{file}`, so it isn't a model that can be loaded; choose another model or revision"
    )]
    MissingFile {
        /// The model.
        id: String,
        /// The file.
        file: String,
    },
    /// A transfer broke off again and again.
    #[error(
        "downloading `{file}` of `{id}` failed after {attempts} attempts: {problem}; run it again, \
        the download continues where it stopped"
    )]
    Transfer {
        /// The model.
        id: String,
        /// The file.
        file: String,
        /// How often it was tried.
        attempts: usize,
        /// What the last attempt met.
        problem: String,
    },
    /// The hub's answer makes no sense.
    #[error(
        "{endpoint} gave an answer that can't be used: {problem}; check that HF_ENDPOINT is a model hub"
    )]
    BadAnswer {
        /// The hub.
        endpoint: String,
        /// What was expected and found.
        problem: String,
    },
    /// The cache can't be written.
    #[error("cannot write the model cache `{}`: {source}; free some space or set HF_HUB_CACHE to another place", path.display())]
    Cache {
        /// The path.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether the request was at fault (exit status 2) rather than the work (1).
    pub fn is_bad_input(&self) -> bool {
        use HubError::*;
        matches!(
            self,
            NeitherPathNorId { .. }
                | IsAFile { .. }
                | NoCache
                | OfflineWithoutCache { .. }
                | UnknownModel { .. }
                | NoAccess { .. }
                | NoSafetensors { .. }
                | MissingFile { .. }
        )
    }

    /// Whether the hub couldn't be asked at all, so that a cached copy may stand in.
    pub fn is_unreachable(&self) -> bool {
        match self {
            HubError::Unreachable { .. } => true,
            HubError::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

fn token_hint(has_token: bool) -> &'static str {
    if has_token {
        "the token that was sent doesn't give access: check HF_TOKEN, and accept the model's terms on its page"
    } else {
        "no token was sent: set HF_TOKEN to an access token of your account, and accept the model's terms on its page"
    }
}

fn private_hint(has_token: bool) -> &'static str {
    if has_token {
        ""
    } else {
        ", and set HF_TOKEN if the model is private"
    }
}
