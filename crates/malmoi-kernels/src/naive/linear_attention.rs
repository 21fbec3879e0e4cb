//! Linear attention with every pair of a query and a key, in double precision.

use crate::linear_attention::{LinearAttention, Sight};

fn feature(x: f32) -> f64 {
    let x = f64::from(x);
    if x > 0.0 { x + 1.0 } else { x.exp() }
}

/// See [`crate::linear_attention::linear_attention`].
pub fn linear_attention(shape: &LinearAttention, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let (d, width) = (shape.d_head, shape.n_heads * shape.d_head);
    for (queries, keys) in shape.cu_q.windows(2).zip(shape.cu_k.windows(2)) {
        for i in queries[0]..queries[1] {
            let end = match shape.sight {
                Sight::Full => keys[1],
                Sight::Causal => i + 1,
            };
            for head in 0..shape.n_heads {
                let at = |row: u32| row as usize * width + head * d;
                let weights: Vec<f64> = (keys[0]..end)
                    .map(|j| {
                        (0..d)
                            .map(|c| feature(q[at(i) + c]) * feature(k[at(j) + c]))
                            .sum()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for c in 0..d {
                    let values = (keys[0]..end).map(|j| f64::from(v[at(j) + c]));
                    let sum: f64 = weights.iter().zip(values).map(|(w, v)| w * v).sum();
                    out[at(i) + c] = if total == 0.0 {
                        0.0
                    } else {
                        (sum / total) as f32
                    };
                }
            }
        }
    }
}
