//! Tasks of the repository: `cargo xtask test|check|tidy|golden|valgrind|bench-compare|bench-diff`.

mod bench_compare;
mod bench_diff;
mod clients;
mod configs;
mod golden;
mod lab;
mod minilm;
mod prerequisites;
mod readme;
mod shell;
mod summary;
mod test_command;
mod tidy;
mod valgrind;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

/// Tasks of the repository.
#[derive(Parser)]
#[command(name = "cargo xtask", about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold: format, lints, tidy, all tests, golden references, a real model, other people's clients, the README's commands.
    Test {
        /// Only these steps; all of them without this flag.
        #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(test_command::STEPS))]
        only: Vec<String>,
    },
    /// Format, lints, tidy, and licences and advisories of the dependencies (cargo deny).
    Check,
    /// The rules of the repository: layers, file sizes, documentation, data sizes.
    Tidy,
    /// `malmoi verify` on golden/, and, with a Python that has torch and transformers, on fresh fixtures of another seed and shape.
    Golden {
        /// Python interpreter that makes fresh fixtures with golden/generate.py.
        #[arg(long)]
        python: Option<PathBuf>,
        /// Seed of the fresh fixtures.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// The kernels' tests at the edge sizes under Valgrind's memory checker, on portable code and AVX2. Needs the Debian package `valgrind`.
    Valgrind,
    /// Run `malmoi bench` and other programs in turn and print the ratios beside what the project promises.
    BenchCompare(bench_compare::Options),
    /// Compare two files of JSON lines from `malmoi bench --json` and fail when a workload became slower.
    BenchDiff {
        /// Measurements before the change.
        before: PathBuf,
        /// Measurements after the change.
        after: PathBuf,
        /// Loss that counts as noise, as a fraction.
        #[arg(long, default_value_t = 0.05)]
        tolerance: f64,
    },
}

/// The repository's root: the folder above this package.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn main() -> ExitCode {
    let root = root();
    let passed = match Arguments::parse().task {
        Task::Test { only } => test_command::run(&root, &only),
        Task::Check => test_command::check(&root),
        Task::Tidy => tidy::run(&root).report(),
        Task::Golden { python, seed } => golden::run(&root, python.as_deref(), seed),
        Task::Valgrind => valgrind::run(&root),
        Task::BenchCompare(options) => bench_compare::run(&root, &options),
        Task::BenchDiff {
            before,
            after,
            tolerance,
        } => bench_diff::run(&before, &after, tolerance),
    };
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
