//! The least time that a phase can take on a machine, and what it waits for.
//!
//! An operation takes the longer of its arithmetic at the machine's peak and its traffic at the speed of the levels that hold
//! it. Near bytes come from the fastest level that holds the operation's own operands; far bytes from the fastest one that
//! holds everything far that the phase touches.

use malmoi_kernels::probe::Arithmetic;
use serde::Serialize;

use crate::cost::{Cost, Op};
use crate::machine::Machine;

/// What an operation waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Bytes from that level: `L1`, `L2`, `L3`, `memory`.
    Level(String),
}

impl Bound {
    /// `compute`, or the name of the level.
    pub fn name(&self) -> &str {
        match self {
            Self::Compute => "compute",
            Self::Level(name) => name,
        }
    }
}

/// The least time of an operation, all its runs together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpTime {
    /// The operation.
    pub op: Op,
    /// Seconds of all runs.
    pub seconds: f64,
    /// Seconds that its arithmetic takes at the peak.
    pub compute_seconds: f64,
    /// Seconds that its bytes take.
    pub memory_seconds: f64,
    /// The longer of the two.
    pub bound: Bound,
}

/// The least time of a phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Its operations, in order.
    pub ops: Vec<OpTime>,
    /// Seconds.
    pub seconds: f64,
    /// What most of the time waits for.
    pub bound: Bound,
    /// Operations a second in matrix products at that speed.
    pub flops_per_second: f64,
    /// Operations in matrix products for each byte that the memory behind the caches delivers.
    pub intensity: f64,
    /// Bytes that come from there.
    pub memory_bytes: u64,
}

/// Predicts the time of a phase.
pub fn predict(cost: &Cost, machine: &Machine, arithmetic: Arithmetic) -> Prediction {
    let far_level = machine.level_of(cost.far_bytes() + cost.kept_bytes());
    let (peak, vector_peak) = (machine.peak(arithmetic), machine.peak(Arithmetic::F32));
    let memory = &machine.memory().name;
    let mut memory_bytes = 0;
    let mut ops = Vec::with_capacity(cost.ops.len());
    for op in cost
        .ops
        .iter()
        .filter(|op| op.flops + op.vector_flops + op.bytes() > 0)
    {
        let near_level = machine.level_of(op.bytes());
        let times = op.times as f64;
        let far = op.far_bytes as f64 / far_level.all;
        let near = op.near_bytes as f64 / near_level.all;
        let compute_seconds =
            times * (op.flops as f64 / peak + op.vector_flops as f64 / vector_peak);
        let memory_seconds = times * (far + near);
        for (level, bytes) in [(far_level, op.far_bytes), (near_level, op.near_bytes)] {
            if level.name == *memory {
                memory_bytes += op.times * bytes;
            }
        }
        let bound = if compute_seconds >= memory_seconds {
            Bound::Compute
        } else if far >= near {
            Bound::Level(far_level.name.clone())
        } else {
            Bound::Level(near_level.name.clone())
        };
        ops.push(OpTime {
            op: op.clone(),
            seconds: compute_seconds.max(memory_seconds),
            compute_seconds,
            memory_seconds,
            bound,
        });
    }
    let seconds: f64 = ops.iter().map(|op| op.seconds).sum();
    let mut waits: Vec<(Bound, f64)> = Vec::new();
    for op in &ops {
        match waits.iter_mut().find(|(bound, _)| *bound == op.bound) {
            Some((_, total)) => *total += op.seconds,
            None => waits.push((op.bound.clone(), op.seconds)),
        }
    }
    let longest = waits.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    // A phase that fits into the caches has no traffic to speak of: its bytes are counted where they are first touched.
    let traffic = memory_bytes.max(cost.far_bytes()).max(1);
    Prediction {
        ops,
        seconds,
        bound: longest.map_or(Bound::Compute, |(bound, _)| bound),
        flops_per_second: cost.flops() as f64 / seconds.max(f64::MIN_POSITIVE),
        intensity: cost.flops() as f64 / traffic as f64,
        memory_bytes: traffic,
    }
}

#[cfg(test)]
mod tests {
    use malmoi_kernels::profile::Direction;

    use super::*;
    use crate::cost::{Phase, Work};
    use crate::testing::machine;

    fn cost(ops: Vec<Op>) -> Cost {
        Cost {
            work: Work::new(Phase::Encode, 1, 1),
            ops,
            parameters: 0,
        }
    }

    fn op(times: u64, flops: u64, far_bytes: u64, near_bytes: u64) -> Op {
        Op {
            flops,
            far_bytes,
            near_bytes,
            ..Op::new("test", Direction::Forward, times)
        }
    }

    #[test]
    fn the_longer_of_arithmetic_and_traffic_counts() {
        // The machine of the tests: 100 GFLOP/s in f32, L2 of 1 MB at 200 GB/s, memory at 10 GB/s.
        let busy = predict(
            &cost(vec![op(2, 1_000_000_000, 1000, 0)]),
            &machine(),
            Arithmetic::F32,
        );
        assert!((busy.seconds - 0.02).abs() < 1e-12);
        assert_eq!(busy.bound, Bound::Compute);
        let slow = predict(
            &cost(vec![op(1, 1000, 100_000_000, 0)]),
            &machine(),
            Arithmetic::F32,
        );
        assert!((slow.seconds - 0.01).abs() < 1e-12);
        assert_eq!(slow.bound.name(), "memory");
        assert!((slow.intensity - 1e-5).abs() < 1e-12);
    }

    #[test]
    fn near_bytes_come_from_the_cache_that_holds_them() {
        let near = predict(
            &cost(vec![op(1, 1000, 0, 500_000)]),
            &machine(),
            Arithmetic::F32,
        );
        assert!((near.seconds - 500_000.0 / 200e9).abs() < 1e-15);
        assert_eq!(near.bound.name(), "L2");
        // Far bytes of all operations share the cache: together these do not fit.
        let far = vec![op(1, 0, 700_000, 0), op(1, 0, 700_000, 0)];
        let far = predict(&cost(far), &machine(), Arithmetic::F32);
        assert!((far.seconds - 1_400_000.0 / 10e9).abs() < 1e-12);
    }

    #[test]
    fn a_missing_unit_falls_back_to_f32() {
        let machine = machine();
        assert_eq!(
            machine.peak(Arithmetic::Int8),
            machine.peak(Arithmetic::F32)
        );
        assert_eq!(machine.peak(Arithmetic::Bf16), 800e9);
    }
}
