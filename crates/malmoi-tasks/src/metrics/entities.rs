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

/// Precision, recall and F1 of every type that occurs, with the number of true entities, by name.
pub fn per_type<T: AsRef<str>>(
    y_true: &[Vec<T>],
    y_pred: &[Vec<T>],
    scheme: Scheme,
) -> Vec<(String, PrecisionRecall, usize)> {
    counts(y_true, y_pred, scheme)
        .into_iter()
        .map(|(kind, [right, predicted, actual])| {
            let values = PrecisionRecall::from_counts(right, predicted, actual);
            (kind, values, actual as usize)
        })
        .collect()
}

/// Mean F1 of the types that occur.
pub fn macro_f1<T: AsRef<str>>(y_true: &[Vec<T>], y_pred: &[Vec<T>], scheme: Scheme) -> f64 {
    let types = per_type(y_true, y_pred, scheme);
    mean(types.into_iter().map(|(_, values, _)| values.f1))
}

/// KLUE's character-level F1 (Park et al. 2021): the mean over the tags of `labels` (`O` among them) of each tag's F1 over all
/// characters; a tag that is neither true nor predicted anywhere counts 1, as in the benchmark's published evaluation.
pub fn character_macro_f1<T: AsRef<str>, L: AsRef<str>>(
    y_true: &[Vec<T>],
    y_pred: &[Vec<T>],
    labels: &[L],
) -> f64 {
    let mut counts: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    for (t, p) in y_true.iter().flatten().zip(y_pred.iter().flatten()) {
        let (t, p) = (t.as_ref(), p.as_ref());
        counts.entry(p).or_default()[0] += f64::from(t == p);
        counts.entry(p).or_default()[1] += 1.0;
        counts.entry(t).or_default()[2] += 1.0;
    }
    mean(labels.iter().map(|label| match counts.get(label.as_ref()) {
        Some(&[right, predicted, actual]) => {
            PrecisionRecall::from_counts(right, predicted, actual).f1
        }
        None => 1.0,
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
    fn characters_are_averaged_over_all_tags_and_an_absent_tag_counts_one() {
        // scikit-learn 1.7: f1_score(t, p, labels=["B-PS", "I-PS", "B-LC", "O"], average="macro", zero_division=1.0).
        let t = [vec!["B-PS", "I-PS", "O", "O"], vec!["O", "B-PS"]];
        let p = [vec!["B-PS", "O", "O", "O"], vec!["I-PS", "B-PS"]];
        let labels = ["B-PS", "I-PS", "B-LC", "O"];
        let expected = (1.0 + 0.0 + 1.0 + 2.0 / 3.0) / 4.0;
        assert!((character_macro_f1(&t, &p, &labels) - expected).abs() < 1e-12);
        assert_eq!(character_macro_f1(&t, &t, &labels), 1.0);
    }

    #[test]
    fn types_are_scored_apart() {
        let t = [vec!["B-PS", "I-PS", "O", "B-LC"]];
        let p = [vec!["B-PS", "I-PS", "B-LC", "B-LC"]];
        let found = per_type(&t, &p, Scheme::Strict);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].0.as_str(), found[0].1.precision, found[0].2),
            ("LC", 0.5, 1)
        );
        assert_eq!(
            (found[1].0.as_str(), found[1].1.f1, found[1].2),
            ("PS", 1.0, 1)
        );
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
