//! Edit distance and the error rates built on it.

use super::ratio;

/// Least number of insertions, deletions and substitutions that turn one sequence into the other.
pub fn distance<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn rate<T: PartialEq>(pairs: impl Iterator<Item = (Vec<T>, Vec<T>)>) -> f64 {
    let (mut edits, mut length) = (0, 0);
    for (hypothesis, reference) in pairs {
        edits += distance(&hypothesis, &reference);
        length += reference.len();
    }
    ratio(edits as f64, length as f64)
}

/// Word error rate over a corpus: edits per reference word.
pub fn word_error_rate<S: AsRef<str>>(hypotheses: &[S], references: &[S]) -> f64 {
    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace().collect()
    }
    rate(
        hypotheses
            .iter()
            .zip(references)
            .map(|(h, r)| (words(h.as_ref()), words(r.as_ref()))),
    )
}

/// Character error rate over a corpus: edits per reference character, spaces included.
pub fn character_error_rate<S: AsRef<str>>(hypotheses: &[S], references: &[S]) -> f64 {
    let letters = |text: &S| text.as_ref().chars().collect::<Vec<char>>();
    rate(
        hypotheses
            .iter()
            .zip(references)
            .map(|(h, r)| (letters(h), letters(r))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distances() {
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"abc", b""), 3);
        assert_eq!(distance(b"flaw", b"lawn"), 2);
    }
}
