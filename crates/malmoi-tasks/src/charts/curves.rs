//! The curves of a training run: losses, and the metrics of its evaluations.

use serde_json::Value;

use super::{FAINT, GRID, INK, Picture};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const PANEL: f64 = 400.0;
/// Where the names of the lines begin, and how far apart their rows are.
const NAMES: f64 = 40.0;
const NAME_ROW: f64 = 14.0;
const BOTTOM: f64 = 360.0;
/// Told apart by people with colour blindness (Okabe and Ito 2008).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// A line of a chart.
#[derive(Debug, Clone, Default, PartialEq)]
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// What a run measured, step by step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    losses: Vec<Line>,
    metrics: Vec<Line>,
}

impl Curves {
    /// From the lines of `metrics.jsonl`: rows of kind `train` and `valid`. Other lines are left out.
    pub fn read(text: &str) -> Self {
        let mut curves = Self::default();
        for line in text.lines() {
            let Ok(Value::Object(row)) = serde_json::from_str(line) else {
                continue;
            };
            let (Some(step), Some(kind)) = (
                row.get("step").and_then(Value::as_f64),
                row.get("kind").and_then(Value::as_str),
            ) else {
                continue;
            };
            let valid = kind == "valid";
            for (name, value) in &row {
                let Some(value) = value.as_f64() else {
                    continue;
                };
                match (name.as_str(), valid) {
                    ("loss", _) => add(&mut curves.losses, kind, (step, value)),
                    ("step" | "targets" | "time" | "majority", _) => {}
                    // Shares; other numbers would need an axis of their own.
                    (name, true) if (-1.0..=1.0).contains(&value) => {
                        add(&mut curves.metrics, name, (step, value))
                    }
                    (name, true)
                        if (0.0..=100.0).contains(&value)
                            && (["exact_match", "f1", "chrf"].contains(&name)
                                || name.starts_with("bleu")
                                || name.starts_with("rouge")) =>
                    {
                        add(
                            &mut curves.metrics,
                            &format!("{name} / 100"),
                            (step, value / 100.0),
                        );
                    }
                    _ => {}
                }
            }
        }
        curves
    }

    /// Two charts side by side: losses on the left, metrics on the right.
    pub fn svg(&self) -> String {
        let mut picture = Picture::new(WIDTH, HEIGHT);
        chart(&mut picture, 56.0, "Loss", &self.losses);
        chart(
            &mut picture,
            56.0 + WIDTH / 2.0,
            "Validation metrics",
            &self.metrics,
        );
        picture.finish()
    }
}

fn add(lines: &mut Vec<Line>, name: &str, point: (f64, f64)) {
    let name = name.replace('_', " ");
    match lines.iter_mut().find(|line| line.name == name) {
        Some(line) => line.points.push(point),
        None => lines.push(Line {
            name,
            points: vec![point],
        }),
    }
}

/// Round numbers that divide a range into about five parts.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let unit = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|n| n * unit)
        .into_iter()
        .find(|step| *step >= raw)
        .unwrap_or(unit);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Where the name of each line stands: its column, and its row below the title.
fn places(lines: &[Line]) -> Vec<(f64, usize)> {
    let (mut column, mut row) = (0.0, 0);
    let mut places = Vec::with_capacity(lines.len());
    for line in lines {
        let wide = 26.0 + super::width(&line.name);
        if column > 0.0 && column + wide > PANEL {
            (column, row) = (0.0, row + 1);
        }
        places.push((column, row));
        column += wide;
    }
    places
}

fn chart(picture: &mut Picture, left: f64, title: &str, lines: &[Line]) {
    let bold = format!("font-size=\"15\" font-weight=\"600\" fill=\"{INK}\"");
    picture.text((left, 28.0), &bold, title);
    let all = || lines.iter().flat_map(|line| &line.points);
    if all().next().is_none() {
        picture.text(
            (left, 52.0),
            &format!("fill=\"{FAINT}\""),
            "nothing was measured",
        );
        return;
    }
    let range = |part: fn(&(f64, f64)) -> f64| {
        let low = all().map(part).fold(f64::INFINITY, f64::min);
        let high = all().map(part).fold(f64::NEG_INFINITY, f64::max);
        let room = if high > low {
            (high - low) * 0.04
        } else {
            0.5_f64.max(high.abs() * 0.1)
        };
        (low - room, high + room)
    };
    let (steps, values) = (range(|point| point.0), range(|point| point.1));
    let right = left + PANEL - 24.0;
    let places = places(lines);
    let rows = 1 + places.last().map_or(0, |(_, row)| *row);
    let top = NAMES + NAME_ROW * rows as f64 + 6.0;
    let x = |value: f64| left + (value - steps.0) / (steps.1 - steps.0) * (right - left);
    let y = |value: f64| BOTTOM - (value - values.0) / (values.1 - values.0) * (BOTTOM - top);
    let grid = format!("stroke=\"{GRID}\"");
    for tick in ticks(values) {
        picture.path(&[(left, y(tick)), (right, y(tick))], &grid);
        let style = format!("text-anchor=\"end\" fill=\"{FAINT}\"");
        picture.text((left - 6.0, y(tick) + 4.0), &style, &short(tick));
    }
    for tick in ticks(steps).into_iter().filter(|tick| *tick >= 0.0) {
        let style = format!("text-anchor=\"middle\" fill=\"{FAINT}\"");
        picture.text((x(tick), BOTTOM + 18.0), &style, &short(tick));
    }
    picture.text(
        (right, BOTTOM + 36.0),
        &format!("text-anchor=\"end\" fill=\"{FAINT}\""),
        "step",
    );
    let named = lines.iter().zip(places);
    for ((line, (column, row)), colour) in named.zip(COLOURS.iter().cycle()) {
        let points: Vec<(f64, f64)> = line.points.iter().map(|p| (x(p.0), y(p.1))).collect();
        picture.path(
            &points,
            &format!("stroke=\"{colour}\" stroke-width=\"1.6\""),
        );
        if points.len() < 30 {
            for (x, y) in points {
                picture.rect((x - 2.0, y - 2.0, 4.0, 4.0), colour);
            }
        }
        let (x, y) = (left + column, NAMES + NAME_ROW * row as f64);
        picture.rect((x, y, 10.0, 10.0), colour);
        picture.text((x + 14.0, y + 9.0), "font-size=\"11\"", &line.name);
    }
}

/// A number without needless digits.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.into()
    }
}
