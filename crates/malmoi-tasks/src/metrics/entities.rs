//! Named entities from tags such as `B-PER`, `I-PER` and `O`, and their precision and recall.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{PrecisionRecall, mean};

/// What counts as the beginning of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// An `I-` tag after `O` or another type begins an entity too (the CoNLL-2000 evaluation); `E-` ends one and `S-` is one.
    Lenient,
    /// IOB2 to the letter: an entity begins with `B-` and goes on with `I-` of the same type.
    Strict,
}

/// An entity: type, first and last token (both included).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity(
    /// The type.
    pub String,
    /// First token.
    pub usize,
    /// Last token.
    pub usize,
);

/// Prefix and type of a tag; a tag without a dash is a prefix alone.
fn split(tag: &str) -> (char, &str) {
    let mut rest = tag.chars();
    let prefix = rest.next().unwrap_or('O');
    (
        prefix,
        rest.as_str().strip_prefix('-').unwrap_or(rest.as_str()),
    )
}

/// The entities of one tag sequence, in order.
pub fn entities<T: AsRef<str>>(tags: &[T], scheme: Scheme) -> Vec<Entity> {
    let mut found = Vec::new();
    let mut open: Option<(String, usize)> = None;
    for (i, tag) in tags.iter().enumerate() {
        let (prefix, kind) = split(tag.as_ref());
        let same = open.as_ref().is_some_and(|(open, _)| open == kind);
        let goes_on =
            same && matches!(prefix, 'I') || same && scheme == Scheme::Lenient && prefix == 'E';
        if !goes_on && let Some((kind, start)) = open.take() {
            found.push(Entity(kind, start, i - 1));
        }
        let begins = match scheme {
            Scheme::Strict => prefix == 'B',
            Scheme::Lenient => {
                matches!(prefix, 'B' | 'S') || matches!(prefix, 'I' | 'E') && !goes_on
            }
        };
        if begins {
            open = Some((kind.to_owned(), i));
        }
        // The tag itself ends the entity.
        if scheme == Scheme::Lenient
            && matches!(prefix, 'E' | 'S')
            && let Some((kind, start)) = open.take()
        {
            found.push(Entity(kind, start, i));
        }
    }
    if let Some((kind, start)) = open {
        found.push(Entity(kind, start, tags.len() - 1));
    }
    found
}

/// Number of right, predicted and true entities of each type.
fn counts<T: AsRef<str>>(
    y_true: &[Vec<T>],
    y_pred: &[Vec<T>],
    scheme: Scheme,
) -> BTreeMap<String, [f64; 3]> {
    let mut counts: BTreeMap<String, [f64; 3]> = BTreeMap::new();
    for (t, p) in y_true.iter().zip(y_pred) {
        let (actual, predicted) = (entities(t, scheme), entities(p, scheme));
        for entity in &predicted {
            let count = counts.entry(entity.0.clone()).or_default();
            count[0] += f64::from(actual.contains(entity));
            count[1] += 1.0;
        }
        for entity in actual {
            counts.entry(entity.0).or_default()[2] += 1.0;
        }
    }
    counts
}

/// Over all entities of all sequences.
pub fn micro<T: AsRef<str>>(
    y_true: &[Vec<T>],
    y_pred: &[Vec<T>],
    scheme: Scheme,
) -> PrecisionRecall {
    let [right, predicted, actual] = counts(y_true, y_pred, scheme)
        .into_values()
        .fold([0.0; 3], |sum, count| {
            [sum[0] + count[0], sum[1] + count[1], sum[2] + count[2]]
        });
    PrecisionRecall::from_counts(right, predicted, actual)
}

/// Mean F1 of the types that occur.
pub fn macro_f1<T: AsRef<str>>(y_true: &[Vec<T>], y_pred: &[Vec<T>], scheme: Scheme) -> f64 {
    let counts = counts(y_true, y_pred, scheme);
    mean(counts.into_values().map(|[right, predicted, actual]| {
        PrecisionRecall::from_counts(right, predicted, actual).f1
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tags: &[&str], scheme: Scheme) -> Vec<(String, usize, usize)> {
        entities(tags, scheme)
            .into_iter()
            .map(|Entity(kind, first, last)| (kind, first, last))
            .collect()
    }

    #[test]
    fn a_change_of_type_splits_and_strict_tags_need_a_beginning() {
        let tags = ["I-PER", "I-LOC", "O", "B-LOC", "I-PER"];
        let loc = |a, b| ("LOC".to_owned(), a, b);
        let per = |a, b| ("PER".to_owned(), a, b);
        assert_eq!(
            found(&tags, Scheme::Lenient),
            [per(0, 0), loc(1, 1), loc(3, 3), per(4, 4)]
        );
        assert_eq!(found(&tags, Scheme::Strict), [loc(3, 3)]);
    }

    #[test]
    fn end_and_single_tags_are_understood() {
        let tags = ["B-X", "E-X", "I-X", "S-X", "S-X"];
        let x = |a, b| ("X".to_owned(), a, b);
        assert_eq!(
            found(&tags, Scheme::Lenient),
            [x(0, 1), x(2, 2), x(3, 3), x(4, 4)]
        );
    }
}
