//! Helpers of this crate's tests.

use crate::cpu::{Isa, available, requested, use_isa};
use crate::random::{Key, Purpose};
use std::sync::{Mutex, PoisonError};

/// Runs `f` on every instruction set of the machine, or on the one that `MALMOI_ISA` names, one test at a time. Every test that calls a
/// kernel runs in here.
pub(crate) fn for_each_isa(f: impl Fn(Isa)) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = requested().unwrap_or_else(|error| panic!("{error}"));
    let isas = match std::env::var_os("MALMOI_ISA").filter(|name| !name.is_empty()) {
        Some(_) => vec![wanted],
        None => available(),
    };
    for isa in isas {
        use_isa(isa);
        f(isa);
    }
    use_isa(wanted);
}

/// Normal draws, the same for the same seed.
pub(crate) fn normals(seed: u64, n: usize) -> Vec<f32> {
    let mut x = vec![0.0; n];
    Key::new(seed, Purpose::Other(0), n as u64).fill_normal(0, &mut x);
    x
}

/// Checks `|got - expected| <= atol + rtol * |expected|` for every element.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], expected: &[f32], atol: f32, rtol: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        assert!(
            g == e || (g - e).abs() <= atol + rtol * e.abs(),
            "{what}: element {i} of {} is {g}, expected {e}",
            got.len()
        );
    }
}

/// Checks that `f` gives the same bits with 1, 2 and 3 threads.
#[track_caller]
pub(crate) fn assert_same_bits_on_any_threads(what: &str, f: impl Fn() -> Vec<f32> + Sync) {
    let bits = |threads: usize| -> Vec<u32> {
        let values = crate::threads::with(threads, &f);
        values.into_iter().map(f32::to_bits).collect()
    };
    let one = bits(1);
    assert!(one == bits(2), "{what}: 1 and 2 threads differ");
    assert!(one == bits(3), "{what}: 1 and 3 threads differ");
}
