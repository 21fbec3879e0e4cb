//! Two segments in one sequence: packing, truncation, next sentence prediction (Devlin et al. 2019) and sentence order (Lan et
//! al. 2020).

use malmoi_kernels::random::Key;

use super::ObjectiveError;

/// A packed sequence with its segment ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedPair {
    /// `[CLS] A [SEP] B [SEP]`.
    pub ids: Vec<u32>,
    /// 0 up to and with the first `[SEP]`, 1 after it.
    pub segments: Vec<u32>,
}

impl PackedPair {
    /// The same padded to `length`: ids, segment ids and attention mask (1 = a real token).
    pub fn padded(&self, length: usize, pad_id: u32) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
        let mut ids = self.ids.clone();
        let mut segments = self.segments.clone();
        let mut mask = vec![1; self.ids.len()];
        ids.resize(length.max(ids.len()), pad_id);
        segments.resize(ids.len(), 0);
        mask.resize(ids.len(), 0);
        (ids, segments, mask)
    }
}

/// Lengths of `a` and `b` after the last token of the longer one (of `b` on a tie) has been dropped until `room` tokens are left.
pub fn truncated_lengths(a: usize, b: usize, room: usize) -> (usize, usize) {
    // Dropping from the longer side first levels the two, then alternates, beginning with b.
    let (mut a, mut b) = (a, b);
    let excess = (a + b).saturating_sub(room);
    let level = excess.min(a.abs_diff(b));
    if a > b {
        a -= level;
    } else {
        b -= level;
    }
    let rest = excess - level;
    (a - rest / 2, b - rest.div_ceil(2))
}

/// Packs `[CLS] A [SEP] B [SEP]` in at most `max_len` tokens, dropping from the end of the longer segment.
///
/// # Errors
/// [`ObjectiveError::NoRoom`] when `max_len` does not hold the three special tokens.
pub fn pack_pair(
    a: &[u32],
    b: &[u32],
    max_len: usize,
    cls_id: u32,
    sep_id: u32,
) -> Result<PackedPair, ObjectiveError> {
    let room = max_len
        .checked_sub(3)
        .ok_or(ObjectiveError::NoRoom { max_len, needed: 3 })?;
    let (keep_a, keep_b) = truncated_lengths(a.len(), b.len(), room);
    let mut ids = Vec::with_capacity(keep_a + keep_b + 3);
    ids.push(cls_id);
    ids.extend(&a[..keep_a]);
    ids.push(sep_id);
    let first = ids.len();
    ids.extend(&b[..keep_b]);
    ids.push(sep_id);
    let mut segments = vec![0; first];
    segments.resize(ids.len(), 1);
    Ok(PackedPair { ids, segments })
}

/// Packs `[CLS] A [SEP]` in at most `max_len` tokens, all of segment 0.
///
/// # Errors
/// [`ObjectiveError::NoRoom`] when `max_len` does not hold the two special tokens.
pub fn pack_single(
    a: &[u32],
    max_len: usize,
    cls_id: u32,
    sep_id: u32,
) -> Result<PackedPair, ObjectiveError> {
    let room = max_len
        .checked_sub(2)
        .ok_or(ObjectiveError::NoRoom { max_len, needed: 2 })?;
    let mut ids = vec![cls_id];
    ids.extend(&a[..a.len().min(room)]);
    ids.push(sep_id);
    let segments = vec![0; ids.len()];
    Ok(PackedPair { ids, segments })
}

/// Sentence order: the two segments, swapped or not, and the label (0 original, 1 swapped).
pub fn sentence_order<'a>(a: &'a [u32], b: &'a [u32], swap: bool) -> (&'a [u32], &'a [u32], u32) {
    if swap { (b, a, 1) } else { (a, b, 0) }
}

/// Two segments for next sentence prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextSentence {
    /// First segment.
    pub a: Vec<u32>,
    /// Second segment.
    pub b: Vec<u32>,
    /// 0: `b` follows `a` in its document; 1: `b` comes from another document (the published label).
    pub label: u32,
}

/// Next-sentence pairs of one document.
///
/// `document` is a list of sentences. Sentences are gathered until they fill `max_tokens` (A and B together, special tokens not
/// counted), then cut at a random place into A and B; with probability one half, B is replaced by text of another document and
/// the sentences not used are taken up again. `other(draw)` gives such a document for 64 random bits, or `None` when there is none:
/// then only true pairs come out. A document of one sentence is cut in the middle when it has no successor to offer.
/// `key` names the document and the pass over the data.
pub fn next_sentence_pairs<'a>(
    document: &[&[u32]],
    max_tokens: usize,
    key: Key,
    mut other: impl FnMut(u64) -> Option<Vec<&'a [u32]>>,
) -> Vec<NextSentence> {
    let mut pairs = Vec::new();
    let (mut start, mut draw) = (0usize, 0u64);
    let mut next = |n: u64| {
        draw += 1;
        key.below_at(draw, n)
    };
    while start < document.len() {
        let mut end = start;
        let mut length = 0;
        while end < document.len() && (end == start || length < max_tokens) {
            length += document[end].len();
            end += 1;
        }
        let count = end - start;
        // A ends after at least one and, where there are several, before the last sentence.
        let cut = if count >= 2 {
            1 + next(count as u64 - 1) as usize
        } else {
            count
        };
        let mut a: Vec<u32> = document[start..start + cut].concat();
        let stranger = if next(2) == 1 || count == 1 {
            other(next(u64::MAX))
        } else {
            None
        };
        let pair = match stranger.filter(|s| s.iter().any(|sentence| !sentence.is_empty())) {
            Some(stranger) => {
                let from = next(stranger.len() as u64) as usize;
                let room = max_tokens.saturating_sub(a.len()).max(1);
                let mut b = Vec::new();
                // Should the chosen place have only empty sentences after it, reading goes on at the beginning.
                for sentence in stranger[from..].iter().chain(&stranger[..from]) {
                    if b.len() >= room {
                        break;
                    }
                    b.extend_from_slice(sentence);
                }
                end = start + cut;
                NextSentence { a, b, label: 1 }
            }
            None if count >= 2 => {
                let b = document[start + cut..end].concat();
                NextSentence { a, b, label: 0 }
            }
            None => {
                let b = a.split_off(a.len().div_ceil(2));
                NextSentence { a, b, label: 0 }
            }
        };
        if !pair.a.is_empty() && !pair.b.is_empty() {
            pairs.push(pair);
        }
        start = end;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use malmoi_kernels::random::Purpose;

    use super::*;

    #[test]
    fn truncation_equals_dropping_one_token_at_a_time() {
        for a in 0..12 {
            for b in 0..12 {
                for room in 0..24 {
                    let (mut x, mut y) = (a, b);
                    while x + y > room {
                        if x > y { x -= 1 } else { y -= 1 }
                    }
                    assert_eq!(truncated_lengths(a, b, room), (x, y), "{a} {b} {room}");
                }
            }
        }
    }

    #[test]
    fn too_little_room_is_refused() {
        assert_eq!(
            pack_pair(&[1], &[2], 2, 0, 0),
            Err(ObjectiveError::NoRoom {
                max_len: 2,
                needed: 3
            })
        );
        assert!(pack_single(&[1], 1, 0, 0).is_err());
        assert_eq!(pack_single(&[5, 6, 7], 4, 2, 3).unwrap().ids, [2, 5, 6, 3]);
    }

    fn documents() -> Vec<Vec<Vec<u32>>> {
        // Token id = 1000 * document + position in the document.
        (0..40u32)
            .map(|d| {
                let mut position = 0;
                (0..12)
                    .map(|s| {
                        (0..3 + s % 5)
                            .map(|_| {
                                position += 1;
                                1000 * d + position
                            })
                            .collect()
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn half_of_the_pairs_follow_and_half_come_from_another_document() {
        let documents = documents();
        let borrow = |d: usize| {
            documents[d]
                .iter()
                .map(Vec::as_slice)
                .collect::<Vec<&[u32]>>()
        };
        let (mut follow, mut random) = (0, 0);
        for pass in 0..20 {
            for d in 0..documents.len() {
                let key = Key::new(3, Purpose::Pairing, pass).fold(d as u64);
                let pairs = next_sentence_pairs(&borrow(d), 20, key, |draw| {
                    let other =
                        (d + 1 + (draw % (documents.len() as u64 - 1)) as usize) % documents.len();
                    Some(borrow(other))
                });
                assert!(!pairs.is_empty());
                for pair in pairs {
                    assert!(pair.a.iter().all(|id| id / 1000 == d as u32));
                    if pair.label == 0 {
                        assert_eq!(pair.b[0], pair.a.last().unwrap() + 1);
                        follow += 1;
                    } else {
                        assert!(pair.b.iter().all(|id| id / 1000 != d as u32));
                        random += 1;
                    }
                }
            }
        }
        // The last piece of a document may be a single sentence, which has no successor: a little more than half are random.
        let share = f64::from(random) / f64::from(random + follow);
        assert!(
            (0.47..0.62).contains(&share),
            "{random} random, {follow} following"
        );
    }

    #[test]
    fn a_lone_document_gives_true_pairs_only() {
        let sentence = [1u32, 2, 3, 4, 5];
        let pairs =
            next_sentence_pairs(&[&sentence], 20, Key::new(0, Purpose::Pairing, 0), |_| None);
        assert_eq!(
            pairs,
            [NextSentence {
                a: vec![1, 2, 3],
                b: vec![4, 5],
                label: 0
            }]
        );
    }
}
