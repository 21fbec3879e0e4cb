//! Splitting work over threads so that the result has the same bits at any number of them.
//!
//! A piece of work is cut by its shape alone, and every piece is computed by the same code whichever thread takes it. The
//! kernels of a small model last tens of microseconds, so the pool is made for short pieces: its threads look for work for a
//! while before they sleep, and a job reaches an awake thread within about a microsecond. A job that would have to wait (the
//! pool is busy, or the caller is itself a piece of a job) runs on the calling thread.

mod pool;

use std::cell::Cell;
use std::sync::OnceLock;

use pool::Pool;

/// The pool cannot be changed once it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the thread pool already runs with {running} threads, so it cannot be set to {asked}; set the number of threads before the first computation"
)]
pub struct AlreadyRunning {
    /// Threads in the pool that runs.
    pub running: usize,
    /// Threads asked for.
    pub asked: usize,
}

static THREADS: OnceLock<usize> = OnceLock::new();
static POOL: Pool = Pool::new();

thread_local! {
    /// What [`with`] set for this thread.
    static LIMIT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Sets the number of threads that kernels use, the calling one included (0 means one a core). Call it once, before the
/// first kernel.
///
/// # Errors
/// When another number is in use already.
pub fn set(n: usize) -> Result<(), AlreadyRunning> {
    let wanted = if n == 0 { cores() } else { n };
    let running = *THREADS.get_or_init(|| wanted);
    if n == 0 || running == wanted {
        Ok(())
    } else {
        Err(AlreadyRunning { running, asked: n })
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Threads that kernels called from here use, the calling one included.
#[must_use]
pub fn count() -> usize {
    LIMIT.get().unwrap_or_else(|| *THREADS.get_or_init(cores))
}

/// Runs `f` with `n` threads (at least 1) for the kernels that it calls on this thread, whatever [`set`] said. What they
/// compute does not change.
pub fn with<R>(n: usize, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<usize>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let _restore = Restore(LIMIT.replace(Some(n.max(1))));
    f()
}

/// Work (in units of about one vector-free floating-point operation, 0.1–0.3 ns each when vectorised) below which a fan-out
/// costs more than it saves.
const FAN_OUT: usize = 50_000;

/// Calls `f(index)` for every index in `0..n`, in parallel when `n * cost` (operations) is worth it.
pub(crate) fn for_each(n: usize, cost: usize, f: impl Fn(usize) + Sync + Send) {
    let threads = count().min(n);
    if threads <= 1 || n.saturating_mul(cost) < FAN_OUT {
        (0..n).for_each(f);
    } else {
        POOL.run(threads, n, &f);
    }
}

/// Cuts `out` into chunks of `chunk` elements and calls `f(offset, chunk)` for each, in parallel when
/// `out.len() * cost` (operations) is worth it.
pub(crate) fn chunks_mut<T: Send>(
    out: &mut [T],
    chunk: usize,
    cost: usize,
    f: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    let (len, chunk) = (out.len(), chunk.max(1));
    let data = SharedMut::new(out);
    for_each(len.div_ceil(chunk), chunk.saturating_mul(cost), |index| {
        let offset = index * chunk;
        // SAFETY: every index has its own chunk.
        f(offset, unsafe {
            data.slice(offset, chunk.min(len - offset))
        });
    });
}

/// A pointer to elements (floats unless said otherwise) that several threads write through, each to its own. Builds with debug
/// assertions know where the slice ends and check every access.
#[derive(Debug)]
pub(crate) struct SharedMut<T = f32> {
    start: *mut T,
    #[cfg(debug_assertions)]
    bytes: usize,
}

impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<T> {}

// SAFETY: whoever writes through the pointer promises (at the write) that no other thread touches the same elements.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    pub(crate) fn new(slice: &mut [T]) -> SharedMut<T> {
        SharedMut {
            start: slice.as_mut_ptr(),
            #[cfg(debug_assertions)]
            bytes: size_of_val(slice),
        }
    }

    /// The same memory as elements of another type.
    pub(crate) fn cast<U>(self) -> SharedMut<U> {
        SharedMut {
            start: self.start.cast(),
            #[cfg(debug_assertions)]
            bytes: self.bytes,
        }
    }

    /// Stops a debug build when `end` elements are more than the slice has.
    #[inline(always)]
    #[cfg_attr(
        not(debug_assertions),
        allow(unused_variables, reason = "nothing to check")
    )]
    fn check(self, end: usize) {
        #[cfg(debug_assertions)]
        assert!(
            end * size_of::<T>() <= self.bytes,
            "an access that ends at element {end} of {}",
            self.bytes / size_of::<T>().max(1)
        );
    }

    /// The pointer to element `offset`.
    ///
    /// # Safety
    /// `offset` must lie within (or one past) the slice this was made from.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
        self.check(offset);
        // SAFETY: promised by the caller.
        unsafe { self.start.add(offset) }
    }

    /// The elements `offset .. offset + len` as a slice.
    ///
    /// # Safety
    /// The range must lie within the slice this was made from, and nobody else may touch it while the result lives.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [T] {
        self.check(offset + len);
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_index_is_visited_once_by_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            for n in [0, 1, 2, 7, 1000] {
                let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                with(threads, || {
                    for_each(n, FAN_OUT, |i| {
                        seen[i].fetch_add(1, Ordering::Relaxed);
                    });
                });
                assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_job_within_a_job_and_jobs_of_many_callers_are_done() {
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        with(3, || {
                            for_each(5, FAN_OUT, |_| {
                                for_each(3, FAN_OUT, |_| {
                                    total.fetch_add(1, Ordering::Relaxed);
                                });
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 200 * 15);
    }

    #[test]
    fn a_panic_in_a_piece_reaches_the_caller_and_the_pool_lives_on() {
        let result = std::panic::catch_unwind(|| {
            with(3, || {
                for_each(64, FAN_OUT, |i| assert!(i != 17, "piece 17"))
            });
        });
        assert!(result.is_err());
        let count = AtomicUsize::new(0);
        with(3, || {
            for_each(64, FAN_OUT, |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 64);
    }

    #[test]
    fn chunks_cover_the_slice() {
        let mut x = vec![0_u32; 1003];
        with(2, || {
            chunks_mut(&mut x, 10, FAN_OUT, |offset, chunk| {
                for (i, x) in chunk.iter_mut().enumerate() {
                    *x = (offset + i) as u32;
                }
            });
        });
        assert!(x.iter().enumerate().all(|(i, &x)| x == i as u32));
    }
}
