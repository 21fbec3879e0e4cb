//! Keys and values of prompts that other prompts may begin with as well.

use std::collections::VecDeque;

use malmoi_models::KvCache;

/// Beginnings of finished prompts, the most recently used last.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    held: VecDeque<(Vec<u32>, KvCache)>,
    bytes: usize,
}

/// Number of ids that both begin with.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Prefixes {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the beginning `ids` of a text with its cache; one that is held already is only marked as used.
    pub(super) fn keep(&mut self, ids: &[u32], cache: KvCache, limit: usize) {
        if let Some(at) = self.held.iter().position(|(held, _)| held.starts_with(ids)) {
            self.touch(at);
            return;
        }
        // What the new one begins with is covered by it.
        self.held.retain(|(held, _)| !ids.starts_with(held));
        self.held.push_back((ids.to_vec(), cache));
        self.recount();
        while self.bytes > limit && self.forget() {}
    }

    /// The longest common beginning with `ids`, in whole pieces of `piece` ids, as a copy with room for `room` tokens.
    pub(super) fn find(
        &mut self,
        ids: &[u32],
        piece: usize,
        room: usize,
    ) -> Option<(usize, KvCache)> {
        let whole = |held: &[u32]| common(held, ids) / piece * piece;
        let (at, length) = (self.held.iter())
            .map(|(held, _)| whole(held))
            .enumerate()
            .max_by_key(|(_, length)| *length)
            .filter(|(_, length)| *length > 0)?;
        let found = self.held[at].1.prefix(0, length, room);
        self.touch(at);
        Some((length, found))
    }

    /// Drops the least recently used; whether there was one.
    pub(super) fn forget(&mut self) -> bool {
        let dropped = self.held.pop_front().is_some();
        self.recount();
        dropped
    }

    fn touch(&mut self, at: usize) {
        if let Some(entry) = self.held.remove(at) {
            self.held.push_back(entry);
        }
    }

    fn recount(&mut self) {
        self.bytes = self.held.iter().map(|(_, cache)| cache.bytes()).sum();
    }
}
