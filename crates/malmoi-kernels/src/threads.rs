//! Splitting work over threads so that the result has the same bits at any number of them.
//!
//! The pool is rayon's. A piece of work is cut by its shape alone, and every piece is computed by the same code whichever
//! thread takes it. Work too small to pay for waking a thread (about 10 µs) stays on the calling thread; that choice, too, is
//! made by shape alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;

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

/// Starts the global pool with `n` threads (0 means one a core). Call it once, before the first kernel.
///
/// # Errors
/// When the pool already runs with another number of threads.
pub fn set(n: usize) -> Result<(), AlreadyRunning> {
    match rayon::ThreadPoolBuilder::new()
        .num_threads(n)
        .build_global()
    {
        Ok(()) => Ok(()),
        Err(_) if n == 0 || count() == n => Ok(()),
        Err(_) => Err(AlreadyRunning {
            running: count(),
            asked: n,
        }),
    }
}

/// Threads in the pool that the calling thread uses.
#[must_use]
pub fn count() -> usize {
    rayon::current_num_threads()
}

/// Runs `f` on a thread of the pool. A kernel called from inside the pool starts its parallel work several microseconds
/// sooner than one called from outside, which matters to small models: run a whole training step or a server's worker in here.
pub fn run<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Work (in units of about one vector-free floating-point operation, 0.1–0.3 ns each when vectorised) below which a fan-out costs more than it saves.
const FAN_OUT: usize = 200_000;

/// How long an idle thread of the pool looks for work before it sleeps. Waking a sleeping thread takes 50 µs and more on a
/// virtual machine, as long as a whole kernel of a small model; the serial work between two kernels is shorter than this.
const AWAKE: Duration = Duration::from_millis(1);

/// Threads that are being kept awake.
static AWAKE_THREADS: AtomicUsize = AtomicUsize::new(0);

/// Keeps the other threads of the pool looking for work for a while after the last piece they had, so that the kernels of
/// one step find them awake. What is computed does not change. The time limit also makes nesting safe: a thread that meets
/// this job while it waits for another one loses that time and no more.
fn keep_awake() {
    let others = rayon::current_num_threads() - 1;
    if AWAKE_THREADS.load(Ordering::Relaxed) >= others {
        return;
    }
    AWAKE_THREADS.fetch_add(1, Ordering::Relaxed);
    let caller = rayon::current_thread_index();
    rayon::spawn(move || {
        // The calling thread has work of its own.
        if caller.is_none() || rayon::current_thread_index() != caller {
            look_for_work();
        }
        AWAKE_THREADS.fetch_sub(1, Ordering::Relaxed);
    });
}

fn look_for_work() {
    let mut last = Instant::now();
    loop {
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => last = Instant::now(),
            Some(rayon::Yield::Idle) if last.elapsed() < AWAKE => std::hint::spin_loop(),
            _ => return,
        }
    }
}

/// Calls `f(index)` for every index in `0..n`, in parallel when `n * cost` (operations) is worth it.
pub(crate) fn for_each(n: usize, cost: usize, f: impl Fn(usize) + Sync + Send) {
    if n <= 1 || n.saturating_mul(cost) < FAN_OUT {
        (0..n).for_each(f);
    } else {
        keep_awake();
        (0..n).into_par_iter().with_max_len(1).for_each(f);
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
    let chunk = chunk.max(1);
    if out.len() <= chunk || out.len().saturating_mul(cost) < FAN_OUT {
        for (index, piece) in out.chunks_mut(chunk).enumerate() {
            f(index * chunk, piece);
        }
    } else {
        keep_awake();
        out.par_chunks_mut(chunk)
            .enumerate()
            .for_each(|(index, piece)| f(index * chunk, piece));
    }
}

/// A pointer to floats that several threads write through, each to its own elements.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut(*mut f32);

// SAFETY: whoever writes through the pointer promises (at the write) that no other thread touches the same elements.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    pub(crate) fn new(slice: &mut [f32]) -> SharedMut {
        SharedMut(slice.as_mut_ptr())
    }

    /// The pointer to element `offset`.
    ///
    /// # Safety
    /// `offset` must lie within (or one past) the slice this was made from.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: promised by the caller.
        unsafe { self.0.add(offset) }
    }

    /// The elements `offset .. offset + len` as a slice.
    ///
    /// # Safety
    /// The range must lie within the slice this was made from, and nobody else may touch it while the result lives.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(offset), len) }
    }
}
