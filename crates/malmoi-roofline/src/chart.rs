//! The roofline as a picture (Williams, Waterman and Patterson, 2009): speed against operational intensity, both logarithmic.
//!
//! Slanted roofs are what each level of the memory can feed, level roofs what the arithmetic units can do. Every phase is a
//! point: a ring where it could be, a dot where it was measured, and the number of its line in the legend.

use std::fmt::Write;

use crate::machine::Machine;
use crate::report::Entry;

#[cfg(test)]
mod tests;

/// Pixels.
const WIDTH: f64 = 1120.0;
const HEIGHT: f64 = 660.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 760.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 590.0;
/// Radius of a number's disc.
const BADGE: f64 = 9.0;

const INK: &str = "#1f2933";
const FAINT: &str = "#7b8794";
const GRID: &str = "#e4e7eb";
/// Colours that people with colour blindness tell apart (Okabe and Ito, 2008), one a model.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// Keeps words readable where a line passes behind them.
const HALO: &str = "stroke=\"white\" stroke-width=\"3\" paint-order=\"stroke\"";

/// The logarithmic axes.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    fn x(&self, value: f64) -> f64 {
        LEFT + (value.log10() - self.x.0) / (self.x.1 - self.x.0) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (value.log10() - self.y.0) / (self.y.1 - self.y.0) * (BOTTOM - TOP)
    }
}

/// A rectangle that something already covers.
#[derive(Clone, Copy)]
struct Taken {
    x: f64,
    y: f64,
    half_width: f64,
    half_height: f64,
}

impl Taken {
    fn overlaps(&self, other: &Taken) -> bool {
        (self.x - other.x).abs() < self.half_width + other.half_width
            && (self.y - other.y).abs() < self.half_height + other.half_height
    }
}

/// Draws `entries` under the roofs of `machine`.
pub fn svg(machine: &Machine, entries: &[Entry]) -> String {
    let axes = axes(machine, entries);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"{INK}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let processor = machine.processor.as_deref().unwrap_or("this machine");
    text(&mut out, LEFT, 34.0, "start", 19, INK, "Roofline");
    let threads = if machine.threads == 1 {
        "thread"
    } else {
        "threads"
    };
    let subtitle = format!(
        "{processor}, {} {threads}, {}",
        machine.threads, machine.instruction_set
    );
    text(&mut out, LEFT, 56.0, "start", 13, FAINT, &subtitle);
    grid(&mut out, &axes);
    let used: Vec<&str> = entries.iter().map(|entry| entry.precision).collect();
    let mut taken = roofs(&mut out, machine, &axes, &used);
    points(&mut out, entries, &axes, &mut taken);
    legend(&mut out, entries);
    out.push_str("</svg>\n");
    out
}

/// Around everything that is drawn, from whole decades on.
fn axes(machine: &Machine, entries: &[Entry]) -> Axes {
    let top = machine
        .peaks
        .iter()
        .map(|peak| peak.all)
        .fold(1e9, f64::max);
    let speeds = entries.iter().flat_map(|entry| {
        let at = |seconds: f64| entry.flops as f64 / seconds;
        [Some(at(entry.predicted_s)), entry.measured_s.map(at)]
    });
    let low = speeds.flatten().fold(top / 1e3, f64::min);
    let intensity =
        |f: fn(f64, f64) -> f64, start| entries.iter().map(|entry| entry.intensity).fold(start, f);
    // The ridge of the slowest level belongs in the picture.
    let ridge = top / machine.memory().all;
    Axes {
        x: (
            intensity(f64::min, 1.0).log10().floor().min(-1.0),
            intensity(f64::max, ridge).log10() + 0.35,
        ),
        // Room above the highest roof for its label.
        y: ((low * 0.8).log10().floor(), top.log10() + 0.35),
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, size: u32, fill: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"{fill}\" {HALO}>{words}</text>"
    );
}

fn escape(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {style}/>",
        from.0, from.1, to.0, to.1
    );
}

fn grid(out: &mut String, axes: &Axes) {
    let style = format!("stroke=\"{GRID}\"");
    for decade in axes.x.0 as i32..=axes.x.1.floor() as i32 {
        let value = 10f64.powi(decade);
        let x = axes.x(value);
        line(out, (x, TOP), (x, BOTTOM), &style);
        text(out, x, BOTTOM + 20.0, "middle", 12, INK, &plain(value));
    }
    for decade in axes.y.0 as i32..=axes.y.1.floor() as i32 {
        let value = 10f64.powi(decade);
        let y = axes.y(value);
        line(out, (LEFT, y), (RIGHT, y), &style);
        text(out, LEFT - 8.0, y + 4.0, "end", 12, INK, &speed(value));
    }
    let middle = (LEFT + RIGHT) / 2.0;
    let label = "operational intensity: operations for each byte from memory";
    text(out, middle, BOTTOM + 46.0, "middle", 13, INK, label);
}

/// `0.1`, `1`, `1000`.
fn plain(value: f64) -> String {
    if value >= 1.0 {
        format!("{value:.0}")
    } else {
        format!("{value}")
    }
}

/// Operations a second with a prefix.
fn speed(value: f64) -> String {
    scaled(value, "FLOP/s")
}

fn scaled(value: f64, unit: &str) -> String {
    let prefixes = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (by, prefix) = prefixes
        .into_iter()
        .find(|(by, _)| value >= 0.9995 * by)
        .unwrap_or((1.0, ""));
    let n = value / by;
    let digits = usize::from(n < 9.95 && (n - n.round()).abs() > 0.05);
    format!("{n:.digits$} {prefix}{unit}")
}

/// Draws the roofs, those of the precisions in use the stronger; returns where their labels are.
fn roofs(out: &mut String, machine: &Machine, axes: &Axes, used: &[&str]) -> Vec<Taken> {
    let mut taken = Vec::new();
    let top = machine
        .peaks
        .iter()
        .map(|peak| peak.all)
        .fold(0.0, f64::max);
    let fastest = machine
        .levels
        .iter()
        .map(|level| level.all)
        .fold(0.0, f64::max);
    let (x0, y0) = (10f64.powf(axes.x.0), 10f64.powf(axes.y.0));
    // Pixels are square in neither direction, but every slanted roof has the same angle.
    let rise = (axes.y(1.0) - axes.y(10.0)) / (axes.x(10.0) - axes.x(1.0));
    let angle = -rise.atan().to_degrees();
    for level in &machine.levels {
        let memory = level.capacity.is_none();
        let start = x0.max(y0 / level.all);
        let end = top / level.all;
        let style = if memory {
            format!("stroke=\"{INK}\" stroke-width=\"2\"")
        } else {
            format!("stroke=\"{FAINT}\" stroke-width=\"1\" stroke-dasharray=\"5 4\"")
        };
        let from = (axes.x(start), axes.y(start * level.all));
        let to = (axes.x(end.max(start)), axes.y(end.max(start) * level.all));
        line(out, from, to, &style);
        // Near the lower end: above the caches' lines, below that of the memory, next to which they crowd.
        let words = format!("{} {}", level.name, scaled(level.all, "B/s"));
        let along = 18.0;
        let away = if memory { 14.0 } else { -7.0 };
        let at = (
            from.0 + along,
            from.1 - along * rise + away * (1.0 + rise * rise).sqrt(),
        );
        let colour = if memory { INK } else { FAINT };
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11.5\" fill=\"{colour}\" {HALO} transform=\"rotate({angle:.2} {:.1} {:.1})\">{}</text>",
            at.0,
            at.1,
            at.0,
            at.1,
            escape(&words)
        );
        // The label slants: small squares along it.
        let (cos, sin) = (angle.to_radians().cos(), angle.to_radians().sin());
        for step in 0..words.len() {
            let ahead = 6.2 * step as f64;
            taken.push(Taken {
                x: at.0 + ahead * cos,
                y: at.1 + ahead * sin - 4.0,
                half_width: 6.0,
                half_height: 7.0,
            });
        }
    }
    for peak in &machine.peaks {
        let y = axes.y(peak.all);
        let start = (axes.x(peak.all / fastest)).max(LEFT);
        let (colour, width) = if used.contains(&peak.arithmetic) {
            (INK, 2)
        } else {
            (FAINT, 1)
        };
        let style = format!("stroke=\"{colour}\" stroke-width=\"{width}\"");
        line(out, (start, y), (RIGHT, y), &style);
        let words = format!("{} {} ({})", peak.arithmetic, speed_of(peak), peak.unit);
        text(out, RIGHT - 6.0, y - 6.0, "end", 12, colour, &words);
        let half_width = 3.4 * words.len() as f64;
        taken.push(Taken {
            x: RIGHT - 6.0 - half_width,
            y: y - 10.0,
            half_width,
            half_height: 8.0,
        });
    }
    taken
}

fn speed_of(peak: &crate::machine::Peak) -> String {
    let unit = if peak.arithmetic == "int8" {
        "OP/s"
    } else {
        "FLOP/s"
    };
    scaled(peak.all, unit)
}

/// The colour of each model, in order of appearance.
fn colour(entries: &[Entry], model: &str) -> &'static str {
    let mut models: Vec<&str> = Vec::new();
    for entry in entries {
        if !models.contains(&entry.model.as_str()) {
            models.push(&entry.model);
        }
    }
    let at = models.iter().position(|known| *known == model).unwrap_or(0);
    COLOURS[at % COLOURS.len()]
}

fn points(out: &mut String, entries: &[Entry], axes: &Axes, taken: &mut Vec<Taken>) {
    struct Spot {
        ring: (f64, f64),
        dot: Option<(f64, f64)>,
    }
    let spots: Vec<Spot> = entries
        .iter()
        .map(|entry| {
            let x = axes.x(entry.intensity);
            let y = |seconds: f64| axes.y(entry.flops as f64 / seconds);
            Spot {
                ring: (x, y(entry.predicted_s)),
                dot: entry.measured_s.map(|seconds| (x, y(seconds))),
            }
        })
        .collect();
    for spot in &spots {
        for (x, y) in [Some(spot.ring), spot.dot].into_iter().flatten() {
            taken.push(Taken {
                x,
                y,
                half_width: 5.0,
                half_height: 5.0,
            });
        }
    }
    for (number, (entry, spot)) in entries.iter().zip(&spots).enumerate() {
        let colour = colour(entries, &entry.model);
        if let Some(dot) = spot.dot {
            line(
                out,
                spot.ring,
                dot,
                &format!("stroke=\"{colour}\" stroke-width=\"1.5\""),
            );
        }
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\" fill=\"white\" stroke=\"{colour}\" stroke-width=\"1.8\"/>",
            spot.ring.0, spot.ring.1
        );
        if let Some(dot) = spot.dot {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\" fill=\"{colour}\"/>",
                dot.0, dot.1
            );
        }
        let anchor = spot.dot.unwrap_or(spot.ring);
        let badge = free_place(anchor, taken);
        line(
            out,
            anchor,
            badge,
            &format!("stroke=\"{colour}\" stroke-width=\"0.8\""),
        );
        disc(out, badge, number + 1, colour);
        taken.push(Taken {
            x: badge.0,
            y: badge.1,
            half_width: BADGE + 1.0,
            half_height: BADGE + 1.0,
        });
    }
}

/// The nearest place around `anchor` that covers nothing else.
fn free_place(anchor: (f64, f64), taken: &[Taken]) -> (f64, f64) {
    for distance in [17.0, 24.0, 32.0, 42.0, 54.0, 68.0, 84.0] {
        // Below and beside first: above a point are its ring and the roof.
        for degrees in [
            60.0, 120.0, 0.0, 180.0, 90.0, 30.0, 150.0, -30.0, -150.0, -60.0, -120.0,
        ] {
            let turn = f64::to_radians(degrees);
            let (x, y) = (
                anchor.0 + distance * turn.cos(),
                anchor.1 + distance * turn.sin(),
            );
            let place = Taken {
                x,
                y,
                half_width: BADGE + 1.5,
                half_height: BADGE + 1.5,
            };
            let inside =
                x > LEFT + BADGE && x < RIGHT - BADGE && y > TOP + BADGE && y < BOTTOM - BADGE;
            if inside && !taken.iter().any(|other| other.overlaps(&place)) {
                return (x, y);
            }
        }
    }
    anchor
}

fn disc(out: &mut String, (x, y): (f64, f64), number: usize, colour: &str) {
    let _ = writeln!(
        out,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{BADGE}\" fill=\"{colour}\"/>"
    );
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\" font-weight=\"bold\" fill=\"white\">{number}</text>",
        y + 4.0
    );
}

fn legend(out: &mut String, entries: &[Entry]) {
    let x = RIGHT + 34.0;
    let mut y = TOP + 4.0;
    let _ = writeln!(
        out,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"white\" stroke=\"{FAINT}\" stroke-width=\"1.8\"/>\
         <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{FAINT}\"/>",
        x + 162.0
    );
    text(
        out,
        x + 12.0,
        y + 4.0,
        "start",
        12,
        FAINT,
        "least time possible",
    );
    text(out, x + 174.0, y + 4.0, "start", 12, FAINT, "measured");
    y += 30.0;
    let step = ((BOTTOM + 30.0 - y) / entries.len().max(1) as f64).min(44.0);
    for (number, entry) in entries.iter().enumerate() {
        let colour = colour(entries, &entry.model);
        disc(out, (x, y), number + 1, colour);
        let work = &entry.work;
        let title = format!(
            "{} {}, {} × {}, {}",
            entry.model,
            work.phase.name(),
            work.batch,
            work.tokens,
            entry.precision
        );
        text(out, x + 18.0, y + 4.0, "start", 13, INK, &title);
        let reached = entry.flops as f64 / entry.measured_s.unwrap_or(entry.predicted_s);
        let detail = match entry.share {
            Some(share) => format!(
                "{}, {:.0} % of the roof, {}-bound",
                speed(reached),
                100.0 * share,
                entry.bound.name()
            ),
            None => format!("{} at most, {}-bound", speed(reached), entry.bound.name()),
        };
        text(out, x + 18.0, y + 20.0, "start", 12, FAINT, &detail);
        y += step;
    }
}
