//! What a forward pass knows beside its inputs: whether it trains, and the keys of its dropout masks.

use std::cell::Cell;

use malmoi_kernels::random::Key;

/// One forward pass. Dropout sites are numbered in the order in which the model meets them, so that each has a mask of
/// its own that depends on the key and on nothing else.
#[derive(Debug)]
pub struct Pass {
    key: Option<Key>,
    sites: Cell<u64>,
    recompute: bool,
}

impl Pass {
    /// Without dropout.
    pub fn inference() -> Self {
        Self {
            key: None,
            sites: Cell::new(0),
            recompute: false,
        }
    }

    /// With dropout; `key` belongs to one micro-batch of one step.
    pub fn training(key: Key) -> Self {
        Self {
            key: Some(key),
            sites: Cell::new(0),
            recompute: false,
        }
    }

    /// The same; with `recompute` blocks keep their inputs alone and are computed again in the backward pass. Nothing but time and
    /// memory changes.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    /// Whether blocks are computed again.
    pub fn recomputes(&self) -> bool {
        self.recompute
    }

    /// The pass as it is now: the copy meets the same dropout sites that this one meets from here on.
    pub(crate) fn fork(&self) -> Self {
        Self {
            key: self.key,
            sites: self.sites.clone(),
            recompute: false,
        }
    }

    /// Probability and key of the next dropout site; `None` when nothing is dropped there.
    pub fn dropout(&self, p: f32) -> Option<(f32, Key)> {
        let site = self.sites.get();
        self.sites.set(site + 1);
        self.key.filter(|_| p > 0.0).map(|key| (p, key.fold(site)))
    }
}
