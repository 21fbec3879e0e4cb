//! Kernels are faster than plain loops, by far.
//!
//! Results say nothing about speed: a loop that the compiler no longer turns into vectors gives the same ones forty times as slowly.
//! What is asked for here is a small part of what kernels reach, so that a busy machine does not matter. Builds with debug assertions
//! are slow on purpose and are not measured.
#![cfg(not(debug_assertions))]

use std::time::Instant;

use malmoi_kernels::attention::{AttentionShape, Mask, attention_forward};
use malmoi_kernels::gemm::{Epilogue, Mat, PackedMat, gemm, gemm_packed};
use malmoi_kernels::mixed::{Finish, Matrix, PackedRight, Right, Values, ValuesMut, bf16, product};
use malmoi_kernels::naive;
use malmoi_kernels::random::{Key, Purpose};

fn normals(n: usize) -> Vec<f32> {
    let mut x = vec![0.0; n];
    Key::new(1, Purpose::Other(1), n as u64).fill_normal(0, &mut x);
    x
}

/// Seconds of the fastest of some runs.
fn seconds(mut f: impl FnMut()) -> f64 {
    let run = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..7).map(run).fold(f64::INFINITY, f64::min)
}

/// Fails unless `fast` took less than `plain` divided by `times`.
#[track_caller]
fn faster(what: &str, times: f64, plain: f64, fast: f64) {
    assert!(
        fast * times < plain,
        "{what}: {:.3} ms, plain loops {:.3} ms, at least {times} times as fast expected",
        fast * 1e3,
        plain * 1e3
    );
}

// One test: measurements side by side would disturb each other.
#[test]
fn kernels_are_many_times_as_fast_as_plain_loops() {
    for (m, k, n) in [
        (1, 512, 2048),
        (8, 512, 2048),
        (32, 512, 1024),
        (200, 512, 512),
    ] {
        // One row waits for its weights.
        let times = match m {
            1 => 1.5,
            8 => 3.0,
            _ => 5.0,
        };
        let (a, b, mut c) = (normals(m * k), normals(n * k), vec![0.0; m * n]);
        let (x, w) = (Mat::row_major(&a, m, k), Mat::row_major(&b, n, k).t());
        let plain = seconds(|| naive::gemm::gemm(x, w, &mut c, false, Epilogue::NONE));
        let what = |how: &str| format!("{how} {m}x{k}x{n}");
        let fast = seconds(|| gemm(x, w, &mut c, false, Epilogue::NONE));
        faster(&what("product in f32"), times, plain, fast);
        let packed = PackedMat::new(w);
        let fast = seconds(|| gemm_packed(x, &packed, &mut c, false, Epilogue::NONE));
        faster(&what("packed product in f32"), times, plain, fast);

        let to_bf16 = |x: &[f32]| -> Vec<bf16> { x.iter().map(|&x| bf16::from_f32(x)).collect() };
        let (a, b) = (to_bf16(&a), to_bf16(&b));
        let x = Matrix::row_major(Values::Bf16(&a), m, k);
        let w = Matrix::row_major(Values::Bf16(&b), n, k).t();
        let mut c = vec![bf16::ZERO; m * n];
        let mut times_of = |right: Right| {
            seconds(|| product(x, right, ValuesMut::Bf16(&mut c), false, Finish::NONE))
        };
        let fast = times_of(Right::Plain(w));
        faster(&what("product in bf16"), times, plain, fast);
        let fast = times_of(Right::Packed(&PackedRight::new(w)));
        faster(&what("packed product in bf16"), times, plain, fast);
    }
    let (t, heads, d) = (192, 4, 64);
    let cu = [0, t as u32];
    let shape = AttentionShape::new(&cu, &cu, heads, d, Mask::Causal);
    let [q, k, v] = std::array::from_fn(|_| normals(t * heads * d));
    let (mut out, mut lse) = (vec![0.0; t * heads * d], vec![0.0; heads * t]);
    let plain = seconds(|| {
        naive::attention::attention_forward(&shape, &q, &k, &v, &mut out, &mut lse);
    });
    let fast = seconds(|| attention_forward(&shape, &q, &k, &v, &mut out, &mut lse));
    faster("attention", 10.0, plain, fast);
}
