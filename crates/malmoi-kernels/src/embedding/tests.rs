use super::*;
use crate::naive::embedding as naive;
use crate::random::{Key, Purpose};
use crate::testing::{assert_same_bits_on_any_threads, for_each_isa, normals};

fn ids(n: usize, rows: u64) -> Vec<u32> {
    let key = Key::new(1, Purpose::Other(2), 0);
    (0..n as u64)
        .map(|i| key.below_at(i, rows) as u32)
        .collect()
}

#[test]
fn look_ups_and_their_gradients_equal_the_naive_ones_exactly() {
    for_each_isa(|_| {
        for (n, d) in [
            (0, 4),
            (1, 1),
            (7, 127),
            (50, 128),
            (50, 129),
            (3000, 33),
            (700, 300),
        ] {
            let (words, places) = (normals(1, 40 * d), normals(2, 9 * d));
            let (word_ids, place_ids) = (ids(n, 40), ids(n, 9));
            let (mut got, mut expected) = (vec![9.0; n * d], vec![9.0; n * d]);
            gather_rows(&words, d, &word_ids, &mut got);
            naive::gather_rows(&words, d, &word_ids, &mut expected);
            assert_eq!(got, expected);
            let tables = [(&words[..], &word_ids[..]), (&places[..], &place_ids[..])];
            embedding_sum(&tables, d, &mut got);
            naive::embedding_sum(&tables, d, &mut expected);
            assert_eq!(got, expected);
            let dy = normals(3, n * d);
            let (mut got, mut expected) = (words.clone(), words.clone());
            scatter_add_rows(&dy, d, &word_ids, &mut got);
            naive::scatter_add_rows(&dy, d, &word_ids, &mut expected);
            assert_eq!(got, expected);
        }
        let mut nothing = vec![9.0; 4];
        embedding_sum(&[], 2, &mut nothing);
        assert_eq!(nothing, [0.0; 4]);
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for_each_isa(|_| {
        let (d, ids) = (400, ids(2000, 30));
        let dy = normals(1, ids.len() * d);
        assert_same_bits_on_any_threads("scatter", || {
            let mut table = vec![0.0; 30 * d];
            scatter_add_rows(&dy, d, &ids, &mut table);
            table
        });
    });
}

#[test]
fn ids_without_a_row_are_named() {
    assert_eq!(check_ids(&[0, 4], 5), Ok(()));
    let error = check_ids(&[0, 5, 9], 5).expect_err("5 is too large");
    assert_eq!(
        error,
        IdOutOfRange {
            position: 1,
            id: 5,
            rows: 5
        }
    );
    assert_eq!(
        error.to_string(),
        "id 5 at position 1 has no row in a table of 5 rows"
    );
}

#[test]
#[should_panic(expected = "id 3 at position 0 has no row in a table of 3 rows")]
fn looking_up_a_missing_row_panics() {
    gather_rows(&[0.0; 6], 2, &[3], &mut [0.0; 2]);
}
