//! The operations of this crate as plain loops in double precision.
//!
//! They define what the kernels compute. Nothing in them is fast, and nothing in them should be made fast.
#![allow(
    clippy::needless_range_loop,
    reason = "the loops follow the formulas, index by index"
)]

pub mod activation;
pub mod attention;
pub mod dropout;
pub mod embedding;
pub mod gemm;
pub mod linear;
pub mod linear_attention;
pub mod loss;
pub mod norm;
pub mod optim;
pub mod reduce;
pub mod rotary;
