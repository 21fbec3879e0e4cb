//! Documented workloads, timed.
//!
//! Weights and ids are random (speed does not depend on them); shapes, batches and lengths are fixed, so that any other
//! program can be timed on the same work. Compare ratios measured on one machine in one sitting, never absolute times.

use std::hint::black_box;
use std::str::FromStr;

use malmoi_infer::InferError;
use malmoi_infer::generate::{Flow, GenerateOptions, generate};
use malmoi_infer::sampling::SamplingSettings;
use malmoi_kernels::gemm::{Epilogue, Mat, PackedMat, gemm, gemm_packed};
use malmoi_kernels::mixed::{
    Finish, Matrix, PackedRight, Right, Values, ValuesMut, bf16, product, to_bf16,
};
use malmoi_kernels::probe::Arithmetic;
use malmoi_kernels::random::{Key, Purpose};
use malmoi_models::{BatchError, ModelError, Precision};
use malmoi_train::TrainError;
use malmoi_train::optim::OptimizerError;
use serde::{Deserialize, Serialize};

use crate::cost::{Phase, Work};
use crate::machine::peak_rss_mib;
use crate::runs::{self, Times, timed};

/// Why a workload could not be timed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// No such workload.
    #[error("there is no workload `{0}`: expected one of {names}", names = Workload::NAMES.join(", "))]
    UnknownWorkload(String),
    /// A precision that the models do not run in.
    #[error("precision `{0}` is not implemented; expected f32 or bf16")]
    Precision(String),
    /// A list of lengths that cannot be used.
    #[error("{0}; expected JSON with the list `lengths` of numbers from 1 to 512")]
    Lengths(String),
    /// The model refused a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The model refused the work.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Generation failed.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A training step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The optimiser refused its settings.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
}

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// One matrix product, 1024x768 by 768x3072.
    Gemm,
    /// BERT-base, 8 sequences of 128 tokens.
    EncodeFixed,
    /// BERT-base, one sequence of 32 tokens.
    EncodeLatency,
    /// BERT-base, real lengths, 32 sequences at once, in order.
    EncodeRagged,
    /// BERT-base masked-language-model step, 8 x 128, 15 % masked.
    MlmTrain,
    /// GPT-2 step, 4 x 256.
    ClmTrain,
    /// GPT-2, 1,024 tokens, logits of the last.
    Prefill,
    /// GPT-2, prompt of 32, 64 greedy tokens.
    Decode,
    /// The same for 8 sequences at once.
    DecodeBatch,
    /// T5-base, 256 source tokens, 64 greedy tokens.
    Seq2Seq,
}

impl Workload {
    /// Names on the command line, in the order of the variants.
    pub const NAMES: [&'static str; 10] = [
        "gemm",
        "encode-fixed",
        "encode-latency",
        "encode-ragged",
        "mlm-train",
        "clm-train",
        "prefill",
        "decode",
        "decode-batch",
        "seq2seq",
    ];

    const ALL: [Self; 10] = [
        Self::Gemm,
        Self::EncodeFixed,
        Self::EncodeLatency,
        Self::EncodeRagged,
        Self::MlmTrain,
        Self::ClmTrain,
        Self::Prefill,
        Self::Decode,
        Self::DecodeBatch,
        Self::Seq2Seq,
    ];
}

impl FromStr for Workload {
    type Err = BenchError;

    fn from_str(name: &str) -> Result<Self, BenchError> {
        let at = Self::NAMES.iter().position(|known| *known == name);
        at.map(|at| Self::ALL[at])
            .ok_or_else(|| BenchError::UnknownWorkload(name.to_owned()))
    }
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Arithmetic of the model.
    pub precision: Arithmetic,
    /// Timed repetitions, 1 or more; short workloads are repeated more often.
    pub runs: usize,
    /// Sequence lengths of `encode-ragged`.
    pub lengths: Vec<usize>,
    /// Training computes the activations of blocks again instead of keeping them.
    pub recompute: bool,
}

impl Default for BenchOptions {
    /// Five runs in f32 on the shipped lengths.
    fn default() -> Self {
        Self {
            precision: Arithmetic::F32,
            runs: 5,
            lengths: default_lengths(),
            recompute: false,
        }
    }
}

/// The lengths of 512 Korean sentences in WordPiece tokens, in the order of their file.
pub fn default_lengths() -> Vec<usize> {
    read_lengths(include_bytes!("bench/lengths.json")).expect("the shipped file is valid")
}

/// A measurement; the keys are those that other programs print for the same workloads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Name of the workload.
    pub workload: &'static str,
    /// This program.
    pub peer: &'static str,
    /// Arithmetic.
    pub precision: &'static str,
    /// Work over the median time; for `ms` the median time itself.
    pub value: f64,
    /// Unit of the value.
    pub unit: &'static str,
    /// Shortest time.
    pub best_s: f64,
    /// Median time.
    pub median_s: f64,
    /// Largest resident memory of the process so far; 0 where the system does not say.
    pub peak_rss_mib: u64,
    /// `gemm`: the value with the right matrix packed beforehand, as a layer's weight is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_packed: Option<f64>,
}

/// Reads the list `lengths` of a JSON file.
///
/// # Errors
/// [`BenchError::Lengths`].
pub fn read_lengths(json: &[u8]) -> Result<Vec<usize>, BenchError> {
    #[derive(Deserialize)]
    struct File {
        lengths: Vec<usize>,
    }
    let file: File =
        serde_json::from_slice(json).map_err(|error| BenchError::Lengths(error.to_string()))?;
    match file
        .lengths
        .iter()
        .find(|length| !(1..=512).contains(*length))
    {
        Some(length) => Err(BenchError::Lengths(format!("found the length {length}"))),
        None if file.lengths.is_empty() => Err(BenchError::Lengths("found an empty list".into())),
        None => Ok(file.lengths),
    }
}

/// Times a workload.
///
/// # Errors
/// [`BenchError`]; [`BenchError::Lengths`] when `encode-ragged` has none.
pub fn run(workload: Workload, options: &BenchOptions) -> Result<Measurement, BenchError> {
    let runs = options.runs.max(1);
    let precision = match options.precision {
        Arithmetic::F32 => Precision::F32,
        Arithmetic::Bf16 => Precision::Bf16,
        other => return Err(BenchError::Precision(other.name().to_owned())),
    };
    let mut value_packed = None;
    let (units, unit, (best_s, median_s)) = match workload {
        Workload::Gemm => {
            let (units, plain, packed) = matrix_product(precision)?;
            value_packed = Some(round(units / packed.1, 2));
            (units, "GFLOP/s", plain)
        }
        Workload::EncodeFixed => (
            1024.0,
            "tokens/s",
            encode(precision, &[[128; 8].as_slice()], runs, 3)?,
        ),
        Workload::EncodeLatency => (
            1.0,
            "ms",
            encode(precision, &[[32].as_slice()], 5 * runs, 3)?,
        ),
        Workload::EncodeRagged if options.lengths.is_empty() => {
            return Err(BenchError::Lengths("no lengths given".into()));
        }
        Workload::EncodeRagged => {
            let batches: Vec<&[usize]> = options.lengths.chunks(32).collect();
            (
                options.lengths.iter().sum::<usize>() as f64,
                "tokens/s",
                encode(precision, &batches, runs, 1)?,
            )
        }
        Workload::MlmTrain => (
            1024.0,
            "tokens/s",
            train(precision, "bert-base", 8, 128, options)?,
        ),
        Workload::ClmTrain => (
            1024.0,
            "tokens/s",
            train(precision, "gpt2", 4, 256, options)?,
        ),
        Workload::Prefill => (
            1024.0,
            "tokens/s",
            runs::prefill(&runs::preset("gpt2"), precision, 1, 1024, runs)?,
        ),
        Workload::Decode => (64.0, "tokens/s", decode(precision, "gpt2", 1, 32, runs)?),
        Workload::DecodeBatch => (
            8.0 * 64.0,
            "tokens/s",
            decode(precision, "gpt2", 8, 32, runs)?,
        ),
        Workload::Seq2Seq => (
            64.0,
            "tokens/s",
            decode(precision, "t5-base", 1, 256, runs)?,
        ),
    };
    let value = if unit == "ms" {
        median_s * 1e3
    } else {
        units / median_s
    };
    Ok(Measurement {
        workload: Workload::NAMES[workload as usize],
        peer: "malmoi",
        precision: options.precision.name(),
        value: round(value, 2),
        unit,
        best_s: round(best_s, 5),
        median_s: round(median_s, 5),
        peak_rss_mib: peak_rss_mib(),
        value_packed,
    })
}

fn round(x: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (x * scale).round() / scale
}

/// Billions of operations, times with both matrices as they are, times with the right one packed.
fn matrix_product(precision: Precision) -> Result<(f64, Times, Times), BenchError> {
    let (m, k, n) = (1024, 768, 3072);
    let normal = |stream, len| {
        let mut values = vec![0.0; len];
        Key::new(0, Purpose::Other(1), stream).fill_normal(0, &mut values);
        values
    };
    let (a, b) = (normal(0, m * k), normal(1, k * n));
    let (plain, packed) = match precision {
        Precision::F32 => {
            let mut c = vec![0.0; m * n];
            let (left, right) = (Mat::row_major(&a, m, k), Mat::row_major(&b, k, n));
            let plain = timed(30, 5, || {
                gemm(left, right, &mut c, false, Epilogue::bias(None));
                black_box(&c);
                Ok(())
            })?;
            let packed = PackedMat::new(right);
            let packed = timed(30, 5, || {
                gemm_packed(left, &packed, &mut c, false, Epilogue::bias(None));
                black_box(&c);
                Ok(())
            })?;
            (plain, packed)
        }
        Precision::Bf16 => {
            let rounded = |values: &[f32]| {
                let mut rounded = vec![bf16::ZERO; values.len()];
                to_bf16(values, &mut rounded);
                rounded
            };
            let (a, b, mut c) = (rounded(&a), rounded(&b), vec![bf16::ZERO; m * n]);
            let left = Matrix::row_major(Values::Bf16(&a), m, k);
            let right = Matrix::row_major(Values::Bf16(&b), k, n);
            let mut run = |right: Right| {
                timed(30, 5, || {
                    product(left, right, ValuesMut::Bf16(&mut c), false, Finish::NONE);
                    black_box(&c);
                    Ok(())
                })
            };
            let plain = run(Right::Plain(right))?;
            (plain, run(Right::Packed(&PackedRight::new(right)))?)
        }
    };
    Ok(((2 * m * k * n) as f64 / 1e9, plain, packed))
}

/// Hidden states of BERT-base for batches of sequences of these lengths.
fn encode(
    precision: Precision,
    batches: &[&[usize]],
    runs: usize,
    warm: usize,
) -> Result<Times, BenchError> {
    runs::encode(&runs::preset("bert-base"), precision, batches, runs, warm)
}

/// A training step of a preset with its published dropout, without clipping.
fn train(
    precision: Precision,
    name: &str,
    sequences: usize,
    length: usize,
    options: &BenchOptions,
) -> Result<Times, BenchError> {
    let work = Work {
        recompute: options.recompute,
        ..Work::new(Phase::Train, sequences, length)
    };
    runs::train(&runs::preset(name), precision, &work, options.runs.max(1))
}

/// 64 greedy tokens behind prompts (or sources) of `length` tokens.
fn decode(
    precision: Precision,
    name: &str,
    sequences: usize,
    length: usize,
    runs: usize,
) -> Result<Times, BenchError> {
    let model = runs::writer(&runs::preset(name), precision);
    let prompts: Vec<Vec<u32>> = (0..sequences)
        .map(|row| runs::ids(row as u64, length, model.config().vocab_size()))
        .collect();
    let options = GenerateOptions {
        max_new_tokens: 64,
        sampling: SamplingSettings::default(),
        ..Default::default()
    };
    // Twice: weights that a short prompt meets are packed when they are used again.
    timed(runs, 2, || {
        black_box(generate(&model, &prompts, &options, &mut |_| {
            Flow::Continue
        })?);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_workload_and_others_are_refused() {
        for (name, workload) in Workload::NAMES.iter().zip(Workload::ALL) {
            assert_eq!(name.parse::<Workload>().unwrap(), workload);
            assert_eq!(Workload::NAMES[workload as usize], *name);
        }
        assert!(
            "encode"
                .parse::<Workload>()
                .unwrap_err()
                .to_string()
                .contains("encode-fixed")
        );
    }

    #[test]
    fn lengths_come_from_json_and_must_fit_the_model() {
        assert_eq!(
            read_lengths(br#"{"comment": "", "lengths": [3, 512]}"#).unwrap(),
            [3, 512]
        );
        for bad in [
            r#"{"lengths": []}"#,
            r#"{"lengths": [0]}"#,
            r#"{"lengths": [513]}"#,
            r#"{"lengths": "3"}"#,
            "[3]",
            "",
        ] {
            assert!(
                matches!(read_lengths(bad.as_bytes()), Err(BenchError::Lengths(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            run(
                Workload::EncodeRagged,
                &BenchOptions {
                    lengths: Vec::new(),
                    ..Default::default()
                }
            ),
            Err(BenchError::Lengths(_))
        ));
        assert_eq!(default_lengths().len(), 512);
    }
}
