//! A compact byte trie for looking up every prefix of a text that is in a vocabulary.

/// A trie over byte strings; each key carries its index in the list it was built from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trie {
    /// Node `n` has the edges `first[n]..first[n + 1]`.
    first: Vec<u32>,
    /// Label of each edge, ascending inside a node.
    labels: Vec<u8>,
    /// Node each edge leads to.
    targets: Vec<u32>,
    /// Key that ends at a node, or `NONE`.
    keys: Vec<u32>,
    /// Edges of the root by label (`NONE`: no edge): most searches end there.
    root: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Trie {
    /// Builds the trie. Keys may come in any order; of equal keys the first one wins.
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = (&'a [u8], u32)>) -> Self {
        let mut sorted: Vec<(&[u8], u32)> = keys.into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(b.0).then(a.1.cmp(&b.1)));
        sorted.dedup_by(|later, earlier| later.0 == earlier.0);
        // Breadth first: each entry is a node that still needs its edges, with the keys below it and its depth.
        let mut trie = Self::default();
        let mut queue = std::collections::VecDeque::from([(0_usize, sorted.len(), 0_usize)]);
        let mut nodes = 1_u32;
        while let Some((mut from, to, depth)) = queue.pop_front() {
            trie.first.push(trie.labels.len() as u32);
            let ends_here = from < to && sorted[from].0.len() == depth;
            trie.keys
                .push(if ends_here { sorted[from].1 } else { NONE });
            from += usize::from(ends_here);
            while from < to {
                let label = sorted[from].0[depth];
                let end = from + sorted[from..to].partition_point(|key| key.0[depth] == label);
                trie.labels.push(label);
                trie.targets.push(nodes);
                nodes += 1;
                queue.push_back((from, end, depth + 1));
                from = end;
            }
        }
        trie.first.push(trie.labels.len() as u32);
        trie.root = vec![NONE; 256];
        for edge in 0..trie.first[1] as usize {
            trie.root[usize::from(trie.labels[edge])] = trie.targets[edge];
        }
        trie
    }

    /// Calls `found(length, key)` for every key that is a prefix of `text`, shortest first.
    pub(crate) fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let mut node = 0_usize;
        for (depth, &byte) in text.iter().enumerate() {
            let next = if depth == 0 {
                self.root[usize::from(byte)]
            } else {
                let edges = self.first[node] as usize..self.first[node + 1] as usize;
                match self.labels[edges.clone()].binary_search(&byte) {
                    Ok(at) => self.targets[edges.start + at],
                    Err(_) => NONE,
                }
            };
            if next == NONE {
                return;
            }
            node = next as usize;
            if self.keys[node] != NONE {
                found(depth + 1, self.keys[node]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Trie;

    #[test]
    fn finds_every_prefix_shortest_first() {
        let words = ["a", "abc", "b", "한", "한국", "abd"];
        let trie = Trie::new(
            words
                .iter()
                .enumerate()
                .map(|(i, w)| (w.as_bytes(), i as u32)),
        );
        let find = |text: &str| {
            let mut hits = Vec::new();
            trie.prefixes(text.as_bytes(), |n, key| hits.push((n, key)));
            hits
        };
        assert_eq!(find("abcd"), [(1, 0), (3, 1)]);
        assert_eq!(find("한국어"), [(3, 3), (6, 4)]);
        assert_eq!(find("ㅋ"), []);
        assert_eq!(find(""), []);
        let empty = Trie::new([]);
        let mut hits = 0;
        empty.prefixes(b"abc", |_, _| hits += 1);
        assert_eq!(hits, 0);
    }
}
