//! Case tables and tolerances for tests. A development dependency only.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// A folder at the root of the repository.
///
/// # Panics
/// When it does not exist: the test that asks for it cannot mean anything then.
fn root_folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join(name);
    assert!(
        folder.is_dir(),
        "{} is missing: the tests need the whole repository",
        folder.display()
    );
    folder
        .canonicalize()
        .expect("an existing folder has a canonical path")
}

/// The golden references of the repository.
pub fn golden_dir() -> PathBuf {
    root_folder("golden")
}

/// The bundled data of the repository.
pub fn data_dir() -> PathBuf {
    root_folder("data")
}

/// Sizes around a tile, where kernels go wrong: 0, 1, one less, the tile itself, one more, and a few tiles and a rest.
pub fn sizes_around(tile: usize) -> Vec<usize> {
    let mut sizes = vec![
        0,
        1,
        tile.saturating_sub(1),
        tile,
        tile + 1,
        3 * tile + tile / 2 + 1,
    ];
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// `n` reproducible values spread over [-1, 1), without a pattern that a wrong stride could hit by chance. Other seeds give other
/// values.
pub fn values(n: usize, seed: u64) -> Vec<f32> {
    // SplitMix64 (Steele, Lea and Flood 2014): one multiplication chain a value, any position alone.
    (0..n as u64)
        .map(|i| {
            let mut z = seed
                .wrapping_mul(0xD6E8_FEB8_6659_FD93)
                .wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            ((z >> 40) as f64 / f64::from(1u32 << 23) - 1.0) as f32
        })
        .collect()
}

/// Asserts that two lists agree element by element within `atol + rtol · |expected|`, and names the worst element otherwise.
///
/// # Panics
/// When they do not, when the lengths differ, or when a value is not a number.
#[track_caller]
pub fn assert_close<T: Copy + Into<f64> + Debug>(got: &[T], expected: &[T], atol: f64, rtol: f64) {
    assert_eq!(got.len(), expected.len(), "the lengths differ");
    let excess = |(&g, &e): (&T, &T)| {
        let (g, e): (f64, f64) = (g.into(), e.into());
        if g == e {
            0.0
        } else {
            (g - e).abs() / (atol + rtol * e.abs())
        }
    };
    let ratios: Vec<f64> = got.iter().zip(expected).map(excess).collect();
    let worst = ratios.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    if let Some((i, &ratio)) = worst {
        // A NaN is the largest in the total order, and not at most 1.
        assert!(
            ratio <= 1.0,
            "element {i}: got {:?}, expected {:?}, {ratio:.3} times the tolerance",
            got[i],
            expected[i]
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_reproducible_and_spread() {
        let a = values(10_000, 1);
        assert_eq!(a, values(10_000, 1));
        assert_ne!(a, values(10_000, 2));
        assert!(a.iter().all(|x| (-1.0..1.0).contains(x)));
        let mean = a.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e4;
        // Standard deviation of the mean: 1/sqrt(3 · 10⁴) = 0.0058; five of them.
        assert!(mean.abs() < 0.029, "{mean}");
    }

    #[test]
    fn close_lists_pass() {
        assert_close(&[1.0f32, 2.0], &[1.0, 2.0001], 1e-3, 0.0);
        assert_close::<f64>(&[], &[], 0.0, 0.0);
    }

    #[test]
    #[should_panic(expected = "element 1: got 2.0, expected 3.0")]
    fn the_worst_element_is_named() {
        assert_close(&[1.0f64, 2.0], &[1.0, 3.0], 0.1, 0.0);
    }

    #[test]
    #[should_panic(expected = "element 0")]
    fn a_nan_is_not_close() {
        assert_close(&[f64::NAN], &[0.0], 1e9, 0.0);
    }
}
