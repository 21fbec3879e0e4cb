//! Memory for the outputs of operations, kept between steps.
//!
//! Every kernel overwrites its output, so a fresh vector would be zeroed for nothing, and large ones would come as new pages
//! from the system: together 10 to 15 % of a training step of a small model. A buffer that has done its work comes back
//! here instead and is handed out again as it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Elements kept for later at most (256 MiB): enough for what one step of a small model, or one layer of a large one, uses at a
/// time. Beyond it memory goes back to the allocator, so that peaks do not add up.
const LIMIT: usize = 64 << 20;

/// Below this many elements the allocator is as fast.
const SMALL: usize = 1024;

struct Free {
    /// Free buffers by length.
    buffers: BTreeMap<usize, Vec<Vec<f32>>>,
    elements: usize,
}

static FREE: Mutex<Free> = Mutex::new(Free {
    buffers: BTreeMap::new(),
    elements: 0,
});

/// A buffer of `len` elements with arbitrary contents, for a kernel that overwrites all of it.
#[must_use]
pub fn take(len: usize) -> Vec<f32> {
    if len >= SMALL {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // Slightly longer ones do as well: lengths vary when sequences do.
        let found = free.buffers.range(len..=len + len / 8).next();
        if let Some(found) = found.map(|(&found, _)| found) {
            let same = free.buffers.get_mut(&found).expect("found above");
            let mut buffer = same.pop().expect("no empty lists are kept");
            if same.is_empty() {
                free.buffers.remove(&found);
            }
            free.elements -= found;
            buffer.truncate(len);
            return buffer;
        }
    }
    vec![0.0; len]
}

/// Takes back a buffer that nobody needs any more.
pub fn give(buffer: Vec<f32>) {
    let len = buffer.len();
    if len < SMALL {
        return;
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if free.elements + len <= LIMIT {
        free.elements += len;
        free.buffers.entry(len).or_default().push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_by_length_and_never_shorter_than_asked_for() {
        // Lengths that no other test uses.
        let odd = 1_234_567;
        let mut buffer = take(odd);
        buffer[7] = 3.0;
        let at = buffer.as_ptr();
        give(buffer);
        let shorter = take(odd - 1000);
        assert_eq!((shorter.len(), shorter.as_ptr()), (odd - 1000, at));
        give(shorter);
        let other = take(odd);
        assert_ne!(other.as_ptr(), at, "a shorter buffer is not enough");
        assert_eq!(take(odd / 2).len(), odd / 2);
    }
}
