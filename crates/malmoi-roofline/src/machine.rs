//! What this machine can do at most, measured.

use malmoi_kernels::cpu;
use malmoi_kernels::probe::{self, Arithmetic, Reads};
use serde::Serialize;

/// Roofs of a machine: arithmetic, and reading from each level of the memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// The processor's name, where the system tells it.
    pub processor: Option<String>,
    /// Threads that the roofs of all threads are for.
    pub threads: usize,
    /// The instruction set in use.
    pub instruction_set: &'static str,
    /// Peaks, one for each kind of arithmetic that the machine has a unit for.
    pub peaks: Vec<Peak>,
    /// Levels of the memory, from the fastest to the largest.
    pub levels: Vec<Level>,
    /// Reading speed of all threads at sizes from the smallest to the largest: what the levels were read off.
    pub reads: Vec<ReadPoint>,
}

/// The peak of a kind of arithmetic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// `f32`, `bf16`, `int8`.
    pub arithmetic: &'static str,
    /// The unit that reaches it.
    pub unit: &'static str,
    /// Operations a second of one thread.
    pub one: f64,
    /// Of all threads.
    pub all: f64,
}

/// A cache or the memory behind them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// `L1`, `L2`, `L3`, `memory`.
    pub name: String,
    /// Bytes that all threads together find in it; for the memory, nothing.
    pub capacity: Option<u64>,
    /// Bytes a second that one thread reads.
    pub one: f64,
    /// That all threads read.
    pub all: f64,
}

/// Reading speed at a size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReadPoint {
    /// Bytes that all threads together read again and again.
    pub bytes: u64,
    /// Bytes a second.
    pub rate: f64,
}

/// Most memory that the measurement takes: twice a cache of half a gigabyte.
const MOST: u64 = 1 << 30;

impl Machine {
    /// Measures this machine with as many threads as the pool has, in one to two seconds; anything else that runs lowers what
    /// is found.
    pub fn measure() -> Self {
        let threads = malmoi_kernels::threads::count();
        let description = cpu::describe();
        let peaks = Arithmetic::ALL.into_iter().filter_map(|arithmetic| {
            let one = probe::peak(arithmetic, 1)?;
            let all = if threads > 1 {
                probe::peak(arithmetic, threads)?
            } else {
                one
            };
            Some(Peak {
                arithmetic: arithmetic.name(),
                unit: one.unit,
                one: one.operations,
                all: all.operations,
            })
        });
        let peaks = peaks.collect();
        // First and second level belong to a core, later ones to all of them.
        let mut caches: Vec<(u8, u64)> = Vec::new();
        for cache in description
            .caches
            .iter()
            .filter(|c| c.kind != "Instruction")
        {
            let cores = if cache.level <= 2 { threads as u64 } else { 1 };
            caches.push((cache.level, cache.size as u64 * cores));
        }
        caches.sort_unstable();
        caches.dedup_by_key(|cache| cache.0);
        let (levels, reads) = levels(&caches, threads);
        Self {
            processor: description.model,
            threads,
            instruction_set: cpu::isa().name(),
            peaks,
            levels,
            reads,
        }
    }

    /// Operations a second of all threads in matrix products at a precision. Without a unit for it, or with one slower than
    /// f32's, the products are made in f32.
    pub fn peak(&self, arithmetic: Arithmetic) -> f64 {
        let of = |arithmetic: Arithmetic| {
            let found = self
                .peaks
                .iter()
                .find(|peak| peak.arithmetic == arithmetic.name());
            found.map_or(0.0, |peak| peak.all)
        };
        of(arithmetic).max(of(Arithmetic::F32))
    }

    /// The fastest level that holds that many bytes.
    pub fn level_of(&self, bytes: u64) -> &Level {
        let fits = |level: &&Level| level.capacity.is_none_or(|capacity| bytes <= capacity);
        let found = self.levels.iter().find(fits);
        found.unwrap_or_else(|| self.memory())
    }

    /// The memory behind the caches.
    ///
    /// # Panics
    /// When the machine has no level at all, which no constructor makes.
    pub fn memory(&self) -> &Level {
        self.levels.last().expect("a machine has a memory")
    }
}

/// Memory that is free, in bytes, where the system says.
pub fn available_memory() -> Option<u64> {
    memory_line("MemAvailable:")
}

/// All memory of the machine, in bytes, where the system says.
pub fn total_memory() -> Option<u64> {
    memory_line("MemTotal:")
}

fn memory_line(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Largest resident memory of this process, in MiB; 0 where the system does not say.
pub fn peak_rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib / 1024)
}

/// A level that is to be probed.
struct Probe {
    level: u8,
    /// Bytes that all threads find there.
    size: u64,
    /// Bytes that all threads read.
    bytes: u64,
    /// Threads that share those bytes: a private cache holds only its own core's part.
    cores: u64,
}

/// Reading speed of every level. `caches` are levels and bytes that all threads find there, smallest first.
fn levels(caches: &[(u8, u64)], threads: usize) -> (Vec<Level>, Vec<ReadPoint>) {
    let largest = caches.last().map_or(64 << 20, |cache| 2 * cache.1);
    let quarter = available_memory().map_or(MOST / 4, |bytes| bytes / 4);
    let most = largest.clamp(256 << 20, MOST).min(quarter);
    let mut probes = Vec::new();
    let mut below = 0;
    for &(level, size) in caches {
        // Half of a level, so that nothing else in it pushes the buffer out; of a large one just enough to leave the level before.
        let bytes = match below {
            0 => size / 2,
            below => (size / 2).min(4 * below),
        };
        probes.push(Probe {
            level,
            size,
            bytes: bytes.min(most),
            cores: if level <= 2 { threads as u64 } else { 1 },
        });
        below = size;
    }
    // One buffer at a time: together they would take twice as much.
    let alone: Vec<f64> = {
        let reads = Reads::new(most as usize, 1);
        let each = probes.iter().map(|probe| probe.bytes / probe.cores);
        each.chain([most])
            .map(|bytes| reads.rate(bytes as usize))
            .collect()
    };
    let all = Reads::new(most as usize, threads);
    let smallest = threads as u64 * (8 << 10);
    let sizes = std::iter::successors(Some(smallest), |bytes| Some(2 * bytes));
    let reads: Vec<ReadPoint> = sizes
        .take_while(|bytes| *bytes < most)
        .chain([most])
        .map(|bytes| ReadPoint {
            bytes,
            rate: all.rate(bytes as usize),
        })
        .collect();
    let memory = reads.last().map_or(0.0, |point| point.rate);
    let mut levels = Vec::new();
    for (probe, &one) in probes.iter().zip(&alone) {
        let rate = all.rate(probe.bytes as usize);
        // A shared cache may be shared with others: what counts is up to where reading is nearer to its speed than to memory's.
        let middle = (rate * memory).sqrt();
        let holds = |point: &&ReadPoint| point.bytes <= probe.size && point.rate >= middle;
        let capacity = if probe.level <= 2 {
            probe.size
        } else {
            reads
                .iter()
                .rev()
                .find(holds)
                .map_or(0, |point| point.bytes)
        };
        if capacity > 0 && rate > memory {
            levels.push(Level {
                name: format!("L{}", probe.level),
                capacity: Some(capacity),
                one,
                all: rate,
            });
        }
    }
    levels.push(Level {
        name: "memory".into(),
        capacity: None,
        one: alone.last().copied().unwrap_or(memory),
        all: memory,
    });
    (levels, reads)
}
