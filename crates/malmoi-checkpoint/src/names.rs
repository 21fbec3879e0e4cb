//! Comparing the tensors a model expects with those a checkpoint has.

use std::collections::HashSet;
use std::fmt;

use crate::error::{Error, Result};
use crate::tensors::Tensors;

/// Differences that the user accepts. Both are errors by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AcceptNames {
    /// Expected tensors that the checkpoint lacks (they keep their initial values).
    pub missing: bool,
    /// Tensors of the checkpoint that nothing uses.
    pub unused: bool,
}

/// What was accepted, for telling the user. Both lists are empty when everything fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameMatch {
    /// Expected names that the checkpoint lacks, also the optional ones.
    pub missing: Vec<String>,
    /// Names of the checkpoint that nothing uses, also the optional ones.
    pub unused: Vec<String>,
}

/// A checkpoint that doesn't fit its model. The message lists up to [`SHOWN`](Self::SHOWN) of each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameMismatch {
    /// The checkpoint.
    pub origin: String,
    /// Expected names that aren't there and aren't accepted as missing.
    pub missing: Vec<String>,
    /// Names that nothing uses and that aren't accepted as unused.
    pub unused: Vec<String>,
    /// Name, expected shape and found shape.
    pub wrong_shape: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl NameMismatch {
    /// How many names of a kind a message lists before it counts the rest.
    pub const SHOWN: usize = 8;
}

impl fmt::Display for NameMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the tensors in {} don't fit the model", self.origin)?;
        let quoted = |names: &[String]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>();
        let shapes: Vec<String> = self
            .wrong_shape
            .iter()
            .map(|(name, expected, found)| {
                format!("`{name}` expected {expected:?}, found {found:?}")
            })
            .collect();
        list(
            f,
            "missing",
            &quoted(&self.missing),
            "accept with `--accept-missing-weights`",
        )?;
        list(
            f,
            "unused",
            &quoted(&self.unused),
            "accept with `--accept-unused-weights`",
        )?;
        list(
            f,
            "of another shape",
            &shapes,
            "make `config.json` fit the weights",
        )
    }
}

fn list(f: &mut fmt::Formatter<'_>, kind: &str, items: &[String], fix: &str) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    let shown = &items[..items.len().min(NameMismatch::SHOWN)];
    write!(f, "; {} {kind}: {}", items.len(), shown.join(", "))?;
    if items.len() > shown.len() {
        write!(f, " and {} more", items.len() - shown.len())?;
    }
    write!(f, " ({fix})")
}

/// Compares `found` with the names and shapes a model expects.
///
/// Names in `optional` may be absent although they are expected, and present although they aren't
/// (buffers that older writers saved, tied weights that are stored once or twice); when expected
/// and present, their shape must fit too.
///
/// # Errors
/// [`Error::Names`] listing all names that are missing, unused or of another shape.
pub fn match_names(
    expected: &[(String, Vec<usize>)],
    found: &Tensors,
    optional: &[String],
    accept: AcceptNames,
) -> Result<NameMatch> {
    let optional: HashSet<&str> = optional.iter().map(String::as_str).collect();
    let used: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let mut result = NameMatch::default();
    let mut wrong_shape = Vec::new();
    for (name, shape) in expected {
        match found.get(name) {
            None => result.missing.push(name.clone()),
            Some(view) if view.shape != shape => {
                wrong_shape.push((name.clone(), shape.clone(), view.shape.to_vec()));
            }
            Some(_) => {}
        }
    }
    result.unused = found
        .names()
        .filter(|name| !used.contains(name))
        .map(str::to_string)
        .collect();
    let refused = |names: &[String], accepted: bool| -> Vec<String> {
        names
            .iter()
            .filter(|name| !accepted && !optional.contains(name.as_str()))
            .cloned()
            .collect()
    };
    let missing = refused(&result.missing, accept.missing);
    let unused = refused(&result.unused, accept.unused);
    if missing.is_empty() && unused.is_empty() && wrong_shape.is_empty() {
        return Ok(result);
    }
    Err(Error::Names(Box::new(NameMismatch {
        origin: found.origin().to_string(),
        missing,
        unused,
        wrong_shape,
    })))
}
