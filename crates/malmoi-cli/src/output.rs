//! Results on stdout: text, JSON and tables whose columns line up in any script.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::failure::{Failure, Result, WORK_FAILED};

fn checked(result: io::Result<()>) -> Result<()> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
        _ => Failure::Message {
            code: WORK_FAILED,
            message: format!("cannot write the result: {error}"),
            causes: Vec::new(),
        },
    })
}

/// Prints a line.
pub fn line(text: impl AsRef<str>) -> Result<()> {
    checked(writeln!(io::stdout().lock(), "{}", text.as_ref()))
}

/// Prints text at once, without a line end: for text that arrives piece by piece.
pub fn piece(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    checked(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Prints one JSON value on one line.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::work(format!("cannot write the result: {error}")))?;
    line(text)
}

/// Writes a text into a file.
pub fn to_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| Failure::io(path, &error))
}

/// Prints rows with columns as wide as their widest cell, two spaces apart. Columns whose letter in `align` is `r` are flush
/// right.
pub fn table(align: &str, rows: &[Vec<String>]) -> Result<()> {
    rendered_table(align, rows).iter().try_for_each(line)
}

/// The lines of [`table`].
pub fn rendered_table(align: &str, rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|row| row.get(c))
                .map(|cell| cell.width())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let right: Vec<bool> = (0..columns)
        .map(|c| align.as_bytes().get(c) == Some(&b'r'))
        .collect();
    let render = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(c, cell)| {
            let space = " ".repeat(widths[c] - cell.width());
            if right[c] {
                space + cell
            } else {
                cell.clone() + &space
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(render).collect()
}

/// A number with thousands separated: 109,482,240.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number with a decimal prefix: 1.5 M.
pub fn decimal(n: f64, unit: &str) -> String {
    scaled(n, 1000.0, &["", "k", "M", "G", "T", "P", "E"], unit)
}

/// A number of bytes with a binary prefix: 417.6 MiB.
pub fn bytes(n: f64) -> String {
    scaled(n, 1024.0, &["", "Ki", "Mi", "Gi", "Ti", "Pi"], "B")
}

fn scaled(mut n: f64, step: f64, prefixes: &[&str], unit: &str) -> String {
    let mut prefix = 0;
    while n >= step && prefix + 1 < prefixes.len() {
        n /= step;
        prefix += 1;
    }
    let digits = usize::from(prefix > 0 && n < 1000.0);
    format!("{n:.digits$} {}{unit}", prefixes[prefix])
        .trim_end()
        .to_owned()
}

/// A row of bars, lowest to highest value.
pub fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let (low, high) = (
        finite().fold(f64::INFINITY, f64::min),
        finite().fold(f64::NEG_INFINITY, f64::max),
    );
    let bar = |v: f64| {
        if high > low {
            BARS[(((v - low) / (high - low)) * 7.0).round() as usize]
        } else {
            BARS[0]
        }
    };
    values
        .iter()
        .map(|&v| if v.is_finite() { bar(v) } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hangul_takes_two_columns() {
        let rows = vec![
            vec!["재미".into(), "1".into()],
            vec!["ok".into(), "23".into()],
        ];
        assert_eq!(rendered_table("lr", &rows), ["재미   1", "ok    23"]);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(thousands(109_482_240), "109,482,240");
        assert_eq!(thousands(7), "7");
        assert_eq!(bytes(437_928_960.0), "417.6 MiB");
        assert_eq!(decimal(999.0, "FLOP"), "999 FLOP");
        assert_eq!(decimal(1500.0, ""), "1.5 k");
        assert_eq!(sparkline(&[1.0, 2.0, 8.0]), "▁▂█");
    }
}
