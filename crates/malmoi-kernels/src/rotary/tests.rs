use super::*;
use crate::naive::rotary as naive;
use crate::simd::sizes;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};

/// Two products of normal draws and a sum: a few roundings of values up to 5.
const ATOL: f32 = 2e-6;

/// Angles of `positions` positions for `half` pairs.
fn angles(positions: usize, half: usize) -> (Vec<f32>, Vec<f32>) {
    let angle = |at: usize| (at / half.max(1)) as f32 * 0.7_f32.powi((at % half.max(1)) as i32 + 1);
    let all = 0..positions * half;
    (
        all.clone().map(|at| angle(at).cos()).collect(),
        all.map(|at| angle(at).sin()).collect(),
    )
}

#[test]
fn rotations_equal_the_naive_ones_on_every_isa() {
    for_each_isa(|isa| {
        let lanes = sizes().lanes;
        for half in [0, 1, lanes - 1, lanes, lanes + 1, 2 * lanes] {
            for (n, heads, rest) in [(0, 1, 1), (1, 1, 1), (5, 2, 0), (ROWS + 1, 3, 2)] {
                let d_head = 2 * half + rest;
                if d_head == 0 {
                    continue;
                }
                let (cos, sin) = angles(8, half);
                let positions: Vec<u32> = (0..n as u32).map(|i| (i * 5) % 8).collect();
                for pairs in [Pairs::Halves, Pairs::Neighbours] {
                    let shape = Rotary {
                        positions: &positions,
                        cos: &cos,
                        sin: &sin,
                        d_rotary: 2 * half,
                        d_head,
                        pairs,
                    };
                    let x = normals(1, n * heads * d_head);
                    for turn in [Turn::Forward, Turn::Back] {
                        let (mut got, mut expected) = (vec![9.0; x.len()], vec![9.0; x.len()]);
                        rotary(&shape, turn, &x, &mut got);
                        naive::rotary(&shape, turn, &x, &mut expected);
                        let what = format!("{pairs:?} {turn:?} {n}x{heads}x{d_head} on {isa}");
                        assert_close(&what, &got, &expected, ATOL, 0.0);
                    }
                }
            }
        }
    });
}

#[test]
fn turning_back_undoes_a_turn() {
    for_each_isa(|_| {
        let (cos, sin) = angles(16, 12);
        let positions: Vec<u32> = (0..16).collect();
        let shape = Rotary {
            positions: &positions,
            cos: &cos,
            sin: &sin,
            d_rotary: 24,
            d_head: 30,
            pairs: Pairs::Halves,
        };
        let x = normals(1, 16 * 60);
        let (mut turned, mut back) = (x.clone(), x.clone());
        rotary(&shape, Turn::Forward, &x, &mut turned);
        rotary(&shape, Turn::Back, &turned, &mut back);
        assert_close("back", &back, &x, ATOL, 0.0);
        // A rotation keeps lengths, so the forward pass did turn something.
        assert!(crate::reduce::dot(&x, &turned) < 0.9 * crate::reduce::dot(&x, &x));
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        let (cos, sin) = angles(700, 32);
        let positions: Vec<u32> = (0..700).collect();
        let x = normals(1, 700 * 768);
        let shape = Rotary {
            positions: &positions,
            cos: &cos,
            sin: &sin,
            d_rotary: 64,
            d_head: 64,
            pairs: Pairs::Halves,
        };
        assert_same_bits_on_any_threads("rotary", || {
            let mut y = vec![0.0; x.len()];
            rotary(&shape, Turn::Forward, &x, &mut y);
            y
        });
    });
}
