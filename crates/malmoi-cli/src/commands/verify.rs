//! `malmoi verify`.

use std::path::PathBuf;

use clap::Args;
use malmoi_verify::{Options, Precision, exit_code, fixtures_in, verify_directory};

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::{output, progress};

/// Compare with golden references
#[derive(Args, Debug)]
#[command(
    after_help = "A line a fixture: ok, FAIL with the first tensor that differs, partial or unsupported. A folder of fixtures stands for all of them.\nExit status: 0 all ok, \
                  1 something failed, 2 bad usage, 3 nothing failed but something is unsupported.\n\nExample:\n  malmoi verify golden/*"
)]
pub struct Verify {
    /// Fixture folders
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Folder of the published vocabularies (gpt2/, bert-base-uncased/, koelectra/, t5/); default: data/vocab beside the fixtures' parent folder
    #[arg(long, value_name = "DIR")]
    vocab: Option<PathBuf>,
    /// Arithmetic of the models
    #[arg(long, value_name = "P", default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// Print a JSON line a fixture
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub fn run(self, global: &Global) -> Result<()> {
        let precision: Precision = self.precision.parse().map_err(Failure::input)?;
        let options = Options {
            vocab: self.vocab.clone(),
            precision,
        };
        let mut fixtures = Vec::new();
        for dir in &self.dirs {
            // Loose files beside fixtures (as in `golden/*`) are no fixtures.
            if !dir.is_file() {
                fixtures.extend(
                    fixtures_in(dir)
                        .map_err(|error| Failure::from_error(crate::failure::BAD_INPUT, &error))?,
                );
            }
        }
        if fixtures.is_empty() {
            let given: Vec<String> = self
                .dirs
                .iter()
                .map(|dir| dir.display().to_string())
                .collect();
            return Err(Failure::input(format!(
                "no fixture in {}: expected folders with cases.json, encodings.json, metrics.json or objectives.json",
                given.join(", ")
            )));
        }
        let bar = progress::bar(global.quiet, fixtures.len() as u64, "verifying", "fixtures");
        let mut reports = Vec::with_capacity(fixtures.len());
        for fixture in &fixtures {
            let report = verify_directory(fixture, &options);
            bar.suspend(|| {
                if self.json {
                    output::json(&report.to_json())
                } else {
                    output::line(report.to_string())
                }
            })?;
            bar.inc(1);
            reports.push(report);
        }
        bar.finish_and_clear();
        match exit_code(&reports) {
            0 => Ok(()),
            code => Err(Failure::Said(code)),
        }
    }
}
