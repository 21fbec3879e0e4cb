//! Names of models on a hub.

use std::fmt;

/// A model on a hub: `name` or `org/name`, with a revision (branch, tag or commit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    /// `org/name`, or `name` alone for a few old models.
    pub name: String,
    /// Branch, tag or commit; `main` unless given.
    pub revision: String,
}

impl HubId {
    /// Parses `org/name@revision`; the error is a phrase that says why it isn't an id.
    ///
    /// # Errors
    /// Why the text can't be a hub id.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 {
            return Err("a hub id has one slash at most");
        }
        for part in parts {
            if part.is_empty() {
                return Err("a part of the id is empty");
            }
            if !part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            {
                return Err("a hub id consists of letters, digits, `-`, `_` and `.`");
            }
            if part.starts_with(['.', '-'])
                || part.ends_with(['.', '-'])
                || part.contains("..")
                || part.contains("--")
            {
                return Err(
                    "a part of a hub id neither starts nor ends with `.` or `-`, nor doubles them",
                );
            }
        }
        if name.len() > 96 {
            return Err("a hub id has at most 96 characters");
        }
        // Revisions become paths below `refs`.
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        if !revision.split('/').all(plain) {
            return Err("after the `@` a branch, a tag or a commit is expected");
        }
        Ok(Self {
            name: name.to_string(),
            revision: revision.to_string(),
        })
    }

    /// Whether the revision is a full commit hash, whose content never changes.
    pub fn is_commit(&self) -> bool {
        is_commit(&self.revision)
    }

    /// Name of the model's directory in the cache.
    pub fn folder(&self) -> String {
        format!("models--{}", self.name.replace('/', "--"))
    }
}

/// Whether a string is a commit hash as hubs write it.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        let id = HubId::parse("klue/bert-base").unwrap();
        assert_eq!(
            (id.name.as_str(), id.revision.as_str()),
            ("klue/bert-base", "main")
        );
        assert_eq!(id.folder(), "models--klue--bert-base");
        let id = HubId::parse("gpt2@refs/pr/5").unwrap();
        assert_eq!(id.to_string(), "gpt2@refs/pr/5");
        let wrong = [
            "",
            "/",
            "a/",
            "/a",
            "./a",
            "../a",
            "a/b/c",
            "a b",
            "a/..",
            "말뭉치",
            "a@",
            "a@../b",
            "a@/b",
            "a@b//c",
            "-a/b",
            "a/b--c",
        ];
        for wrong in wrong {
            assert!(HubId::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(HubId::parse(&"a".repeat(97)).is_err());
    }
}
