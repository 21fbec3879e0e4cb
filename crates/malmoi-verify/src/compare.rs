//! Comparing computed values with expected ones, element by element.

use crate::report::{Comparison, Difference};

/// Share of the elements that must be within `atol_90_percent`. The name of the key says 90, the references promise 85
/// to leave room for another order of summation.
const TIGHT_FRACTION: f64 = 0.85;

/// How close is close enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Absolute part.
    pub atol: f64,
    /// Part relative to the expected value.
    pub rtol: f64,
    /// A tighter absolute bound that at least 85 % of the elements must meet.
    pub atol_90_percent: Option<f64>,
}

/// Row-major multi-dimensional index of a flat one.
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, extent) in index.iter_mut().zip(shape).rev() {
        *place = flat % extent.max(&1);
        flat /= extent.max(&1);
    }
    index
}

/// Elements that one mask entry covers, or a message when the element counts differ or the mask does not fit them.
fn mask_run(
    elements: usize,
    expected: usize,
    shape: &[usize],
    mask: Option<&[bool]>,
) -> Result<usize, String> {
    if elements != expected {
        return Err(format!(
            "got {elements} elements, expected {expected} (shape {shape:?})"
        ));
    }
    match mask {
        None => Ok(1),
        Some(mask) if elements == 0 && mask.is_empty() => Ok(1),
        Some(mask) if !mask.is_empty() && elements.is_multiple_of(mask.len()) => {
            Ok(elements / mask.len())
        }
        Some(mask) => Err(format!(
            "a mask of {} entries does not fit {elements} elements",
            mask.len()
        )),
    }
}

/// Compares floating-point values: every unmasked element must satisfy `|got - expected| <= atol + rtol * |expected|`, and
/// 85 % of them the tighter bound where there is one. Equal infinities and a NaN where the reference has one agree.
pub fn compare<G: Copy + Into<f64>, E: Copy + Into<f64>>(
    name: &str,
    got: &[G],
    expected: &[E],
    shape: &[usize],
    tolerance: Tolerance,
    mask: Option<&[bool]>,
) -> Comparison {
    let run = match mask_run(got.len(), expected.len(), shape, mask) {
        Ok(run) => run,
        Err(message) => return Comparison::failed(name, message),
    };
    let (mut elements, mut worst, mut outside, mut tight) = (0usize, 0.0f64, 0usize, 0usize);
    let mut first = None;
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        if mask.is_some_and(|mask| !mask[i / run]) {
            continue;
        }
        let (g, e): (f64, f64) = (g.into(), e.into());
        elements += 1;
        let error = if g == e || (g.is_nan() && e.is_nan()) {
            0.0
        } else {
            (g - e).abs()
        };
        let bound = tolerance.atol + tolerance.rtol * e.abs();
        let ratio = if error == 0.0 {
            0.0
        } else if error.is_finite() && bound.is_finite() {
            error / bound
        } else {
            f64::INFINITY
        };
        worst = worst.max(ratio);
        if ratio > 1.0 {
            outside += 1;
            first = first.or(Some((i, g, e)));
        }
        if let Some(atol) = tolerance.atol_90_percent {
            tight += usize::from(error <= atol + tolerance.rtol * e.abs());
        }
    }
    let within = tight as f64 / elements.max(1) as f64;
    let difference = if let Some((i, g, e)) = first {
        Some(Difference::Element {
            index: unravel(i, shape),
            got: g.to_string(),
            expected: e.to_string(),
            outside,
        })
    } else if tolerance.atol_90_percent.is_some() && elements > 0 && within < TIGHT_FRACTION {
        Some(Difference::Fraction {
            within,
            required: TIGHT_FRACTION,
        })
    } else {
        None
    };
    Comparison {
        name: name.to_owned(),
        elements,
        worst,
        difference,
    }
}

/// Compares integers: every unmasked element must be equal.
pub fn compare_integers(
    name: &str,
    got: &[i64],
    expected: &[i64],
    shape: &[usize],
    mask: Option<&[bool]>,
) -> Comparison {
    let run = match mask_run(got.len(), expected.len(), shape, mask) {
        Ok(run) => run,
        Err(message) => return Comparison::failed(name, message),
    };
    let (mut elements, mut outside, mut first) = (0, 0, None);
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        if mask.is_some_and(|mask| !mask[i / run]) {
            continue;
        }
        elements += 1;
        if g != e {
            outside += 1;
            first = first.or(Some((i, g, e)));
        }
    }
    let difference = first.map(|(i, g, e)| Difference::Element {
        index: unravel(i, shape),
        got: g.to_string(),
        expected: e.to_string(),
        outside,
    });
    let worst = if difference.is_some() {
        f64::INFINITY
    } else {
        0.0
    };
    Comparison {
        name: name.to_owned(),
        elements,
        worst,
        difference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Tolerance = Tolerance {
        atol: 0.1,
        rtol: 0.0,
        atol_90_percent: None,
    };

    #[test]
    fn values_within_the_tolerance_pass_and_report_its_use() {
        let c = compare("x", &[1.0f64, 2.05], &[1.0f64, 2.0], &[2], T, None);
        assert!(c.passes());
        assert!((c.worst - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_first_element_outside_is_named_by_its_index() {
        let c = compare(
            "x",
            &[0.0f32, 0.0, 9.0, 8.0],
            &[0.0f32; 4],
            &[2, 2],
            T,
            None,
        );
        let Some(Difference::Element { index, outside, .. }) = c.difference else {
            panic!("must differ")
        };
        assert_eq!((index, outside), (vec![1, 0], 2));
    }

    #[test]
    fn a_nan_differs() {
        let c = compare("x", &[f64::NAN], &[0.0f64], &[1], T, None);
        assert!(!c.passes());
        assert!(c.worst.is_infinite());
    }

    #[test]
    fn masked_elements_need_not_agree() {
        let got = [1.0f64, 1.0, 7.0, 7.0];
        let expected = [1.0f64, 1.0, 0.0, 0.0];
        let c = compare("x", &got, &expected, &[2, 2], T, Some(&[true, false]));
        assert!(c.passes());
        assert_eq!(c.elements, 2);
        assert!(!compare("x", &got, &expected, &[2, 2], T, Some(&[true; 3])).passes());
    }

    #[test]
    fn too_few_elements_within_the_tighter_bound_fail() {
        let tolerance = Tolerance {
            atol_90_percent: Some(0.01),
            ..T
        };
        let mut got = vec![0.0f64; 20];
        got[..3].fill(0.05);
        assert!(compare("x", &got, &[0.0f64; 20], &[20], tolerance, None).passes());
        got[3] = 0.05;
        let c = compare("x", &got, &[0.0f64; 20], &[20], tolerance, None);
        assert!(matches!(c.difference, Some(Difference::Fraction { .. })));
    }

    #[test]
    fn integers_must_be_equal_and_counts_must_match() {
        assert!(compare_integers("x", &[1, 2], &[1, 2], &[2], None).passes());
        assert!(!compare_integers("x", &[1, 3], &[1, 2], &[2], None).passes());
        assert!(!compare_integers("x", &[1], &[1, 2], &[2], None).passes());
        assert!(!compare("x", &[1.0f64], &[1.0f64, 2.0], &[2], T, None).passes());
    }
}
