use super::*;
use crate::naive::optim as naive;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};

const OPTIONS: AdamW = AdamW {
    lr: 1e-3,
    beta1: 0.9,
    beta2: 0.99,
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
};

#[test]
fn steps_equal_the_naive_ones_on_every_isa() {
    for_each_isa(|isa| {
        for n in [0, 1, 15, 16, 17, CHUNK - 1, CHUNK, 2 * CHUNK + 5] {
            let mut fast = [normals(1, n), vec![0.0; n], vec![0.0; n]];
            let mut slow = fast.clone();
            for step in 1..=5 {
                let g = normals(10 + step, n);
                let options = AdamW { step, ..OPTIONS };
                let [p, m, v] = &mut fast;
                adamw_step(p, &g, m, v, options);
                let [p, m, v] = &mut slow;
                naive::adamw_step(p, &g, m, v, options);
                for (fast, slow) in fast.iter().zip(&slow) {
                    // Fused multiply-adds round once where the naive step rounds twice.
                    assert_close(
                        &format!("adamw {n} step {step} on {isa}"),
                        fast,
                        slow,
                        3e-7,
                        1e-6,
                    );
                }
            }
            let (mut got, mut expected) = (normals(1, n), normals(1, n));
            let y = normals(2, n);
            add_in_place(&mut got, &y);
            naive::add_in_place(&mut expected, &y);
            scale_in_place(&mut got, 0.3);
            naive::scale_in_place(&mut expected, 0.3);
            assert_eq!(got, expected, "add and scale {n} on {isa}");
        }
    });
}

// By hand: with g = 2 the moments are 0.2 and 0.04, corrected 2 and 4, so p = 1·(1 - 1e-4) - 1e-3 · 2 / (2 + 1e-8).
#[test]
fn the_first_step_is_the_one_of_the_paper() {
    for_each_isa(|_| {
        let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
        adamw_step(&mut p, &[2.0], &mut m, &mut v, OPTIONS);
        assert_close("p", &p, &[1.0 - 1e-4 - 1e-3], 1e-7, 0.0);
        assert_close("m", &m, &[0.2], 1e-7, 0.0);
        assert_close("v", &v, &[0.04], 1e-7, 0.0);
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        let n = 100_003;
        let g = normals(1, n);
        assert_same_bits_on_any_threads("adamw", || {
            let (mut p, mut m, mut v) = (normals(2, n), normals(3, n), vec![0.5; n]);
            adamw_step(&mut p, &g, &mut m, &mut v, AdamW { step: 3, ..OPTIONS });
            [p, m, v].concat()
        });
    });
}
