//! What a caller may not ask of a kernel is refused before memory is touched, in release builds as well.

use std::panic::{AssertUnwindSafe, catch_unwind};

use malmoi_kernels::activation::{Activation, activation_forward, gated_forward};
use malmoi_kernels::attention::{
    AttentionShape, CachedShape, KvSlices, Mask, attention_cached, attention_forward,
};
use malmoi_kernels::dropout::dropout_forward;
use malmoi_kernels::embedding::{gather_rows, scatter_add_rows};
use malmoi_kernels::gemm::{Epilogue, Mat, PackedMat, gemm, gemm_packed};
use malmoi_kernels::linear::linear_forward;
use malmoi_kernels::loss::{
    LinearCrossEntropy, Products, cross_entropy_forward, linear_cross_entropy, softmax_rows,
};
use malmoi_kernels::mixed::{self, Finish, Matrix, Right, Values, ValuesMut, bf16};
use malmoi_kernels::norm::{LayerNorm, LayerNormOut, layer_norm_forward};
use malmoi_kernels::optim::{AdamW, adamw_step};
use malmoi_kernels::random::{Key, Purpose};

/// Fails unless `f` panics with a message that begins with the name of the kernel.
#[track_caller]
fn refused(what: &str, by: &str, f: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err(what);
    let message = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default();
    // One that Rust's own checks found would say where it stands in the kernel.
    assert!(message.contains(by), "{what}: {message}");
}

const X: [f32; 64] = [1.0; 64];

#[test]
fn products_of_matrices_that_do_not_fit() {
    let a = Mat::row_major(&X[..6], 2, 3);
    let b = Mat::row_major(&X[..12], 3, 4);
    let mut c = [0.0; 8];
    gemm(a, b, &mut c, false, Epilogue::NONE);
    assert_eq!(c, [3.0; 8]);
    refused("another inner size", "gemm", || {
        gemm(b, a, &mut [0.0; 9], false, Epilogue::NONE);
    });
    refused("a short result", "gemm", || {
        gemm(a, b, &mut [0.0; 7], false, Epilogue::NONE);
    });
    refused("a short bias", "gemm", || {
        gemm(a, b, &mut [0.0; 8], false, Epilogue::bias(Some(&X[..3])));
    });
    refused("rows beyond the end", "the slice holds", || {
        let _ = Mat::with_row_stride(&X[..10], 3, 4, 4);
    });
    let packed = PackedMat::new(b);
    refused("a short result", "gemm_packed", || {
        gemm_packed(a, &packed, &mut [0.0; 7], false, Epilogue::NONE);
    });
    refused("a short row", "needs that many elements", || {
        linear_forward(&X[..5], &X[..12], None, 3, 4, &mut [0.0; 8]);
    });
    let narrow = [bf16::ONE; 6];
    let left = Matrix::row_major(Values::Bf16(&narrow), 2, 3);
    let right = Right::Plain(Matrix::row_major(Values::F32(&X[..8]), 2, 4));
    refused("another inner size", "product", || {
        let out = ValuesMut::F32(&mut c);
        mixed::product(left, right, out, false, Finish::NONE);
    });
}

#[test]
fn attention_between_rows_that_are_not_there() {
    let (mut out, mut lse) = ([0.0; 16], [0.0; 4]);
    let mut run = |cu_q: &[u32], cu_k: &[u32], kv_heads: usize, q: usize| {
        let mut shape = AttentionShape::new(cu_q, cu_k, 2, 4, Mask::Full);
        shape.n_kv_heads = kv_heads;
        let (k, v) = (&X[..16], &X[..16]);
        attention_forward(&shape, &X[..q], k, v, &mut out, &mut lse);
    };
    run(&[0, 2], &[0, 2], 2, 16);
    refused("a missing query", "attention", || {
        run(&[0, 2], &[0, 2], 2, 8);
    });
    refused("a missing key", "attention", || {
        run(&[0, 2], &[0, 3], 2, 16);
    });
    refused("sequences that end before they begin", "attention", || {
        run(&[0, 3, 2], &[0, 1, 2], 2, 16);
    });
    refused("more sequences of keys", "attention", || {
        run(&[0, 2], &[0, 1, 2], 2, 16);
    });
    refused("heads that cannot be shared", "attention", || {
        run(&[0, 2], &[0, 2], 3, 16);
    });
    let shape = CachedShape {
        cu_q: &[0, 1],
        n_heads: 2,
        n_kv_heads: 2,
        d_head: 4,
        scale: 0.5,
        mask: Mask::Causal,
        q_stride: 8,
        bias: None,
    };
    refused("a sequence without a cache", "attention_cached", || {
        attention_cached(&shape, &X[..8], &[] as &[KvSlices], &mut [0.0; 8]);
    });
}

#[test]
fn rows_and_tables_of_other_sizes() {
    let norm = LayerNorm {
        gamma: &X[..4],
        beta: Some(&X[..3]),
        eps: 1e-5,
    };
    let (mut y, mut mean, mut rstd) = ([0.0; 8], [0.0; 2], [0.0; 2]);
    refused("a short shift", "layer_norm_forward", || {
        let out = LayerNormOut {
            y: &mut y,
            sum: None,
            mean: &mut mean,
            rstd: &mut rstd,
        };
        layer_norm_forward(&X[..8], None, norm, out);
    });
    refused("a row outside of the table", "has no row", || {
        scatter_add_rows(&X[..2], 2, &[3], &mut [0.0; 6]);
    });
    refused("a short result", "gather_rows", || {
        gather_rows(&X[..6], 2, &[0, 1], &mut [0.0; 3]);
    });
    refused("half a row", "softmax_rows", || {
        softmax_rows(&X[..7], 4, &mut [0.0; 7]);
    });
    refused("a short result", "activation_forward", || {
        activation_forward(Activation::Gelu, &X[..4], &mut [0.0; 3]);
    });
    refused("another gate", "gated_forward", || {
        gated_forward(Activation::Silu, &X[..4], &X[..5], &mut [0.0; 4]);
    });
}

#[test]
fn losses_and_steps_that_make_no_sense() {
    refused("a target outside of the vocabulary", "vocabulary", || {
        cross_entropy_forward(&X[..8], &[0, 4], &[1.0, 1.0], None);
    });
    let input = LinearCrossEntropy {
        x: &X[..8],
        w: &X[..12],
        bias: None,
        targets: &[0, 3],
        weights: &[1.0, 1.0],
        d: 4,
        products: Products::F32,
    };
    refused("a target outside of the vocabulary", "vocabulary", || {
        linear_cross_entropy(input, None);
    });
    let key = Key::new(1, Purpose::Dropout, 0);
    refused("everything dropped", "probability", || {
        dropout_forward(&X[..4], 1.0, key, &mut [0.0; 4]);
    });
    let options = AdamW {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        step: 1,
    };
    let step = |gradients: usize, options| {
        let [mut p, mut m, mut v] = [[0.0; 4]; 3];
        adamw_step(&mut p, &X[..gradients], &mut m, &mut v, options);
    };
    step(4, options);
    refused("a missing gradient", "adamw_step", || step(3, options));
    let none = AdamW { step: 0, ..options };
    refused("a step that is none", "adamw_step", || step(4, none));
}
