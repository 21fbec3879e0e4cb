//! Progress on stderr, only when someone is looking at it.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether stderr is a terminal and not silenced.
pub fn visible(quiet: bool) -> bool {
    !quiet && std::io::stderr().is_terminal()
}

/// A bar of `len` units; hidden when nobody looks.
pub fn bar(quiet: bool, len: u64, what: &str, unit: &str) -> ProgressBar {
    let template = format!(
        "{{msg}} [{{bar:30}}] {{human_pos}}/{{human_len}} {unit} {{per_sec:>12}} eta {{eta}}"
    );
    let style =
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(len), target(quiet))
        .with_style(style.progress_chars("=> "));
    bar.set_message(what.to_owned());
    bar
}

/// A line that changes, with no known end.
pub fn spinner(quiet: bool, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(quiet));
    bar.set_message(what.to_owned());
    if visible(quiet) {
        bar.enable_steady_tick(Duration::from_millis(120));
    }
    bar
}

fn target(quiet: bool) -> ProgressDrawTarget {
    if visible(quiet) {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// A remark on stderr, unless silenced.
pub fn remark(quiet: bool, text: impl AsRef<str>) {
    if !quiet {
        eprintln!("{}", text.as_ref());
    }
}
