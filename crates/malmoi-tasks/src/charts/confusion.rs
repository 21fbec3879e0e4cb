//! Which class is taken for which.

use serde::Serialize;

use super::{FAINT, INK, Picture, width};
use crate::task::{Prediction, Truth, best};

/// Cells from which numbers are left out, for want of room.
const MOST_NUMBERS: usize = 40;
/// Side of a cell in pixels, with and without numbers.
const CELL: f64 = 44.0;
const SMALL_CELL: f64 = 12.0;

/// Counts of (true class, predicted class).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfusionTable {
    /// Names of the classes.
    pub labels: Vec<String>,
    /// `counts[t][p]`: rows (or units) of class `t` taken for class `p`.
    pub counts: Vec<Vec<usize>>,
}

impl ConfusionTable {
    /// Counts rows with a class, or the units of rows with tags. `None` where predictions are of another kind, or there are no names.
    ///
    /// The choices of rows have no names: `labels` are their numbers ([`Self::numbers`]).
    pub fn of(truths: &[Truth], predictions: &[Prediction], labels: &[String]) -> Option<Self> {
        let n = labels.len();
        let mut counts = vec![vec![0; n]; n];
        let mut any = false;
        let mut add = |truth: u32, said: usize| {
            if let Some(count) = counts
                .get_mut(truth as usize)
                .and_then(|row| row.get_mut(said))
            {
                *count += 1;
                any = true;
            }
        };
        for pair in truths.iter().zip(predictions) {
            match pair {
                (Truth::Class(truth), Prediction::Classes(said)) => add(*truth, best(said)),
                (Truth::Tags(truth), Prediction::Tags(said)) => {
                    let units = truth.iter().zip(&said.classes);
                    units.for_each(|(&truth, &said)| add(truth, said as usize));
                }
                _ => return None,
            }
        }
        any.then(|| Self {
            labels: labels.to_vec(),
            counts,
        })
    }

    /// Numbers in place of names: as many as the row with most choices has.
    pub fn numbers(predictions: &[Prediction]) -> Vec<String> {
        let choices = |prediction: &Prediction| match prediction {
            Prediction::Classes(all) => all.len(),
            _ => 0,
        };
        let most = predictions.iter().map(choices).max().unwrap_or(0);
        (0..most).map(|number| number.to_string()).collect()
    }

    /// Rows for a text table: a header, then a row a true class.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let header = std::iter::once("true \\ said".to_owned()).chain(self.labels.clone());
        let mut rows = vec![header.collect()];
        for (label, counts) in self.labels.iter().zip(&self.counts) {
            let counts = counts.iter().map(usize::to_string);
            rows.push(std::iter::once(label.clone()).chain(counts).collect());
        }
        rows
    }

    /// The table as a picture. A cell is as dark as its share of its row.
    pub fn svg(&self) -> String {
        let n = self.labels.len();
        let cell = if n > MOST_NUMBERS { SMALL_CELL } else { CELL };
        let size = if n > MOST_NUMBERS { 8 } else { 12 };
        let longest = self
            .labels
            .iter()
            .map(|label| width(label))
            .fold(40.0, f64::max);
        let (left, top) = (longest + 44.0, longest + 64.0);
        let side = cell * n as f64;
        let remark = "rows: true, columns: said; dark: share of the row";
        let room = (left + side + 24.0).max(width(remark) + 32.0);
        let mut picture = Picture::new(room, top + side + 24.0);
        let bold = format!("font-size=\"15\" font-weight=\"600\" fill=\"{INK}\"");
        picture.text((16.0, 26.0), &bold, "Confusion matrix");
        let faint = format!("fill=\"{FAINT}\"");
        picture.text((16.0, 44.0), &faint, remark);
        for (i, label) in self.labels.iter().enumerate() {
            let at = (i as f64 + 0.5) * cell;
            let end = format!("text-anchor=\"end\" font-size=\"{size}\"");
            picture.text((left - 8.0, top + at + 4.0), &end, label);
            let x = left + at + 4.0;
            let turned = format!(
                "font-size=\"{size}\" transform=\"rotate(-90 {x:.1} {:.1})\"",
                top - 8.0
            );
            picture.text((x, top - 8.0), &turned, label);
        }
        for (t, row) in self.counts.iter().enumerate() {
            let all = row.iter().sum::<usize>().max(1) as f64;
            for (p, &count) in row.iter().enumerate() {
                let share = count as f64 / all;
                let (x, y) = (left + p as f64 * cell, top + t as f64 * cell);
                picture.rect(
                    (x + 0.5, y + 0.5, cell - 1.0, cell - 1.0),
                    &shade(share, t == p),
                );
                if n <= MOST_NUMBERS && count > 0 {
                    let ink = if share > 0.55 { "white" } else { INK };
                    let style = format!("text-anchor=\"middle\" fill=\"{ink}\"");
                    picture.text(
                        (x + cell / 2.0, y + cell / 2.0 + 4.0),
                        &style,
                        &count.to_string(),
                    );
                }
            }
        }
        picture.finish()
    }
}

/// From nearly white to blue (right) or vermilion (wrong).
fn shade(share: f64, right: bool) -> String {
    let (from, to) = (
        [246.0, 247.0, 249.0],
        if right {
            [0.0, 114.0, 178.0]
        } else {
            [213.0, 94.0, 0.0]
        },
    );
    let part = |i: usize| (from[i] + (to[i] - from[i]) * share).round() as u8;
    format!("#{:02x}{:02x}{:02x}", part(0), part(1), part(2))
}
