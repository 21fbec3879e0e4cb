//! Which example of an epoch comes when.

use std::sync::{Arc, Mutex};

use malmoi_kernels::random::{Key, Purpose};

/// A fresh random order of `0..n` for every epoch. The orders of the two epochs used last are remembered.
#[derive(Debug)]
pub(crate) struct EpochOrder {
    n: usize,
    recent: Mutex<Vec<(SeedAndEpoch, Arc<[u32]>)>>,
}

type SeedAndEpoch = (u64, u64);

impl EpochOrder {
    pub(crate) fn new(n: usize) -> Self {
        Self {
            n,
            recent: Mutex::new(Vec::new()),
        }
    }

    /// Epoch of example `number` and its place in the text.
    pub(crate) fn place(&self, seed: u64, number: u64) -> (u64, usize) {
        let (epoch, at) = (number / self.n as u64, (number % self.n as u64) as usize);
        // A panic elsewhere leaves the list as it was, so a poisoned lock is still good.
        let mut recent = self
            .recent
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, order)) = recent.iter().find(|(key, _)| *key == (seed, epoch)) {
            return (epoch, order[at] as usize);
        }
        let order: Arc<[u32]> = Key::new(seed, Purpose::Shuffle, epoch)
            .permutation(self.n)
            .into();
        let place = order[at] as usize;
        recent.insert(0, ((seed, epoch), order));
        recent.truncate(2);
        (epoch, place)
    }
}
