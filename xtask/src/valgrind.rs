//! `cargo xtask valgrind`: the kernels' tests under Valgrind's memory checker.
//!
//! The checker emulates the processor. It knows AVX2 but neither AVX-512 nor the tile unit, so it sees the portable code, the AVX2 code
//! and the packing that both share. Debug assertions are on: accesses are checked against the slices as well.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::shell::{cargo, exists, output_of, succeeds_with_lines};
use crate::summary::{Step, report};

const INSTRUCTION_SETS: [&str; 2] = ["portable", "avx2"];

/// Tests that are left out: long sweeps over values and blocks, measurements, and what other tests see at smaller sizes. Emulated
/// code is about forty times as slow. A part of a name leaves out every test that contains it.
const LEFT_OUT: [&str; 9] = [
    "amx::",
    "around_the_blocks",
    "attention::tests::attention_equals_the_naive_one_on_every_isa",
    "blocks_of_rows_add_up",
    "do_not_depend_on_the_number_of_threads",
    "functions_are_as_accurate",
    "probe::",
    "random::",
    "threads::",
];

/// Exit status of the checker when it has found something.
const FOUND: &str = "--error-exitcode=99";

/// Runs the tests and says whether nothing was found.
pub fn run(root: &Path) -> bool {
    if !exists("valgrind", &["--version"]) {
        let missing = "missing: valgrind. Install it with: apt-get install valgrind";
        return report(&[Step::one("valgrind", false, missing)], &[]);
    }
    let program = match tests_of_the_kernels(root) {
        Ok(program) => program,
        Err(message) => return report(&[Step::one("valgrind", false, message)], &[]),
    };
    let steps = INSTRUCTION_SETS.map(|name| under_the_checker(&program, name));
    report(&steps, &[])
}

/// Builds the tests with debug assertions and returns the program.
fn tests_of_the_kernels(root: &Path) -> Result<PathBuf, String> {
    let arguments = ["test", "--package", "malmoi-kernels", "--lib", "--no-run"];
    let printed = output_of(cargo(root, &arguments).arg("--message-format=json"))?;
    let program = printed.lines().find_map(program_of);
    program.ok_or_else(|| "cargo named no test program of malmoi-kernels".into())
}

/// The program in one of cargo's messages.
fn program_of(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    Some(message["executable"].as_str()?.into())
}

/// Runs the tests on one instruction set.
fn under_the_checker(program: &Path, isa: &str) -> Step {
    let started = Instant::now();
    let mut command = Command::new("valgrind");
    command
        .env("MALMOI_ISA", isa)
        .args(["--quiet", FOUND, "--leak-check=no"])
        .arg(program)
        .arg("--test-threads=1");
    for name in LEFT_OUT {
        command.args(["--skip", name]);
    }
    let mut passed = 0;
    let succeeded = succeeds_with_lines(&mut command, |line| {
        passed += usize::from(line.starts_with("test ") && line.ends_with(" ... ok"));
    });
    let name = format!("valgrind on {isa}");
    // A run in which no test ran has shown nothing.
    let failed = usize::from(!succeeded || passed == 0);
    Step::many(&name, passed, failed, "").timed(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_behind_a_cache_and_linear_attention_are_checked() {
        for name in [
            "attention::tests::cached_attention_equals_the_naive_one_on_every_isa",
            "linear_attention::tests::linear_attention_equals_the_naive_one_on_every_isa",
        ] {
            assert!(!LEFT_OUT.iter().any(|part| name.contains(part)), "{name}");
        }
    }

    #[test]
    fn the_program_is_read_from_cargo_s_messages() {
        let line = r#"{"reason":"compiler-artifact","executable":"/target/debug/deps/kernels-1"}"#;
        assert_eq!(
            program_of(line),
            Some(PathBuf::from("/target/debug/deps/kernels-1"))
        );
        assert_eq!(
            program_of(r#"{"reason":"compiler-artifact","executable":null}"#),
            None
        );
        assert_eq!(program_of("Compiling half"), None);
    }
}
