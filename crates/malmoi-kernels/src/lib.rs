//! Transformer kernels on slices for the CPU.
//!
//! Every function here takes slices of `f32`, in [`mixed`] of bf16 as well (row-major; `u32` for ids), and writes slices. There is
//! no tensor type, no graph and no allocation that the caller sees, so the crate can be read, tested and measured on its own.
//!
//! How the crate is built, from the bottom up:
//!
//! * [`cpu`] finds out what the processor can do and which instruction set ([`cpu::Isa`]) the kernels use.
//! * `simd` is a small vector vocabulary with three implementations (AVX-512, AVX2, portable). A kernel is written
//!   once against the vocabulary and compiled three times.
//! * [`threads`] splits work over one pool of threads. The split depends on the shape of the work and never on the number
//!   of threads, so every result has the same bits at any number of threads.
//! * [`gemm`] multiplies matrices; [`linear`], [`attention`] and [`loss`] are built on it. [`mixed`] does the same in bf16, on the tile
//!   unit (`amx`) where there is one.
//! * [`activation`], [`norm`], [`rotary`], [`embedding`], [`dropout`], [`optim`] and [`reduce`] are the memory-bound rest.
//! * [`random`] is a counter-based generator: a draw is a function of (seed, purpose, step, position).
//! * [`probe`] measures what the machine can do at most, [`profile`] records what ran when.
//! * [`naive`] holds the same operations as plain loops in double precision. They are the specification: the tests
//!   compare every kernel with its naive twin on every instruction set the machine has.
//!
//! Lengths are asserted at entry: a wrong length is a mistake of the calling code, so the functions panic and name it.
#![allow(
    unsafe_code,
    reason = "vector intrinsics and disjoint writes from several threads need it; the rest of the workspace has none"
)]

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod cpu;
pub mod dropout;
pub mod embedding;
pub mod gemm;
pub mod linear;
pub mod linear_attention;
pub mod loss;
pub mod mixed;
pub mod naive;
pub mod norm;
pub mod optim;
pub mod probe;
pub mod profile;
pub mod random;
pub mod reduce;
pub mod rotary;
mod scratch;
mod simd;
#[cfg(test)]
mod testing;
pub mod threads;
