//! What the operator decides.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use malmoi_infer::pipeline::PipelineOptions;

use crate::traces::Collector;

/// A model to serve.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// The name that requests use.
    pub name: String,
    /// Its directory.
    pub directory: PathBuf,
    /// A small model that drafts for it, with the same tokenizer.
    pub draft: Option<PathBuf>,
    /// How it is opened.
    pub options: PipelineOptions,
}

/// Settings of a server. [`Config::default`] suits one machine and its own user.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on.
    pub host: IpAddr,
    /// The port; 0 picks a free one.
    pub port: u16,
    /// Keys that clients may show; none means that none is asked for.
    pub api_keys: Vec<String>,
    /// Listen beyond loopback without keys.
    pub allow_open: bool,
    /// Host names (without port) that requests may address, besides loopback's own names.
    pub allowed_hosts: Vec<String>,
    /// Run directories, or folders of them, whose curves the lab shows.
    pub runs: Vec<PathBuf>,
    /// Where spans of requests are sent.
    pub collector: Option<Collector>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what requests may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Time for a body to arrive.
    pub body_time: Duration,
    /// Time for the head of a request to arrive, and for a connection to stay without one.
    pub head_time: Duration,
    /// Time until an answer (or its stream) begins.
    pub request_time: Duration,
    /// Time for the work in flight after a signal.
    pub drain_time: Duration,
    /// Open connections.
    pub connections: usize,
    /// Requests of one client (key, or else address) at the same time.
    pub per_client: usize,
    /// Requests that wait for one model.
    pub queue: usize,
    /// Texts in one request.
    pub batch: usize,
    /// Characters of one text.
    pub text_chars: usize,
    /// Tokens that one request may generate.
    pub new_tokens: usize,
    /// Texts that are generated at the same time.
    pub rows: usize,
    /// Bytes of keys and values of one model.
    pub cache_bytes: usize,
    /// Tokens of all clients that go through an encoder together.
    pub batch_tokens: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 << 20,
            body_time: Duration::from_secs(20),
            head_time: Duration::from_secs(20),
            request_time: Duration::from_secs(120),
            drain_time: Duration::from_secs(30),
            connections: 1024,
            per_client: 256,
            queue: 256,
            batch: 256,
            text_chars: 200_000,
            new_tokens: 4096,
            rows: 32,
            cache_bytes: 1 << 30,
            // As many tokens as pipelines batch: the activations of a BERT-base layer stay within a large shared cache.
            batch_tokens: 2048,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 8080,
            api_keys: Vec::new(),
            allow_open: false,
            allowed_hosts: Vec::new(),
            runs: Vec::new(),
            collector: None,
            limits: Limits::default(),
        }
    }
}

/// Settings that contradict each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// An address that others can reach, and no key.
    #[error(
        "{host} can be reached from other machines, but there is no API key: give one (--api-key-file), or say --allow-open \
         when something in front checks who asks"
    )]
    Open {
        /// The address.
        host: IpAddr,
    },
    /// An empty key would let everyone in.
    #[error("an API key is empty or has white space: expected one key a line, without spaces")]
    Key,
    /// Two models of one name.
    #[error("two models are called {name}: give each a name of its own (--model NAME=DIR)")]
    Twice {
        /// The name.
        name: String,
    },
    /// A name that cannot be used.
    #[error("a model cannot be called {name:?}: use letters, digits, `-`, `_`, `.`, `/`")]
    Name {
        /// The name.
        name: String,
    },
    /// Nothing to serve.
    #[error("no model: give at least one (--model DIR)")]
    NoModel,
}

impl Config {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// [`ConfigError`] says what to change.
    pub fn validate(&self, models: &[ModelSource]) -> Result<(), ConfigError> {
        if !self.host.is_loopback() && self.api_keys.is_empty() && !self.allow_open {
            return Err(ConfigError::Open { host: self.host });
        }
        let bad = |key: &String| key.is_empty() || key.chars().any(char::is_whitespace);
        if self.api_keys.iter().any(bad) {
            return Err(ConfigError::Key);
        }
        if models.is_empty() {
            return Err(ConfigError::NoModel);
        }
        for (i, model) in models.iter().enumerate() {
            let name = model.name.clone();
            let fits = |c: char| c.is_alphanumeric() || "-_./@".contains(c);
            if name.is_empty() || !name.chars().all(fits) {
                return Err(ConfigError::Name { name });
            }
            if models[..i].iter().any(|other| other.name == name) {
                return Err(ConfigError::Twice { name });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> ModelSource {
        ModelSource {
            name: name.into(),
            directory: "dir".into(),
            draft: None,
            options: PipelineOptions::default(),
        }
    }

    #[test]
    fn an_open_address_needs_a_key_or_a_word() {
        let models = [source("a")];
        let open = Config {
            host: IpAddr::from([0, 0, 0, 0]),
            ..Config::default()
        };
        assert!(matches!(
            open.validate(&models),
            Err(ConfigError::Open { .. })
        ));
        let with_key = Config {
            api_keys: vec!["k".into()],
            ..open.clone()
        };
        assert_eq!(with_key.validate(&models), Ok(()));
        let said = Config {
            allow_open: true,
            ..open
        };
        assert_eq!(said.validate(&models), Ok(()));
        assert_eq!(Config::default().validate(&models), Ok(()));
    }

    #[test]
    fn names_are_checked() {
        let config = Config::default();
        let twice = config.validate(&[source("a"), source("a")]);
        assert_eq!(twice, Err(ConfigError::Twice { name: "a".into() }));
        assert!(config.validate(&[source("a b")]).is_err());
        assert_eq!(config.validate(&[]), Err(ConfigError::NoModel));
        let blank = Config {
            api_keys: vec![String::new()],
            ..config
        };
        assert_eq!(blank.validate(&[source("한")]), Err(ConfigError::Key));
    }
}
