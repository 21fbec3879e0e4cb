//! Matrix products as three loops.

use super::activation::activate;
use crate::gemm::{Epilogue, Mat};

/// See [`crate::gemm::gemm`].
pub fn gemm(a: Mat, b: Mat, c: &mut [f32], accumulate: bool, epilogue: Epilogue) {
    for i in 0..a.rows {
        for j in 0..b.cols {
            let mut sum = if accumulate {
                f64::from(c[i * b.cols + j])
            } else {
                0.0
            };
            for p in 0..a.cols {
                let x = a.data[i * a.row_stride + p * a.col_stride];
                let y = b.data[p * b.row_stride + j * b.col_stride];
                sum += f64::from(x) * f64::from(y);
            }
            if let Some(bias) = epilogue.bias {
                sum += f64::from(bias[j]);
            }
            c[i * b.cols + j] = activate(epilogue.activation, sum) as f32;
        }
    }
}
