use super::*;
use crate::naive::dropout as naive;
use crate::random::Purpose;
use crate::testing::{assert_same_bits_on_any_threads, for_each_isa, normals};

#[test]
fn dropout_equals_the_naive_one_exactly() {
    for_each_isa(|_| {
        let key = Key::new(1, Purpose::Dropout, 3);
        for n in [0, 1, 3, 4, 5, 63, 64, 65, CHUNK - 1, CHUNK, 3 * CHUNK + 7] {
            let (x, r) = (normals(1, n), normals(2, n));
            for p in [0.0, 0.1, 0.9] {
                let (mut got, mut expected) = (vec![9.0; n], vec![9.0; n]);
                dropout_forward(&x, p, key, &mut got);
                naive::dropout_forward(&x, p, key, &mut expected);
                assert_eq!(got, expected);
                add_dropout_residual(&x, &r, p, key, &mut got);
                naive::add_dropout_residual(&x, &r, p, key, &mut expected);
                assert_eq!(got, expected);
            }
        }
    });
}

#[test]
fn the_right_share_is_dropped_and_the_mean_kept() {
    for_each_isa(|_| {
        let n = 200_000;
        let mut y = vec![0.0; n];
        dropout_forward(&vec![1.0; n], 0.1, Key::new(5, Purpose::Dropout, 0), &mut y);
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / n as f64;
        // Standard deviation sqrt(0.09 / n) = 0.00067; five of them.
        assert!((dropped - 0.1).abs() < 0.0034, "{dropped}");
        assert!((crate::reduce::mean(&y) - 1.0).abs() < 0.0038);
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        let x = normals(1, 200_000);
        assert_same_bits_on_any_threads("dropout", || {
            let mut y = vec![0.0; x.len()];
            dropout_forward(&x, 0.3, Key::new(1, Purpose::Dropout, 0), &mut y);
            y
        });
    });
}
