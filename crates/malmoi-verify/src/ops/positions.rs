//! Position schemes of an operations fixture.

use malmoi_kernels::rotary::{Pairs, Rotary as RotaryShape, Turn, rotary};
use malmoi_nn::positions::{Sides, Sinusoid, alibi_slopes, relative_bucket, sinusoids};

use super::{Checked, four};
use crate::{Comparison, Fixture, FixtureError};

/// The base that the fixtures' rotations and sinusoids have.
const BASE: f32 = 10_000.0;

/// One scheme.
pub(super) fn check(fixture: &Fixture, name: &str) -> Checked {
    let tensor = format!("positions.out.{name}");
    let compared = match name {
        "sinusoid_interleaved" => sinusoid(fixture, &tensor, Sinusoid::Interleaved)?,
        "sinusoid_concat" => sinusoid(fixture, &tensor, Sinusoid::Concatenated)?,
        "rope_half_split" => rope(fixture, &tensor, Pairs::Halves)?,
        "rope_interleaved" => rope(fixture, &tensor, Pairs::Neighbours)?,
        "alibi_slopes" => {
            let heads = fixture.shape(&tensor)?.iter().product();
            fixture.compare(&tensor, &alibi_slopes(heads), None)
        }
        "t5_bucket" => return buckets(fixture).map(Some),
        _ => return Ok(None),
    };
    Ok(Some(vec![compared]))
}

fn sinusoid(fixture: &Fixture, tensor: &str, layout: Sinusoid) -> Result<Comparison, FixtureError> {
    match *fixture.shape(tensor)? {
        [n, d] if d.is_multiple_of(2) => {
            Ok(fixture.compare(tensor, &sinusoids(n, d, layout), None))
        }
        ref shape => Err(unfit(tensor, "[positions, an even width]", shape)),
    }
}

/// `[B, H, T, D]` with positions from 0.
fn rope(fixture: &Fixture, tensor: &str, pairs: Pairs) -> Result<Comparison, FixtureError> {
    let input = "positions.in.rope_x";
    let shape @ [b, h, t, d] = four(fixture, input)?;
    if !d.is_multiple_of(2) || d == 0 {
        return Err(unfit(input, "heads of an even width", &shape));
    }
    let angles = malmoi_nn::Rotary::new(BASE, d, pairs);
    let angle = |at: usize| (at / (d / 2)) as f32 * angles.frequencies[at % (d / 2)];
    let (cos, sin): (Vec<f32>, Vec<f32>) = (0..t * (d / 2))
        .map(|at| (angle(at).cos(), angle(at).sin()))
        .unzip();
    // Every head of every sequence is a row of its own.
    let positions: Vec<u32> = (0..b * h * t).map(|row| (row % t) as u32).collect();
    let layout = RotaryShape {
        positions: &positions,
        cos: &cos,
        sin: &sin,
        d_rotary: d,
        d_head: d,
        pairs,
    };
    let x = fixture.f32s(input)?;
    let mut y = vec![0.0; x.len()];
    rotary(&layout, Turn::Forward, x, &mut y);
    Ok(fixture.compare(tensor, &y, None))
}

/// Every `t5_bucket.N.M.SIDES`: N buckets up to distance M, for distances around 0.
fn buckets(fixture: &Fixture) -> Result<Vec<Comparison>, FixtureError> {
    let names = fixture.names_with_prefix("positions.out.t5_bucket.");
    let names: Vec<String> = names.map(str::to_owned).collect();
    let mut comparisons = Vec::new();
    for name in names {
        let parts: Vec<&str> = name.split('.').collect();
        let (&[_, _, _, n, max, sides], &[len]) = (&parts[..], fixture.shape(&name)?) else {
            return Err(unfit(&name, "t5_bucket.N.M.SIDES with one dimension", &[]));
        };
        let sides = match sides {
            "bidirectional" => Sides::Both,
            "causal" => Sides::Left,
            _ => return Err(unfit(&name, "bidirectional or causal buckets", &[])),
        };
        let (Ok(n), Ok(max)) = (n.parse(), max.parse()) else {
            return Err(unfit(&name, "numbers of buckets and distances", &[]));
        };
        let half = (len / 2) as i64;
        let got: Vec<i64> = (-half..len as i64 - half)
            .map(|distance| relative_bucket(distance, sides, n, max).into())
            .collect();
        comparisons.push(fixture.compare_integers(&name, &got, None));
    }
    Ok(comparisons)
}

fn unfit(name: &str, expected: &str, found: &[usize]) -> FixtureError {
    FixtureError::Tensor {
        name: name.to_owned(),
        expected: expected.to_owned(),
        found: format!("{found:?}"),
    }
}
