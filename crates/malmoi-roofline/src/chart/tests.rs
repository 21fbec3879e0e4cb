//! The picture holds every point and stays readable.

use malmoi_kernels::probe::Arithmetic;
use malmoi_models::ModelConfig;

use super::*;
use crate::cost::{Phase, Work};
use crate::testing::machine;

fn entries() -> Vec<Entry> {
    let make = |model: &str, phase, batch| {
        let config = ModelConfig::preset(model).expect("a preset");
        let work = Work::new(phase, batch, 128);
        let mut entry =
            Entry::new(model, &config, &work, Arithmetic::F32, &machine()).expect("fits");
        entry.measured(1.3 * entry.predicted_s);
        entry
    };
    vec![
        make("bert-base", Phase::Encode, 1),
        make("bert-base", Phase::Encode, 32),
        make("gpt2", Phase::Decode, 1),
        make("gpt2", Phase::Decode, 32),
    ]
}

#[test]
fn the_picture_is_well_formed_and_shows_every_point() {
    let picture = svg(&machine(), &entries());
    for number in 1..=4 {
        assert_eq!(
            picture
                .matches(&format!("fill=\"white\">{number}</text>"))
                .count(),
            2,
            "point and legend"
        );
    }
    assert_eq!(
        picture.matches("<text").count(),
        picture.matches("</text>").count()
    );
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    assert!(!picture.contains("NaN") && !picture.contains("inf"));
    assert!(picture.contains("memory 10 GB/s") && picture.contains("f32 100 GFLOP/s"));
}

#[test]
fn numbers_in_crowded_places_do_not_cover_each_other() {
    let mut taken = Vec::new();
    let mut places = Vec::new();
    for _ in 0..12 {
        let (x, y) = free_place((400.0, 300.0), &taken);
        let place = Taken {
            x,
            y,
            half_width: BADGE,
            half_height: BADGE,
        };
        assert!(places.iter().all(|other: &Taken| !other.overlaps(&place)));
        places.push(place);
        taken.push(place);
    }
}

#[test]
fn axes_hold_every_point() {
    let (machine, entries) = (machine(), entries());
    let axes = axes(&machine, &entries);
    for entry in &entries {
        let x = axes.x(entry.intensity);
        let y = axes.y(entry.flops as f64 / entry.measured_s.expect("measured"));
        assert!(
            (LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y),
            "{x} {y}"
        );
    }
}

#[test]
fn speeds_are_read_easily() {
    assert_eq!(speed(425e9), "425 GFLOP/s");
    assert_eq!(speed(6.17e12), "6.2 TFLOP/s");
    assert_eq!(speed(1e9), "1 GFLOP/s");
    assert_eq!(escape("a<b>&c"), "a&lt;b&gt;&amp;c");
}
