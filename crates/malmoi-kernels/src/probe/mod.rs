//! How fast this machine can go at most: multiply-adds from registers, and reads from every level of the memory.
//!
//! The loops do nothing else, so their rates are roofs: no kernel can pass them. Peaks are timed with operands that never
//! leave the registers, reads with buffers of a given size that each thread walks over and over. A probe keeps the processor
//! busy for tens of milliseconds and takes the best of several windows, because anything else that runs only ever slows it.

use std::sync::Barrier;
use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
mod x86;

/// A kind of arithmetic that has a peak of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arithmetic {
    /// 32-bit floating point.
    F32,
    /// 16-bit brain floating point with 32-bit sums.
    Bf16,
    /// 8-bit integers with 32-bit sums.
    Int8,
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Arithmetic; 3] = [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Int8];

    /// `f32`, `bf16`, `int8`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
            Arithmetic::Bf16 => "bf16",
            Arithmetic::Int8 => "int8",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Arithmetic> {
        Arithmetic::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Bytes of a value.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Arithmetic::F32 => 4,
            Arithmetic::Bf16 => 2,
            Arithmetic::Int8 => 1,
        }
    }
}

/// The fastest unit of the processor for a kind of arithmetic, and its rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Name of the unit: `amx`, `avx512`, `avx512-vnni` …
    pub unit: &'static str,
    /// Operations a second of all threads together; a multiply-add counts as two.
    pub operations: f64,
}

/// A loop and the operations of one turn of it.
#[derive(Clone, Copy, Debug)]
struct Loop {
    unit: &'static str,
    operations: u64,
    /// Runs the loop that many times.
    run: fn(u64),
}

/// Windows of time that a rate is measured in; the best counts.
const WINDOWS: usize = 5;
const WINDOW: Duration = Duration::from_millis(12);

/// The peak of `threads` threads in the instruction set in use ([`crate::cpu::isa`]), or `None` when no unit for that
/// arithmetic is there.
///
/// # Panics
/// When `threads` is 0.
#[must_use]
pub fn peak(arithmetic: Arithmetic, threads: usize) -> Option<Peak> {
    let chosen = chosen(arithmetic)?;
    let turns = turns_of(&chosen);
    let seconds = best_window(threads, |_| {
        let start = Instant::now();
        (chosen.run)(turns);
        start.elapsed()
    });
    Some(Peak {
        unit: chosen.unit,
        operations: (threads as u64 * turns * chosen.operations) as f64 / seconds,
    })
}

fn chosen(arithmetic: Arithmetic) -> Option<Loop> {
    #[cfg(target_arch = "x86_64")]
    if let Some(found) = x86::chosen(arithmetic, crate::cpu::isa()) {
        return Some(found);
    }
    (arithmetic == Arithmetic::F32).then_some(Loop {
        unit: "portable",
        operations: 2 * PORTABLE as u64,
        run: portable,
    })
}

/// Turns that fill a window.
fn turns_of(chosen: &Loop) -> u64 {
    let mut turns = 1 << 10;
    loop {
        let start = Instant::now();
        (chosen.run)(turns);
        let took = start.elapsed();
        if took >= WINDOW / 4 || turns >= 1 << 40 {
            let factor = WINDOW.as_secs_f64() / took.as_secs_f64().max(1e-9);
            return ((turns as f64 * factor) as u64).max(1);
        }
        turns *= 4;
    }
}

/// Independent sums of the portable loop: enough to hide the latency of an addition.
const PORTABLE: usize = 64;

fn portable(turns: u64) {
    let mut sums = [1.0f32; PORTABLE];
    let (a, b) = (
        std::hint::black_box(0.999_f32),
        std::hint::black_box(0.001_f32),
    );
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = *sum * a + b;
        }
    }
    std::hint::black_box(&sums);
}

/// The shortest time that `threads` threads, started together, take for `work`: of each window the slowest thread counts, of
/// all windows the best.
fn best_window(threads: usize, work: impl Fn(usize) -> Duration + Sync) -> f64 {
    assert!(threads > 0, "a probe needs a thread");
    let gate = Barrier::new(threads);
    let mut times = vec![[Duration::MAX; WINDOWS]; threads];
    std::thread::scope(|scope| {
        for (thread, times) in times.iter_mut().enumerate() {
            let (gate, work) = (&gate, &work);
            scope.spawn(move || {
                for time in times {
                    gate.wait();
                    *time = work(thread);
                }
            });
        }
    });
    let slowest = |window: usize| times.iter().map(|times| times[window]).max();
    let best = (0..WINDOWS).filter_map(slowest).min();
    best.unwrap_or(Duration::MAX).as_secs_f64().max(1e-9)
}

/// A buffer for measuring how fast memory can be read.
#[derive(Debug)]
pub struct Reads {
    /// One buffer a thread, so that threads share nothing.
    buffers: Vec<Vec<u64>>,
}

impl Reads {
    /// Takes `bytes` of memory, divided among `threads` threads, and touches all of it.
    ///
    /// # Panics
    /// When `threads` is 0.
    #[must_use]
    pub fn new(bytes: usize, threads: usize) -> Reads {
        assert!(threads > 0, "a probe needs a thread");
        let words = bytes / size_of::<u64>() / threads;
        Reads {
            buffers: (0..threads).map(|_| vec![1; words]).collect(),
        }
    }

    /// Bytes a second that all threads read together, when they walk over `bytes` of the memory again and again.
    ///
    /// # Panics
    /// When `bytes` is more than there is, or less than 512 bytes a thread.
    #[must_use]
    pub fn rate(&self, bytes: usize) -> f64 {
        let threads = self.buffers.len();
        // Whole turns of the unrolled loop.
        let words = bytes / size_of::<u64>() / threads / TURN * TURN;
        assert!(
            words > 0 && words <= self.buffers[0].len(),
            "cannot read {bytes} bytes with {threads} threads from {} words each",
            self.buffers[0].len()
        );
        let each = words * size_of::<u64>();
        // One pass to warm the caches and to estimate how many passes fill a window.
        let start = Instant::now();
        read(&self.buffers[0][..words], 1);
        let first = start.elapsed().as_secs_f64().max(1e-7);
        let passes = (WINDOW.as_secs_f64() / first).clamp(1.0, 1e6) as usize;
        let seconds = best_window(threads, |thread| {
            let start = Instant::now();
            read(&self.buffers[thread][..words], passes);
            start.elapsed()
        });
        (threads * passes * each) as f64 / seconds
    }
}

/// Words that one turn of the reading loop takes: eight 512-bit vectors.
const TURN: usize = 64;

fn read(words: &[u64], passes: usize) {
    debug_assert!(words.len().is_multiple_of(TURN));
    #[cfg(target_arch = "x86_64")]
    if x86::read(words, passes, crate::cpu::isa()) {
        return;
    }
    for _ in 0..passes {
        let mut sums = [0u64; 16];
        for words in std::hint::black_box(words).chunks_exact(sums.len()) {
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum ^= word;
            }
        }
        std::hint::black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_positive_and_a_unit_is_named() {
        let f32 = peak(Arithmetic::F32, 1).expect("every processor multiplies floats");
        assert!(f32.operations > 1e8, "{f32:?}");
        for arithmetic in Arithmetic::ALL {
            if let Some(peak) = peak(arithmetic, 1) {
                assert!(peak.operations > 1e8 && !peak.unit.is_empty(), "{peak:?}");
            }
        }
    }

    #[test]
    fn every_loop_of_this_machine_returns() {
        // Of each unit, not only of the one in use; a wrong register or an unsupported instruction would fault.
        #[cfg(target_arch = "x86_64")]
        for isa in crate::cpu::available() {
            for arithmetic in Arithmetic::ALL {
                if let Some(chosen) = x86::chosen(arithmetic, isa) {
                    (chosen.run)(1);
                    (chosen.run)(100);
                }
            }
            let words = vec![3; 2 * TURN];
            x86::read(&words, 3, isa);
        }
        portable(3);
    }

    #[test]
    fn reads_have_a_rate_at_every_size() {
        let reads = Reads::new(1 << 20, 2);
        for bytes in [1024, 4096, 1 << 20] {
            let rate = reads.rate(bytes);
            assert!(rate.is_finite() && rate > 1e6, "{bytes}: {rate}");
        }
    }
}
