//! Fixtures of encoder-decoder stacks without a model configuration: weights in the cases, embeddings in, states out.

use malmoi_models::{Head, Mode, Model, ModelConfig, PackedBatch};
use serde_json::{Value, json};

use crate::report::{CaseOutcome, Comparison};
use crate::{Fixture, FixtureError, FixtureReport};

/// Checks every case, which is one stack: output, encoder output and gradients.
pub fn check(fixture: &Fixture) -> FixtureReport {
    let mut report = FixtureReport::new(&fixture.name);
    for (case, described) in &fixture.cases {
        let outcome = match stack(fixture, case, described) {
            Ok(Ok(comparisons)) => CaseOutcome::from_comparisons(case, comparisons),
            Ok(Err(why)) => CaseOutcome::Unsupported(why),
            Err(error) => CaseOutcome::Fail(vec![Comparison::failed(case, error.to_string())]),
        };
        report.record(case, outcome);
    }
    report
}

/// What a case says of its stack in words; `Err` names what is not there or not known.
fn description(described: &Value) -> Result<Value, String> {
    let text = described.get("desc").and_then(Value::as_str);
    let text = text.ok_or("a stack without a description")?;
    let mut config = json!({ "model_type": "vanilla-transformer", "final_norm": false });
    // How weights are packed and what is differentiated is the same everywhere.
    let clauses = text.split(';').map(str::trim);
    let clauses = clauses
        .filter(|clause| !clause.starts_with("in_proj ") && !clause.starts_with("gradients "));
    for part in clauses.flat_map(|clause| clause.split(',').map(str::trim)) {
        let words: Vec<&str> = part.split_whitespace().collect();
        match words[..] {
            ["post-norm"] => config["norm_first"] = false.into(),
            ["pre-norm"] => config["norm_first"] = true.into(),
            ["relu" | "gelu"] => config["activation"] = part.into(),
            [n, "heads"] => {
                config["nhead"] = n
                    .parse::<u64>()
                    .map_err(|_| format!("heads: {part}"))?
                    .into();
            }
            ["final", "norms", ..] => config["final_norm"] = true.into(),
            ["layer_norm", "eps", eps] => {
                let eps: f64 = eps.parse().map_err(|_| format!("norms: {part}"))?;
                config["layer_norm_eps"] = eps.into();
            }
            // What every stack of this kind is, and what the tensors show.
            ["encoder-decoder", "stack"] | ["causal", "target", "mask"] | ["padded", "source"] => {}
            _ => return Err(format!("a stack with `{part}`")),
        }
    }
    match config.get("norm_first").and(config.get("nhead")) {
        Some(_) => Ok(config),
        None => {
            Err("a stack that does not say where its norms are and how many heads it has".into())
        }
    }
}

type Stack = Result<Result<Vec<Comparison>, String>, FixtureError>;

fn stack(fixture: &Fixture, case: &str, described: &Value) -> Stack {
    let mut config = match description(described) {
        Ok(config) => config,
        Err(why) => return Ok(Err(why)),
    };
    let weights = format!("{case}.weights.");
    let (src, tgt) = (format!("{case}.in.src"), format!("{case}.in.tgt"));
    let [b, s, d] = three(fixture, &src)?;
    let [targets, t, width] = three(fixture, &tgt)?;
    if (targets, width) != (b, d) {
        return Err(unfit(&tgt, &format!("[{b}, T, {d}]"), &[targets, t, width]));
    }
    let layers = |side: &str| {
        let last = ".linear1.weight";
        let prefix = format!("{weights}{side}.layers.");
        let names = fixture.names_with_prefix(&prefix);
        names.filter(|name| name.ends_with(last)).count()
    };
    let d_ff = fixture.shape(&format!("{weights}encoder.layers.0.linear1.weight"))?[0];
    for (key, value) in [
        ("d_model", d),
        ("dim_feedforward", d_ff),
        ("num_encoder_layers", layers("encoder")),
        ("num_decoder_layers", layers("decoder")),
        ("vocab_size", 1),
    ] {
        config[key] = value.into();
    }
    let config = match ModelConfig::from_json(&config, false) {
        Ok(config) => config,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let blank = Model::blank(config, Head::None);
    // Published tensors of the blocks, taken apart as a file's would be.
    let table = blank.name_table();
    let model = blank.fill(Mode::Training, |info| {
        let place = table.place(info);
        let name = format!("{weights}{}", place.name);
        if info.name == "token.weight" {
            return Ok(vec![0.0; info.len()]);
        }
        let found = fixture.shape(&name)?;
        if found != place.shape {
            return Err(unfit(&name, &format!("{:?}", place.shape), found));
        }
        let published = fixture.f32s(&name)?;
        Ok(malmoi_models::names::gather(info, place.part, published))
    })?;

    let real = match fixture.i64s(&format!("{case}.in.src_mask")) {
        Ok(mask) => mask.iter().map(|mask| *mask != 0).collect(),
        Err(_) => vec![true; b * s],
    };
    let mut lengths = vec![Vec::new(); b];
    let mut source = Vec::new();
    for (row, values) in fixture.f32s(&src)?.chunks_exact(d).enumerate() {
        if real[row] {
            lengths[row / s].push(0);
            source.extend_from_slice(values);
        }
    }
    let batch = PackedBatch::from_sequences(&vec![vec![0; t]; b])
        .with_source(PackedBatch::from_sequences(&lengths));
    let wanted = fixture.f32s(&format!("{case}.in.grad_out"))?.to_vec();
    let run = model.run_states(&batch, source, fixture.f32s(&tgt)?.to_vec(), wanted);
    let run = match run {
        Ok(run) => run,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut memory = vec![0.0; b * s * d];
    let mut rows = run.memory.chunks_exact(d);
    for (to, _) in (memory.chunks_exact_mut(d).zip(&real)).filter(|(_, real)| **real) {
        to.copy_from_slice(rows.next().expect("a state for every real position"));
    }
    let mut comparisons = vec![
        fixture.compare(&format!("{case}.out.memory"), &memory, Some(&real)),
        fixture.compare(&format!("{case}.out.y"), &run.output, None),
    ];
    let gradients: Vec<_> = run
        .gradients
        .into_iter()
        .map(|(info, gradient)| {
            let zeros = || vec![0.0; info.len()];
            let gradient = gradient.unwrap_or_else(zeros);
            (info, gradient)
        })
        .collect();
    let published = model.publish(&gradients);
    let prefix = format!("{case}.grad.");
    for name in fixture.names_with_prefix(&prefix) {
        let ours = published
            .iter()
            .find(|(ours, ..)| name.strip_prefix(&prefix) == Some(ours));
        comparisons.push(match ours {
            Some((_, _, values)) => fixture.compare(name, values, None),
            None => Comparison::failed(name, "the stack has no such parameter"),
        });
    }
    Ok(Ok(comparisons))
}

fn three(fixture: &Fixture, name: &str) -> Result<[usize; 3], FixtureError> {
    let shape = fixture.shape(name)?;
    shape
        .try_into()
        .map_err(|_| unfit(name, "three dimensions", shape))
}

fn unfit(name: &str, expected: &str, found: &[usize]) -> FixtureError {
    FixtureError::Tensor {
        name: name.to_owned(),
        expected: expected.to_owned(),
        found: format!("{found:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_word_by_word_or_refused() {
        let read = |text: &str| description(&json!({ "desc": text }));
        let config = read(
            "encoder-decoder stack, pre-norm, gelu, 3 heads, final norms on both stacks; layer_norm eps 1e-6",
        );
        let config = config.expect("all known");
        assert_eq!(config["norm_first"], json!(true));
        assert_eq!(config["nhead"], json!(3));
        assert_eq!(config["activation"], json!("gelu"));
        assert_eq!(config["final_norm"], json!(true));
        assert_eq!(config["layer_norm_eps"], json!(1e-6));
        for (text, named) in [
            ("post-norm, 4 heads, shared weights", "shared weights"),
            ("4 heads", "norms"),
            ("post-norm, some heads", "some heads"),
        ] {
            let why = read(text).expect_err(text);
            assert!(why.contains(named), "{why}");
        }
    }
}
