//! `malmoi bench`.

use std::path::PathBuf;

use clap::Args;
use malmoi_kernels::probe::Arithmetic;
use malmoi_roofline::bench::{self, BenchError, BenchOptions, Workload};

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::profile::ProfileArguments;
use crate::{output, progress};

/// Time a documented workload
#[derive(Args, Debug)]
#[command(
    after_help = "Workloads:\n  gemm            one matrix product 1024x768 by 768x3072 (GFLOP/s)\n  encode-fixed    BERT-base, 8 x 128 tokens (tokens/s)\n  \
                  encode-latency  BERT-base, 1 x 32 tokens (ms)\n  encode-ragged   BERT-base, real lengths, 32 at once, in order (tokens/s)\n  \
                  mlm-train       BERT-base masked-LM step, 8 x 128, dropout 0.1, AdamW (tokens/s)\n  clm-train       GPT-2 step, 4 x 256, dropout 0.1, AdamW (tokens/s)\n  \
                  prefill         GPT-2, 1 x 1024, last position's logits (tokens/s)\n  decode          GPT-2, prompt 32, 64 greedy tokens (tokens/s)\n  \
                  decode-batch    the same for 8 sequences at once (tokens/s)\n  seq2seq         T5-base, 256 source tokens, 64 greedy tokens (tokens/s)\n\nExample:\n  malmoi bench encode-fixed --precision f32 --threads 2 --json"
)]
pub struct Bench {
    /// What to time
    #[arg(value_parser = Workload::NAMES)]
    workload: String,
    /// Arithmetic
    #[arg(long, value_name = "P", default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// Timed repetitions
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// encode-ragged: JSON file with the list `lengths` (default: 512 Korean sentences)
    #[arg(long, value_name = "FILE")]
    lengths: Option<PathBuf>,
    /// mlm-train, clm-train: compute activations again in the backward pass instead of keeping them
    #[arg(long)]
    recompute: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    profile: ProfileArguments,
}

impl Bench {
    pub fn run(self, global: &Global) -> Result<()> {
        let workload: Workload = self
            .workload
            .parse()
            .map_err(|error: BenchError| Failure::input(error.to_string()))?;
        let lengths = match &self.lengths {
            Some(path) => {
                let bytes = std::fs::read(path).map_err(|error| Failure::io(path, &error))?;
                bench::read_lengths(&bytes)
                    .map_err(|error| Failure::input(format!("{}: {error}", path.display())))?
            }
            None => bench::default_lengths(),
        };
        let spinner = progress::spinner(global.quiet, &format!("timing {}", self.workload));
        let precision = Arithmetic::named(&self.precision).unwrap_or(Arithmetic::F32);
        self.profile.start();
        let measured = bench::run(
            workload,
            &BenchOptions {
                precision,
                runs: self.runs as usize,
                lengths,
                recompute: self.recompute,
            },
        )
        .map_err(|error| {
            let code = match error {
                BenchError::Precision(_) => crate::failure::BAD_INPUT,
                _ => crate::failure::WORK_FAILED,
            };
            Failure::from_error(code, &error)
        })?;
        spinner.finish_and_clear();
        self.profile.finish(&self.precision)?;
        if self.json {
            return output::json(&measured);
        }
        output::line(format!(
            "{} {}: {} {} (best {:.5} s, median {:.5} s, peak {} MiB)",
            measured.workload,
            measured.precision,
            measured.value,
            measured.unit,
            measured.best_s,
            measured.median_s,
            measured.peak_rss_mib
        ))
    }
}
