//! `--profile` and `--trace`: what a run spent its time on.

use std::path::PathBuf;

use clap::Args;
use malmoi_kernels::probe::Arithmetic;
use malmoi_kernels::profile;
use malmoi_roofline::machine::{Machine, peak_rss_mib};
use malmoi_roofline::profile::{Profile, chrome_trace, summarise};

use crate::failure::{Failure, Result};
use crate::output;

/// Flags of verbs that run models.
#[derive(Args, Debug, Clone)]
pub struct ProfileArguments {
    /// Print time, speed and share of the machine's roofline for each operation (on stderr)
    #[arg(long, help_heading = "Profile")]
    profile: bool,
    /// Write every operation to a file that chrome://tracing and Perfetto show
    #[arg(long, value_name = "FILE", help_heading = "Profile")]
    trace: Option<PathBuf>,
}

/// Operations that are listed one by one.
const LINES: usize = 24;

impl ProfileArguments {
    /// Starts to record, when that was asked for.
    pub fn start(&self) {
        if self.profile || self.trace.is_some() {
            profile::start();
        }
    }

    /// Shows what was recorded. `precision`, as configurations and `--precision` spell it, chooses the roof of the arithmetic.
    pub fn finish(&self, precision: &str) -> Result<()> {
        if !self.profile && self.trace.is_none() {
            return Ok(());
        }
        let recording = profile::stop();
        if let Some(path) = &self.trace {
            let text = chrome_trace(&recording).to_string();
            std::fs::write(path, text).map_err(|error| Failure::io(path, &error))?;
        }
        if self.profile {
            // Before the probe's own buffers count.
            let resident = peak_rss_mib() << 20;
            let machine = Machine::measure();
            let arithmetic = Arithmetic::named(precision).unwrap_or(Arithmetic::F32);
            for line in lines(&summarise(&recording, &machine, arithmetic, resident)) {
                eprintln!("{line}");
            }
        }
        Ok(())
    }
}

fn lines(profile: &Profile) -> Vec<String> {
    let header = [
        "operation",
        "direction",
        "shape",
        "calls",
        "time",
        "share",
        "arithmetic",
        "traffic",
        "of the roof",
        "bound",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let time = |seconds: f64| format!("{:.1} ms", 1e3 * seconds);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    for row in profile.rows.iter().take(LINES) {
        rows.push(vec![
            row.name.to_owned(),
            row.direction.to_owned(),
            row.shape.clone(),
            row.calls.to_string(),
            time(row.seconds),
            percent(row.share),
            output::decimal(row.flops_per_second, "FLOP/s"),
            output::decimal(row.bytes_per_second, "B/s"),
            row.roof_share.map_or("-".into(), percent),
            row.roof_share.map_or("-", |_| row.bound.name()).to_owned(),
        ]);
    }
    let share = |seconds: f64| percent(seconds / profile.seconds.max(f64::MIN_POSITIVE));
    let rest = |name: String, seconds: f64| {
        vec![
            name,
            String::new(),
            String::new(),
            String::new(),
            time(seconds),
            share(seconds),
        ]
    };
    if profile.rows.len() > LINES {
        let seconds = profile.rows[LINES..].iter().map(|row| row.seconds).sum();
        rows.push(rest(
            format!("{} others", profile.rows.len() - LINES),
            seconds,
        ));
    }
    rows.push(rest("between operations".into(), profile.other_seconds));
    let mut lines = output::rendered_table("lllrrrrrrl", &rows);
    if profile.dropped > 0 {
        lines.push(format!(
            "the record was full after {:.0} s; {} later operations are not in it",
            profile.seconds,
            output::thousands(profile.dropped as usize)
        ));
    }
    lines
}
