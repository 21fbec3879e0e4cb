use super::*;
use crate::naive::linear_attention as naive;
use crate::simd::sizes;
use crate::testing::{assert_close, assert_same_bits_on_any_threads, for_each_isa, normals};

/// Outputs are means of values of size 1 with positive weights: sums of up to 200 · 33 products keep about six digits.
const TOLERANCE: f32 = 5e-6;

fn cumulated(lengths: &[u32]) -> Vec<u32> {
    let mut cu = vec![0];
    for n in lengths {
        cu.push(cu[cu.len() - 1] + n);
    }
    cu
}

#[test]
fn linear_attention_equals_the_naive_one_on_every_isa() {
    for_each_isa(|isa| {
        let lanes = sizes().lanes;
        for d_head in [1, lanes - 1, lanes, lanes + 1, 33] {
            for (sight, nq, nk) in [
                (Sight::Full, vec![1, 0, 5, 3], vec![1, 4, 200, 0]),
                (Sight::Causal, vec![1, 0, 70, 3], vec![1, 0, 70, 3]),
            ] {
                let (cu_q, cu_k) = (cumulated(&nq), cumulated(&nk));
                let shape = LinearAttention {
                    cu_q: &cu_q,
                    cu_k: &cu_k,
                    n_heads: 2,
                    d_head,
                    sight,
                };
                let rows = |cu: &[u32]| cu[cu.len() - 1] as usize * 2 * d_head;
                let (q, k) = (normals(1, rows(&cu_q)), normals(2, rows(&cu_k)));
                let v = normals(3, rows(&cu_k));
                let (mut got, mut expected) = (vec![9.0; q.len()], vec![9.0; q.len()]);
                linear_attention(&shape, &q, &k, &v, &mut got);
                naive::linear_attention(&shape, &q, &k, &v, &mut expected);
                let what = format!("{sight:?} d_head {d_head} on {isa}");
                assert_close(&what, &got, &expected, TOLERANCE, TOLERANCE);
            }
        }
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        let cu = cumulated(&[150, 80, 200]);
        let shape = LinearAttention {
            cu_q: &cu,
            cu_k: &cu,
            n_heads: 3,
            d_head: 32,
            sight: Sight::Causal,
        };
        let n = 430 * 96;
        let (q, k, v) = (normals(1, n), normals(2, n), normals(3, n));
        assert_same_bits_on_any_threads("linear attention", || {
            let mut out = vec![0.0; n];
            linear_attention(&shape, &q, &k, &v, &mut out);
            out
        });
    });
}
