//! Memory for the outputs of operations, kept between steps.
//!
//! Every kernel overwrites its output, so a fresh vector would be zeroed for nothing, and large ones would come as new pages
//! from the system: together 10 to 15 % of a training step of a small model. A buffer that has done its work comes back
//! here instead and is handed out again as it is.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use malmoi_kernels::mixed::bf16;

/// Elements of each type kept for later at most: what a training step of a model with some hundred million parameters hands
/// back, gradients included. Memory beyond it goes back to the allocator, and comes as new pages the next time, which cost as much
/// as the product that fills them.
const LIMIT: usize = 256 << 20;

/// A buffer may be longer than what is asked for by one part in so many: batches of whole sequences have more tokens and fewer, and
/// the buffers of the longest one serve all that are not much shorter.
const LONGER: usize = 2;

/// Below this many elements the allocator is as fast.
const SMALL: usize = 1024;

/// Free buffers of one type.
#[doc(hidden)]
#[derive(Debug)]
pub struct Free<T> {
    /// By capacity; each with the period in which it came back.
    buffers: BTreeMap<usize, Vec<(u64, Vec<T>)>>,
    elements: usize,
    /// Calls of [`release_idle`] so far.
    period: u64,
}

impl<T> Free<T> {
    const fn new() -> Mutex<Free<T>> {
        Mutex::new(Free {
            buffers: BTreeMap::new(),
            elements: 0,
            period: 0,
        })
    }

    /// The smallest buffer of at least `len` elements and at most `slack` more.
    fn take(&mut self, len: usize, slack: usize) -> Option<Vec<T>> {
        let (&found, same) = self.buffers.range_mut(len..=len + slack).next()?;
        let (_, buffer) = same.pop()?;
        if same.is_empty() {
            self.buffers.remove(&found);
        }
        self.elements -= found;
        Some(buffer)
    }

    /// Takes the longest buffer away that was too short for `len`, but would have done for what is little shorter: the one that is made in its
    /// place will do for both. So the buffers that are kept are those of a step for each range of lengths, not for each length.
    fn outgrown(&mut self, len: usize) -> Option<Vec<T>> {
        let (&found, same) = self.buffers.range_mut(len - len / 3..len).next_back()?;
        let (_, buffer) = same.pop()?;
        if same.is_empty() {
            self.buffers.remove(&found);
        }
        self.elements -= found;
        Some(buffer)
    }

    fn give(&mut self, buffer: Vec<T>) {
        let size = buffer.capacity();
        if self.elements + size <= LIMIT {
            self.elements += size;
            let same = self.buffers.entry(size).or_default();
            same.push((self.period, buffer));
        }
    }

    /// Takes the buffers away that have lain here since before the last call. Of equal ones the last to come back is the first to be handed out,
    /// so that those nobody needs stay behind.
    fn idle(&mut self) -> Vec<Vec<T>> {
        let period = self.period;
        let mut idle = Vec::new();
        for same in self.buffers.values_mut() {
            let kept = same.partition_point(|(since, _)| *since < period);
            idle.extend(same.drain(..kept).map(|(_, buffer)| buffer));
        }
        self.buffers.retain(|_, same| !same.is_empty());
        self.elements -= idle.iter().map(Vec::capacity).sum::<usize>();
        self.period += 1;
        idle
    }
}

static F32: Mutex<Free<f32>> = Free::new();
static BF16: Mutex<Free<bf16>> = Free::new();

/// A number that buffers hold.
pub trait Number: Copy + Default + 'static {
    /// Runs `f` on the free buffers of this type.
    #[doc(hidden)]
    fn with_free<R>(f: impl FnOnce(&mut Free<Self>) -> R) -> R;
}

impl Number for f32 {
    fn with_free<R>(f: impl FnOnce(&mut Free<f32>) -> R) -> R {
        f(&mut F32.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Number for bf16 {
    fn with_free<R>(f: impl FnOnce(&mut Free<bf16>) -> R) -> R {
        f(&mut BF16.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A buffer of `len` elements with arbitrary contents, for a kernel that overwrites all of it.
#[must_use]
pub fn take<T: Number>(len: usize) -> Vec<T> {
    within(len, len / LONGER)
}

thread_local! {
    /// See [`frugally`].
    static FRUGAL: Cell<bool> = const { Cell::new(false) };
}

/// The same for the gradient of a parameter, which may lie in a buffer of up to twice its size: in the backward pass activations leave
/// buffers behind that nothing else of this step will ask for.
#[must_use]
pub fn take_for_gradient(len: usize) -> Vec<f32> {
    within(len, if FRUGAL.get() { len / 8 } else { len })
}

/// Runs `f` with gradients in buffers of their own size: where a block's activations are computed again, the next block needs the
/// buffers that this one leaves.
pub(crate) fn frugally<R>(f: impl FnOnce() -> R) -> R {
    let before = FRUGAL.replace(true);
    let result = f();
    FRUGAL.set(before);
    result
}

fn within<T: Number>(len: usize, slack: usize) -> Vec<T> {
    if len < SMALL {
        return vec![T::default(); len];
    }
    let (found, outgrown) = T::with_free(|free| match free.take(len, slack) {
        Some(buffer) => (Some(buffer), None),
        None => (None, free.outgrown(len)),
    });
    drop(outgrown);
    match found {
        Some(mut buffer) => {
            // One that was cut has to be filled again where it was.
            buffer.resize(len, T::default());
            buffer
        }
        None => vec![T::default(); len],
    }
}

/// A buffer of `len` zeros, for a kernel that adds to it.
#[must_use]
pub fn zeroed(len: usize) -> Vec<f32> {
    let mut buffer = take(len);
    malmoi_kernels::optim::fill(&mut buffer, 0.0);
    buffer
}

/// Gives the memory of all buffers back that were not in use since the last call. Who works through a stream calls it now and then: batches of
/// many sizes have buffers of many sizes, and what is kept would otherwise grow with the variety that has been seen.
pub fn release_idle() {
    // Freed after the lock is.
    drop(f32::with_free(Free::idle));
    drop(bf16::with_free(Free::idle));
}

/// Bytes of the buffers that wait to be used again.
#[must_use]
pub fn kept_bytes() -> usize {
    let f32s = f32::with_free(|free| free.elements);
    let bf16s = bf16::with_free(|free| free.elements);
    f32s * size_of::<f32>() + bf16s * size_of::<bf16>()
}

/// Takes back a buffer that nobody needs any more.
pub fn give<T: Number>(buffer: Vec<T>) {
    if buffer.len() >= SMALL {
        T::with_free(|free| free.give(buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_take_buffers_of_up_to_twice_their_size() {
        let odd = 3_456_789;
        let buffer: Vec<f32> = take(odd);
        let at = buffer.as_ptr();
        give(buffer);
        let fresh: Vec<f32> = take(odd / 2 + 1);
        assert_ne!(fresh.as_ptr(), at);
        let cut = take_for_gradient(odd / 2 + 1);
        assert_eq!((cut.len(), cut.as_ptr()), (odd / 2 + 1, at));
        give(cut);
        let whole: Vec<f32> = take(odd);
        assert_eq!((whole.len(), whole.as_ptr()), (odd, at), "whole again");
    }

    #[test]
    fn lengths_that_differ_by_less_than_half_share_their_buffers() {
        let free = Free::<f32>::new();
        let mut free = free.lock().unwrap();
        let mut made = Vec::new();
        // Tokens of batches of whole sequences, each with three outputs of a width and one of four times that.
        for (step, tokens) in [689, 795, 628, 876, 590, 640, 876, 601, 777]
            .into_iter()
            .enumerate()
        {
            let lengths = [1, 1, 1, 4].map(|width| width * tokens);
            let buffers = lengths.map(|len| {
                free.take(len, len / LONGER).unwrap_or_else(|| {
                    made.push(step);
                    drop(free.outgrown(len));
                    Vec::with_capacity(len)
                })
            });
            buffers.into_iter().for_each(|buffer| free.give(buffer));
        }
        assert_eq!(free.elements, 7 * 876);
        assert_eq!(
            made,
            [0, 0, 0, 0, 1, 1, 1, 1, 3, 3, 3, 3],
            "none after the longest"
        );
    }

    #[test]
    fn buffers_of_sizes_that_do_not_come_again_are_given_back() {
        let free = Free::<f32>::new();
        let mut free = free.lock().unwrap();
        // Windows of a stream: two full batches, and a last one of any size.
        let mut kept = Vec::new();
        for window in 0..200 {
            for tokens in [4096, 4000, 100 + window * 1987 % 4000] {
                let lengths = [1, 1, 1, 4].map(|width| width * tokens);
                let buffers = lengths.map(|len| {
                    free.take(len, len / LONGER).unwrap_or_else(|| {
                        drop(free.outgrown(len));
                        Vec::with_capacity(len)
                    })
                });
                buffers.into_iter().for_each(|buffer| free.give(buffer));
            }
            drop(free.idle());
            kept.push(free.elements);
            let counted: usize = (free.buffers.iter())
                .map(|(size, same)| size * same.len())
                .sum();
            assert_eq!(counted, free.elements, "window {window}");
        }
        // The full batches and one smaller one: never more than two sets of seven widths.
        assert!(kept.iter().all(|&kept| kept <= 2 * 7 * 4096), "{kept:?}");
        // What a full batch needs stays.
        assert!(kept.iter().all(|&kept| kept >= 7 * 4096), "{kept:?}");
        // And a pool at rest becomes empty.
        drop(free.idle());
        assert_eq!((free.elements, free.buffers.len()), (0, 0));
    }

    #[test]
    fn buffers_come_back_by_length_and_never_shorter_than_asked_for() {
        // Lengths that no other test uses.
        let odd = 1_234_567;
        let mut buffer: Vec<f32> = take(odd);
        buffer[7] = 3.0;
        let at = buffer.as_ptr();
        give(buffer);
        let shorter = take::<f32>(odd - 1000);
        assert_eq!((shorter.len(), shorter.as_ptr()), (odd - 1000, at));
        let longer: Vec<f32> = take(odd + 1);
        assert_ne!(longer.as_ptr(), at, "a shorter buffer is not enough");
        give(shorter);
        let whole: Vec<f32> = take(odd);
        assert_eq!(whole.as_ptr(), at, "it has not shrunk");
        assert_eq!(take::<bf16>(odd / 2).len(), odd / 2);
    }
}
