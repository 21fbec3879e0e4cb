//! Fixtures of single operations: activations, norms, attention, positions and losses, run on the kernels that models use.

mod losses;
mod positions;

use malmoi_kernels::activation::{Activation, activation_backward, activation_forward};
use malmoi_kernels::attention::{AttentionShape, Mask, attention_forward, attention_probabilities};
use malmoi_kernels::norm::{
    LayerNorm, LayerNormOut, NormGradients, RmsNorm, RmsNormOut, layer_norm_backward,
    layer_norm_forward, rms_norm_backward, rms_norm_forward,
};

use crate::report::{CaseOutcome, Comparison};
use crate::{Fixture, FixtureError, FixtureReport};

/// Prefixes of the tensor names of such a fixture.
pub const GROUPS: &[&str] = &[
    "activations.",
    "norms.",
    "attention.",
    "positions.",
    "losses.",
];

/// What can come of a case before it is judged: comparisons, or the name of what is not implemented.
type Checked = Result<Option<Vec<Comparison>>, FixtureError>;

/// Checks a fixture of operations. A case is one operation: its output and, where given, its gradients.
pub fn check(fixture: &Fixture) -> FixtureReport {
    let mut report = FixtureReport::new(&fixture.name);
    for (case, tensors) in cases(fixture) {
        let checked = match case.split_once('.') {
            Some(("activations", name)) => activation(fixture, name),
            Some(("layer_norm", _)) => layer_norm(fixture, &case),
            Some(("attention", name)) => attention(fixture, name),
            Some(("losses", name)) => losses::check(fixture, name),
            Some(("positions", name)) => positions::check(fixture, name),
            None if case == "rms_norm" => rms_norm(fixture),
            _ => Ok(None),
        };
        let outcome = match checked {
            Ok(None) => CaseOutcome::Unsupported("no such kernel".into()),
            Ok(Some(comparisons)) => {
                CaseOutcome::from_comparisons(&case, unchecked(comparisons, &tensors))
            }
            Err(error) => CaseOutcome::Fail(vec![Comparison::failed(&case, error.to_string())]),
        };
        report.record(&case, outcome);
    }
    report
}

/// Cases in file order, each with its expected tensors: `activations.gelu`, `layer_norm.eps1e-5`, `positions.t5_bucket`, and so on.
fn cases(fixture: &Fixture) -> Vec<(String, Vec<&str>)> {
    let mut cases: Vec<(String, Vec<&str>)> = Vec::new();
    for name in fixture
        .order
        .iter()
        .map(String::as_str)
        .filter(|name| !name.contains(".in."))
    {
        // `G.out.X` and `G.grad.X` belong to the case `G.X`; `layer_norm.E.out` and `layer_norm.E.grad.x` to `layer_norm.E`.
        let case = match (name.split_once(".out"), name.split_once(".grad")) {
            (Some((group, rest)), _) | (None, Some((group, rest)))
                if GROUPS.iter().any(|g| g.trim_end_matches('.') == group) =>
            {
                let rest = rest.trim_start_matches('.');
                // Every variant of the buckets is one function.
                let rest = if rest.starts_with("t5_bucket") {
                    "t5_bucket"
                } else {
                    rest
                };
                format!("{group}.{rest}")
            }
            (Some((group, _)), _) | (None, Some((group, _))) => group.to_owned(),
            (None, None) => name.to_owned(),
        };
        match cases.iter_mut().find(|(known, _)| *known == case) {
            Some((_, tensors)) => tensors.push(name),
            None => cases.push((case, vec![name])),
        }
    }
    cases
}

/// Adds a failure for every expected tensor of a case that was not compared.
fn unchecked(mut comparisons: Vec<Comparison>, tensors: &[&str]) -> Vec<Comparison> {
    for tensor in tensors {
        if !comparisons
            .iter()
            .any(|comparison| comparison.name == *tensor)
        {
            comparisons.push(Comparison::failed(*tensor, "this tensor is not computed"));
        }
    }
    comparisons
}

fn activation(fixture: &Fixture, name: &str) -> Checked {
    let kind = match name {
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        "relu2" => Activation::ReluSquared,
        "leaky_relu" => Activation::LeakyRelu,
        "mish" => Activation::Mish,
        "silu" => Activation::Silu,
        "tanh" => Activation::Tanh,
        "sigmoid" => Activation::Sigmoid,
        _ => return Ok(None),
    };
    let x = fixture.f32s("activations.in.x")?;
    let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    activation_forward(kind, x, &mut y);
    activation_backward(kind, x, &vec![1.0; x.len()], &mut dx);
    let mut comparisons = vec![fixture.compare(&format!("activations.out.{name}"), &y, None)];
    let gradient = format!("activations.grad.{name}");
    if fixture.has(&gradient) {
        comparisons.push(fixture.compare(&gradient, &dx, None));
    }
    Ok(Some(comparisons))
}

/// Inputs of the norms: rows, scale, shift and the gradient of the output.
struct NormInputs<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    dy: &'a [f32],
}

fn norm_inputs(fixture: &Fixture) -> Result<NormInputs<'_>, FixtureError> {
    let inputs = NormInputs {
        x: fixture.f32s("norms.in.x")?,
        gamma: fixture.f32s("norms.in.weight")?,
        beta: fixture.f32s("norms.in.bias")?,
        dy: fixture.f32s("norms.in.grad_out")?,
    };
    let d = inputs.gamma.len();
    if d == 0
        || !inputs.x.len().is_multiple_of(d)
        || inputs.beta.len() != d
        || inputs.dy.len() != inputs.x.len()
    {
        return Err(FixtureError::Tensor {
            name: "norms.in.x".into(),
            expected: format!("rows of {d} with a gradient of the same shape and a bias of {d}"),
            found: format!(
                "{} elements, a gradient of {}, a bias of {}",
                inputs.x.len(),
                inputs.dy.len(),
                inputs.beta.len()
            ),
        });
    }
    Ok(inputs)
}

fn not_a_number(name: &str) -> FixtureError {
    FixtureError::Value {
        key: name.to_owned(),
        expected: "a number".into(),
        found: "none".into(),
    }
}

fn layer_norm(fixture: &Fixture, case: &str) -> Checked {
    let eps: f32 = case
        .strip_prefix("layer_norm.eps")
        .and_then(|eps| eps.parse().ok())
        .ok_or_else(|| not_a_number(case))?;
    let NormInputs { x, gamma, beta, dy } = norm_inputs(fixture)?;
    let rows = x.len() / gamma.len();
    let (mut y, mut mean, mut rstd) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; rows]);
    let norm = LayerNorm {
        gamma,
        beta: Some(beta),
        eps,
    };
    layer_norm_forward(
        x,
        None,
        norm,
        LayerNormOut {
            y: &mut y,
            sum: None,
            mean: &mut mean,
            rstd: &mut rstd,
        },
    );
    let (mut dx, mut dgamma, mut dbeta) = (
        vec![0.0; x.len()],
        vec![0.0; gamma.len()],
        vec![0.0; gamma.len()],
    );
    let gradients = NormGradients {
        dx: &mut dx,
        dgamma: &mut dgamma,
        dbeta: Some(&mut dbeta),
    };
    layer_norm_backward(x, &mean, &rstd, gamma, dy, gradients);
    Ok(Some(vec![
        fixture.compare(&format!("{case}.out"), &y, None),
        fixture.compare(&format!("{case}.grad.x"), &dx, None),
        fixture.compare(&format!("{case}.grad.weight"), &dgamma, None),
        fixture.compare(&format!("{case}.grad.bias"), &dbeta, None),
    ]))
}

fn rms_norm(fixture: &Fixture) -> Checked {
    // The constant stands in a sentence: `rms_norm (eps 1e-6)`.
    let text = fixture
        .cases
        .get("norms")
        .and_then(|text| text.as_str())
        .unwrap_or_default();
    let eps: f32 = text
        .split_once("rms_norm (eps ")
        .and_then(|(_, rest)| rest.split(')').next())
        .and_then(|eps| eps.parse().ok())
        .ok_or_else(|| not_a_number("cases.norms: rms_norm (eps …)"))?;
    let NormInputs { x, gamma, dy, .. } = norm_inputs(fixture)?;
    let (mut y, mut rstd) = (vec![0.0; x.len()], vec![0.0; x.len() / gamma.len()]);
    rms_norm_forward(
        x,
        None,
        RmsNorm { gamma, eps },
        RmsNormOut {
            y: &mut y,
            sum: None,
            rstd: &mut rstd,
        },
    );
    let (mut dx, mut dgamma) = (vec![0.0; x.len()], vec![0.0; gamma.len()]);
    let gradients = NormGradients {
        dx: &mut dx,
        dgamma: &mut dgamma,
        dbeta: None,
    };
    rms_norm_backward(x, &rstd, gamma, dy, gradients);
    Ok(Some(vec![
        fixture.compare("rms_norm.out", &y, None),
        fixture.compare("rms_norm.grad.x", &dx, None),
        fixture.compare("rms_norm.grad.weight", &dgamma, None),
    ]))
}

/// A padded `[B, H, T, D]` tensor of which each sequence keeps the listed tokens, packed as `[N, H·D]`.
struct Packed {
    data: Vec<f32>,
    cu: Vec<u32>,
}

fn pack(data: &[f32], [_, h, t, d]: [usize; 4], keep: &[Vec<usize>]) -> Packed {
    let mut packed = Packed {
        data: Vec::new(),
        cu: vec![0],
    };
    let mut rows = 0;
    for (sequence, keep) in keep.iter().enumerate() {
        for &token in keep {
            for head in 0..h {
                let row = ((sequence * h + head) * t + token) * d;
                packed.data.extend_from_slice(&data[row..row + d]);
            }
            rows += 1;
        }
        packed.cu.push(rows);
    }
    packed
}

fn four(fixture: &Fixture, name: &str) -> Result<[usize; 4], FixtureError> {
    let shape = fixture.shape(name)?;
    shape.try_into().map_err(|_| FixtureError::Tensor {
        name: name.to_owned(),
        expected: "four dimensions".into(),
        found: format!("{shape:?}"),
    })
}

fn attention(fixture: &Fixture, name: &str) -> Checked {
    // The mask, whether keys are masked, and whether the keys are the queries' own.
    let (mask, masked, own) = match name {
        "probs" | "context" => (Mask::Full, true, false),
        "causal_offset_probs" => (Mask::Causal, false, false),
        // `0 <= i - j < 2`
        "banded_causal_probs" => (Mask::Window { left: 1, right: 0 }, false, true),
        // `0 <= i - j` and even
        "strided_causal_probs" => (Mask::Strided { stride: 2 }, false, true),
        _ => return Ok(None),
    };
    let (k_name, v_name) = if own {
        ("attention.in.k_self", "attention.in.v_self")
    } else {
        ("attention.in.k", "attention.in.v")
    };
    let q_shape @ [b, h, tq, d] = four(fixture, "attention.in.q")?;
    let k_shape @ [_, _, tk, _] = four(fixture, k_name)?;
    if k_shape != [b, h, tk, d] || four(fixture, v_name)? != k_shape {
        return Err(FixtureError::Tensor {
            name: k_name.into(),
            expected: format!("keys and values of the shape [{b}, {h}, T, {d}]"),
            found: format!("{k_shape:?}"),
        });
    }
    let mut keep_k = vec![(0..tk).collect::<Vec<usize>>(); b];
    if masked {
        let key_mask = fixture.i64s("attention.in.key_mask")?;
        for (sequence, keep) in keep_k.iter_mut().enumerate() {
            keep.retain(|&token| key_mask.get(sequence * tk + token) == Some(&1));
        }
    }
    let q = pack(
        fixture.f32s("attention.in.q")?,
        q_shape,
        &vec![(0..tq).collect(); b],
    );
    let k = pack(fixture.f32s(k_name)?, k_shape, &keep_k);
    let v = pack(fixture.f32s(v_name)?, k_shape, &keep_k);
    let shape = AttentionShape::new(&q.cu, &k.cu, h, d, mask);
    let tensor = format!("attention.out.{name}");
    if name == "context" {
        let mut out = vec![0.0; q.data.len()];
        attention_forward(
            &shape,
            &q.data,
            &k.data,
            &v.data,
            &mut out,
            &mut vec![0.0; h * b * tq],
        );
        // [B·Tq, H, D] to [B, H, Tq, D].
        let mut context = Vec::with_capacity(out.len());
        for sequence in 0..b {
            for head in 0..h {
                for query in 0..tq {
                    let at = ((sequence * tq + query) * h + head) * d;
                    context.extend_from_slice(&out[at..at + d]);
                }
            }
        }
        return Ok(Some(vec![fixture.compare(&tensor, &context, None)]));
    }
    let mut packed = vec![0.0; shape.probabilities_len()];
    attention_probabilities(&shape, &q.data, &k.data, &mut packed);
    // Packed [H, Tq, kept keys] a sequence to [B, H, Tq, Tk]; keys left out have the probability 0.
    let mut probs = vec![0.0; b * h * tq * tk];
    let mut values = packed.into_iter();
    for (sequence, keep) in keep_k.iter().enumerate() {
        for row in 0..h * tq {
            for (&key, value) in keep.iter().zip(values.by_ref()) {
                probs[(sequence * h * tq + row) * tk + key] = value;
            }
        }
    }
    Ok(Some(vec![fixture.compare(&tensor, &probs, None)]))
}
