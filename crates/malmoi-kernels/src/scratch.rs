//! Working memory that every thread keeps between calls, so that packing does not ask the system for pages each time.

use std::cell::RefCell;

/// A cache line of floats; the alignment is what matters.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of floats, aligned to cache lines, that goes back to its thread when dropped. Its contents are whatever the last
/// user left.
pub(crate) struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

/// Borrows a buffer of `len` floats with arbitrary contents.
///
/// A thread that waits for parallel work may take up another piece of work meanwhile, so buffers are handed out from a stack
/// of free ones and never shared.
pub(crate) fn scratch(len: usize) -> Scratch {
    let needed = len.div_ceil(16);
    let mut lines = FREE.with_borrow_mut(|free| take_best(free, needed));
    if lines.len() < needed {
        lines.resize(needed, Line([0.0; 16]));
    }
    Scratch { lines, len }
}

/// The smallest free buffer that is large enough, else the largest (which then grows), so that a few sizes in turn do not make
/// every buffer as large as the largest.
fn take_best(free: &mut Vec<Vec<Line>>, needed: usize) -> Vec<Line> {
    let place = (0..free.len()).min_by_key(|&i| {
        let len = free[i].len();
        if len >= needed {
            (false, len)
        } else {
            (true, usize::MAX - len)
        }
    });
    place.map_or_else(Vec::new, |i| free.swap_remove(i))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // At thread exit the stack may be gone already; then the memory is simply freed.
        let _ = FREE.try_with(|free| free.borrow_mut().push(lines));
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the lines are `len` floats or more, initialised, one after the other (repr(C), size 64, alignment 64).
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_have_the_length_asked_for_and_are_reused_by_size() {
        let (small, large) = (scratch(100), scratch(10_000));
        assert_eq!((small.len(), large.len()), (100, 10_000));
        assert!((small.as_ptr() as usize).is_multiple_of(64));
        let (at_small, at_large) = (small.as_ptr(), large.as_ptr());
        drop(small);
        drop(large);
        assert_eq!(scratch(90).as_ptr(), at_small);
        assert_eq!(scratch(9000).as_ptr(), at_large);
        assert_eq!(scratch(0).len(), 0);
    }
}
