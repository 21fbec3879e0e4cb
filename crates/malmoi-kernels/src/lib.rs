//! Transformer kernels on slices for the CPU.
