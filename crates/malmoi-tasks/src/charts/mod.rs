//! Pictures of results as SVG: a confusion matrix, the curves of a training run.

mod confusion;
mod curves;
#[cfg(test)]
mod tests;

use std::fmt::Write;

pub use confusion::ConfusionTable;
pub use curves::Curves;

const INK: &str = "#1f2933";
const FAINT: &str = "#7b8794";
const GRID: &str = "#e4e7eb";

/// A picture in the making.
struct Picture(String);

impl Picture {
    fn new(width: f64, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"'Noto Sans KR', 'Noto Sans CJK KR', Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        ))
    }

    fn text(&mut self, (x, y): (f64, f64), style: &str, words: &str) {
        let words = words
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>"
        );
    }

    fn rect(&mut self, (x, y, width, height): (f64, f64, f64, f64), fill: &str) {
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
        );
    }

    fn path(&mut self, points: &[(f64, f64)], style: &str) {
        let list: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            self.0,
            "<polyline points=\"{}\" fill=\"none\" {style}/>",
            list.join(" ")
        );
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Width of words at a size of 12 pixels, roughly: Hangul and other wide letters are square.
fn width(words: &str) -> f64 {
    words
        .chars()
        .map(|c| if (c as u32) < 0x1100 { 6.8 } else { 12.0 })
        .sum()
}
