//! The threads behind [`super::for_each`]: one job at a time, handed over through one word of memory.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long an idle thread looks for work before it sleeps. Waking a sleeping thread takes 50 µs and more on a virtual
/// machine, as long as a whole kernel of a small model; the serial work between two kernels is shorter than this.
const AWAKE: Duration = Duration::from_millis(1);

/// In [`Pool::state`]: a job is there to be joined. Below it, the number of threads that joined; above it, the job's number.
const OPEN: u64 = 1 << 16;
const NUMBER: u64 = 1 << 17;

/// What the threads that join a job need to know.
#[derive(Clone, Copy)]
struct Job {
    /// The piece of work; valid while the job is open or a thread has joined it.
    f: *const (dyn Fn(usize) + Sync),
    n: usize,
    /// Threads that may work on it, the caller included.
    threads: usize,
}

#[repr(align(128))]
struct Aligned<T>(T);

/// See the module's head.
pub(super) struct Pool {
    /// Job number, [`OPEN`], joined threads.
    state: Aligned<AtomicU64>,
    /// The next index to be computed.
    next: Aligned<AtomicUsize>,
    /// Threads that sleep or are about to.
    sleeping: Aligned<AtomicUsize>,
    /// Whether a caller is using the pool.
    busy: AtomicBool,
    panicked: AtomicBool,
    job: UnsafeCell<Option<Job>>,
    workers: Mutex<Vec<Thread>>,
}

// SAFETY: `job` is written only by the caller that holds `busy` while no thread has joined, and read only by threads that
// have joined, which the state word orders.
unsafe impl Sync for Pool {}

impl Pool {
    pub(super) const fn new() -> Pool {
        Pool {
            state: Aligned(AtomicU64::new(0)),
            next: Aligned(AtomicUsize::new(0)),
            sleeping: Aligned(AtomicUsize::new(0)),
            busy: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            workers: Mutex::new(Vec::new()),
        }
    }

    /// Calls `f` for every index in `0..n` on at most `threads` threads, this one among them.
    pub(super) fn run(&'static self, threads: usize, n: usize, f: &(dyn Fn(usize) + Sync)) {
        if self.busy.swap(true, Ordering::Acquire) {
            (0..n).for_each(f);
            return;
        }
        let release = Release(self);
        self.panicked.store(false, Ordering::Relaxed);
        self.grow(threads - 1);
        // SAFETY: only the lifetime changes; nobody uses the pointer after `close`, which happens before this returns.
        let f_static: *const (dyn Fn(usize) + Sync) = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(
                f,
            )
        };
        // SAFETY: this caller holds `busy`, and no thread has joined: the last job was closed.
        unsafe {
            *self.job.get() = Some(Job {
                f: f_static,
                n,
                threads,
            });
        }
        self.next.0.store(0, Ordering::Relaxed);
        let state = self.state.0.load(Ordering::Relaxed);
        let open = (state & !(NUMBER - 1)).wrapping_add(NUMBER) | OPEN;
        self.state.0.store(open, Ordering::SeqCst);
        if self.sleeping.0.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
        let close = Close(self);
        self.work(f, n);
        drop(close);
        let panicked = self.panicked.load(Ordering::Relaxed);
        drop(release);
        assert!(!panicked, "a piece of parallel work panicked");
    }

    /// Takes indices until none is left.
    fn work(&self, f: &(dyn Fn(usize) + Sync), n: usize) {
        loop {
            let index = self.next.0.fetch_add(1, Ordering::Relaxed);
            if index >= n {
                return;
            }
            f(index);
        }
    }

    /// Makes sure that `n` threads exist beside the callers.
    fn grow(&'static self, n: usize) {
        let mut workers = self
            .workers
            .lock()
            .expect("nothing panics while it holds the lock");
        while workers.len() < n {
            let index = workers.len();
            let spawned = std::thread::Builder::new()
                .name(format!("kernel-{}", index + 1))
                .spawn(move || self.serve(index));
            match spawned {
                Ok(handle) => workers.push(handle.thread().clone()),
                // Fewer threads compute the same.
                Err(_) => return,
            }
        }
    }

    #[cold]
    fn wake(&self) {
        let workers = self
            .workers
            .lock()
            .expect("nothing panics while it holds the lock");
        workers.iter().for_each(Thread::unpark);
    }

    /// The life of a thread of the pool.
    fn serve(&self, index: usize) {
        let mut seen = 0;
        let mut idle = Instant::now();
        let mut turns = 0_u32;
        loop {
            let state = self.state.0.load(Ordering::Acquire);
            if state & OPEN != 0 && state / NUMBER != seen {
                let joined = self.state.0.compare_exchange_weak(
                    state,
                    state + 1,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                );
                if joined.is_ok() {
                    seen = state / NUMBER;
                    // SAFETY: this thread has joined, so the caller waits for it before it changes the job.
                    let job = unsafe { *self.job.get() };
                    if let Some(job) = job
                        && index + 1 < job.threads
                    {
                        // SAFETY: as above.
                        let f = unsafe { &*job.f };
                        let done = catch_unwind(AssertUnwindSafe(|| self.work(f, job.n)));
                        if done.is_err() {
                            // Nobody needs the rest.
                            self.next.0.store(job.n, Ordering::Relaxed);
                            self.panicked.store(true, Ordering::Relaxed);
                        }
                    }
                    self.state.0.fetch_sub(1, Ordering::Release);
                    idle = Instant::now();
                }
                continue;
            }
            std::hint::spin_loop();
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(64) && idle.elapsed() > AWAKE {
                self.sleeping.0.fetch_add(1, Ordering::SeqCst);
                // A job that opened before this thread counted as sleeping is seen here; a later one wakes it.
                let state = self.state.0.load(Ordering::SeqCst);
                if state & OPEN == 0 || state / NUMBER == seen {
                    std::thread::park();
                }
                self.sleeping.0.fetch_sub(1, Ordering::SeqCst);
                idle = Instant::now();
            }
        }
    }
}

/// Closes the job and waits for the threads that joined it, also when the caller's piece panics.
struct Close<'a>(&'a Pool);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.state.0.fetch_and(!OPEN, Ordering::Relaxed);
        // Pieces that nobody has begun are left alone only when a panic is under way.
        if std::thread::panicking() {
            self.0.next.0.store(usize::MAX / 2, Ordering::Relaxed);
        }
        let mut turns = 0_u32;
        while self.0.state.0.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            turns += 1;
            // Someone else may need the core to finish.
            if turns.is_multiple_of(4096) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// Lets the next caller in.
struct Release(&'static Pool);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}
