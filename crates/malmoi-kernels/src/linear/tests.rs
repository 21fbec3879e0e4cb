use super::*;
use crate::activation::Activation;
use crate::naive::linear as naive;
use crate::testing::{assert_close, for_each_isa, normals};

#[test]
fn layers_equal_the_naive_ones_on_every_isa() {
    for_each_isa(|isa| {
        for (n, d_in, d_out) in [
            (0, 3, 4),
            (1, 1, 1),
            (1, 65, 130),
            (7, 33, 2),
            (8, 128, 65),
            (65, 128, 512),
            (29, 31, 33),
        ] {
            let (x, w, dy) = (
                normals(1, n * d_in),
                normals(2, d_in * d_out),
                normals(3, n * d_out),
            );
            let bias = normals(4, d_out);
            let what = format!("{n} rows {d_in} to {d_out} on {isa}");
            // The random walk of roundings derived in the tests of the matrix product.
            let atol = 1.5e-7 * d_in.max(d_out).max(n) as f32 + 2e-6;
            let (mut got, mut expected) = (vec![9.0; n * d_out], vec![9.0; n * d_out]);
            for bias in [None, Some(&bias[..])] {
                linear_forward(&x, &w, bias, d_in, d_out, &mut got);
                naive::linear_forward(&x, &w, bias, d_in, d_out, &mut expected);
                assert_close(&what, &got, &expected, atol, 1e-6);
                let packed = PackedWeights::new(Mat::row_major(&w, d_out, d_in).into());
                assert_eq!((packed.d_in(), packed.d_out()), (d_in, d_out));
                linear_forward_packed(&x, &packed, Epilogue::bias(bias), &mut got);
                assert_close(&format!("packed {what}"), &got, &expected, atol, 1e-6);
                let epilogue = Epilogue {
                    bias,
                    activation: Activation::Gelu,
                };
                linear_forward_with(&x, &w, epilogue, d_in, d_out, &mut got);
                let before = expected.clone();
                crate::naive::activation::activation_forward(
                    Activation::Gelu,
                    &before,
                    &mut expected,
                );
                assert_close(&format!("gelu {what}"), &got, &expected, 2.0 * atol, 2e-6);
            }
            let (mut got, mut expected) = (vec![9.0; n * d_in], vec![9.0; n * d_in]);
            linear_backward_input(&dy, &w, d_in, d_out, &mut got);
            naive::linear_backward_input(&dy, &w, d_in, d_out, &mut expected);
            assert_close(&what, &got, &expected, atol, 1e-6);
            for accumulate in [false, true] {
                let (mut got, mut expected) = (vec![9.0; w.len()], vec![9.0; w.len()]);
                linear_backward_weight(&dy, &x, d_in, d_out, &mut got, accumulate);
                naive::linear_backward_weight(&dy, &x, d_in, d_out, &mut expected, accumulate);
                assert_close(&what, &got, &expected, atol, 1e-6);
                let (mut got, mut expected) = (vec![9.0; d_out], vec![9.0; d_out]);
                linear_backward_bias(&dy, d_out, &mut got, accumulate);
                naive::linear_backward_bias(&dy, d_out, &mut expected, accumulate);
                assert_close(&what, &got, &expected, atol, 1e-6);
            }
        }
    });
}
