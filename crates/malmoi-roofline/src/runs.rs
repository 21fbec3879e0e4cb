//! Models with random weights, run and timed.

use std::hint::black_box;
use std::time::Instant;

use malmoi_kernels::profile;
use malmoi_kernels::random::{Key, Purpose};
use malmoi_models::{Direction, Mode, Model, ModelConfig, PackedBatch, Precision};
use malmoi_train::data::{Example, MicroBatch};
use malmoi_train::optim::{Adam, LearningRate, Optimizer, Rule, Schedule};
use malmoi_train::pretrain::{StepOptions, Trainer};

use crate::bench::BenchError;
use crate::cost::{MASKED, Phase, Work};

/// Best and median seconds of a run.
pub(crate) type Times = (f64, f64);

/// Best and median seconds of `runs` calls after `warm` calls.
pub(crate) fn timed(
    runs: usize,
    warm: usize,
    mut f: impl FnMut() -> Result<(), BenchError>,
) -> Result<Times, BenchError> {
    for _ in 0..warm {
        f()?;
    }
    // What came before, such as drawing the weights, is no part of a profile.
    if profile::enabled() {
        profile::start();
    }
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        f()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(best_and_median(seconds))
}

fn best_and_median(mut seconds: Vec<f64>) -> Times {
    seconds.sort_by(f64::total_cmp);
    (seconds[0], seconds[seconds.len() / 2])
}

/// `n` ids below `vocab_size`.
pub(crate) fn ids(stream: u64, n: usize, vocab_size: usize) -> Vec<u32> {
    let key = Key::new(0, Purpose::Other(0), stream);
    (0..n as u64)
        .map(|i| key.below_at(i, vocab_size as u64) as u32)
        .collect()
}

pub(crate) fn preset(name: &str) -> ModelConfig {
    ModelConfig::preset(name).expect("a preset of this program")
}

/// A model that writes, with its projection to the vocabulary.
pub(crate) fn writer(config: &ModelConfig, precision: Precision) -> Model {
    Model::initialise(config.clone(), config.usual_head(), 0, Mode::Inference)
        .with_precision(precision)
}

/// Hidden states of an encoder for batches of sequences of these lengths; the time of all batches together.
pub(crate) fn encode(
    config: &ModelConfig,
    precision: Precision,
    batches: &[&[usize]],
    runs: usize,
    warm: usize,
) -> Result<Times, BenchError> {
    // The bare encoder, or the pair.
    let model = writer(config, precision);
    let vocab_size = model.config().vocab_size();
    let mut stream = 0;
    let mut pack = |lengths: &&[usize]| {
        let sequences: Vec<Vec<u32>> = lengths
            .iter()
            .map(|&n| {
                stream += 1;
                ids(stream, n, vocab_size)
            })
            .collect();
        PackedBatch::from_sequences(&sequences)
    };
    let batches: Vec<PackedBatch> = batches.iter().map(&mut pack).collect();
    let behind = config.direction() == Direction::EncoderDecoder;
    timed(runs, warm, || {
        for batch in &batches {
            if behind {
                black_box(model.source_hidden_states(batch)?);
            } else {
                black_box(model.last_hidden(batch)?);
            }
        }
        Ok(())
    })
}

/// Prompts, with the logits of each one's last position. The prompt of a model with an encoder in front is a source, behind which
/// its decoder takes one token.
pub(crate) fn prefill(
    config: &ModelConfig,
    precision: Precision,
    sequences: usize,
    length: usize,
    runs: usize,
) -> Result<Times, BenchError> {
    let model = writer(config, precision);
    let batch = prompts(&model, sequences, length);
    timed(runs, 2, || {
        let (mut cache, first) = match config.direction() {
            Direction::EncoderDecoder => {
                (model.read_sources(&batch)?, prompts(&model, sequences, 1))
            }
            _ => (model.new_cache(sequences), batch.clone()),
        };
        let rows = last_rows(&first);
        black_box(model.advance(&first, &mut cache, &rows)?);
        Ok(())
    })
}

fn prompts(model: &Model, sequences: usize, length: usize) -> PackedBatch {
    let vocab_size = model.config().vocab_size();
    let each = (0..sequences).map(|row| ids(row as u64, length, vocab_size));
    PackedBatch::from_sequences(&each.collect::<Vec<_>>())
}

fn last_rows(batch: &PackedBatch) -> Vec<u32> {
    batch.cu_seqlens[1..].iter().map(|end| end - 1).collect()
}

/// Single steps whose caches hold `past` tokens in the middle of the measurement, behind a source of as many.
fn decode(
    config: &ModelConfig,
    precision: Precision,
    sequences: usize,
    past: usize,
    runs: usize,
) -> Result<Times, BenchError> {
    let model = writer(config, precision);
    let limit = config.position_limit();
    let after = (runs / 2).min(limit - 1 - past);
    // One step to warm up, then steps around the length asked for.
    let first = past.saturating_sub(runs - after).max(1);
    let mut cache = match config.direction() {
        Direction::EncoderDecoder => model.read_sources(&prompts(&model, sequences, past))?,
        _ => model.new_cache(sequences),
    };
    let prompt = prompts(&model, sequences, first);
    model.advance(&prompt, &mut cache, &[])?;
    let mut seconds = Vec::new();
    let end = (past + after).max(first + 1).min(limit - 1);
    for position in first..=end {
        let step = prompts(&model, sequences, 1).with_positions(vec![position as u32; sequences]);
        let rows = last_rows(&step);
        let start = Instant::now();
        black_box(model.advance(&step, &mut cache, &rows)?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    if seconds.len() > 1 {
        seconds.remove(0);
    }
    Ok(best_and_median(seconds))
}

/// A training step with the model's own dropout, without clipping: every next token, 15 % hidden ones, or what a decoder writes.
pub(crate) fn train(
    config: &ModelConfig,
    precision: Precision,
    work: &Work,
    runs: usize,
) -> Result<Times, BenchError> {
    let (sequences, length) = (work.batch, work.tokens);
    let behind = config.direction() == Direction::EncoderDecoder;
    let (vocab_size, causal) = (config.vocab_size(), config.is_causal());
    let head = crate::cost::head_for(config, Phase::Train);
    let model =
        Model::initialise(config.clone(), head, 0, Mode::Training).with_precision(precision);
    let chosen = Key::new(0, Purpose::Masking, 0);
    let example = |row: usize| {
        let ids = ids(row as u64, length, vocab_size);
        if behind {
            // As many tokens to write as to read, behind the token that starts every text.
            return Example {
                decoder: Some(self::ids((sequences + row) as u64, length + 1, vocab_size)),
                ids,
                ..Example::default()
            };
        }
        let targets = if causal {
            (0..length - 1).map(|i| (i, ids[i + 1])).collect()
        } else {
            // The very first token as well, so that the shortest texts have something to predict.
            let hidden = |i: &usize| {
                chosen.fold(row as u64).uniform_f64_at(*i as u64) < MASKED || row + i == 0
            };
            (0..length).filter(hidden).map(|i| (i, ids[i])).collect()
        };
        Example {
            starts: vec![0],
            positions: (0..length as u32).collect(),
            targets,
            ids,
            ..Example::default()
        }
    };
    let batch = [MicroBatch::pack(
        &(0..sequences).map(example).collect::<Vec<_>>(),
    )];
    let optimizer = Optimizer::new(Rule::AdamW(Adam {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
    }))?;
    let schedule = LearningRate {
        schedule: Schedule::Constant,
        warmup: 0,
        total: 1000,
    };
    let options = StepOptions {
        seed: 0,
        lr: 1e-4,
        schedule,
        clip_norm: 0.0,
        decay_all: true,
        recompute: work.recompute,
    };
    let mut trainer = Trainer::new(model, optimizer, 0, options);
    timed(runs, 1, || {
        black_box(trainer.advance(&batch)?);
        Ok(())
    })
}

/// Runs a phase and returns the median of its time in seconds. Short ones are repeated more often.
///
/// # Errors
/// What the model or the training refuses.
pub fn measure(
    config: &ModelConfig,
    work: &Work,
    precision: Precision,
    runs: usize,
) -> Result<f64, BenchError> {
    let Work {
        phase,
        batch,
        tokens,
        ..
    } = *work;
    let (_, median) = match phase {
        Phase::Train => train(config, precision, work, runs)?,
        Phase::Encode => encode(
            config,
            precision,
            &[vec![tokens; batch].as_slice()],
            runs,
            1,
        )?,
        Phase::Prefill => prefill(config, precision, batch, tokens, runs)?,
        Phase::Decode => decode(config, precision, batch, tokens, 4 * runs)?,
    };
    Ok(median)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_sorted_and_the_median_is_the_middle() {
        let mut waits = [5, 1, 3].into_iter().map(std::time::Duration::from_millis);
        let (best, median) = timed(3, 0, || {
            std::thread::sleep(waits.next().expect("three runs"));
            Ok(())
        })
        .unwrap();
        assert!(
            best >= 0.001 && median >= 0.003 && best <= median,
            "{best} {median}"
        );
    }

    #[test]
    fn every_phase_of_small_models_runs() {
        let gpt = json!({
            "model_type": "gpt2", "vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24,
        });
        let bert = json!({
            "model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 24,
        });
        let t5 = json!({
            "model_type": "t5", "vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
            "decoder_start_token_id": 0, "n_positions": 24,
        });
        for (config, phase) in [
            (&t5, Phase::Train),
            (&t5, Phase::Encode),
            (&t5, Phase::Prefill),
            (&t5, Phase::Decode),
            (&gpt, Phase::Train),
            (&gpt, Phase::Prefill),
            (&gpt, Phase::Decode),
            (&bert, Phase::Train),
            (&bert, Phase::Encode),
        ] {
            let config = ModelConfig::from_json(config, false).expect("a valid configuration");
            // The shortest and the longest texts that there is room for.
            for (tokens, precision) in [
                (2, Precision::F32),
                (23, Precision::F32),
                (9, Precision::Bf16),
            ] {
                let work = Work::new(phase, 2, tokens);
                let seconds = measure(&config, &work, precision, 2).expect("runs");
                assert!(seconds > 0.0 && seconds < 60.0, "{phase:?} {tokens}");
            }
        }
    }
}
