use malmoi_kernels::reduce::sum_of_squares;

use super::*;

fn rules() -> Vec<Rule> {
    vec![
        Rule::AdamW(Adam {
            weight_decay: 0.1,
            ..Default::default()
        }),
        Rule::Adam(Adam::default()),
        Rule::Sgd(Sgd {
            momentum: 0.9,
            nesterov: true,
            ..Default::default()
        }),
        Rule::Sgd(Sgd::default()),
        Rule::Adagrad(Adagrad::default()),
        Rule::RmsProp(RmsProp {
            momentum: 0.5,
            centered: true,
            ..Default::default()
        }),
        Rule::RmsProp(RmsProp::default()),
        Rule::Adamax(Adamax::default()),
        Rule::RAdam(RAdam::default()),
        Rule::NAdam(NAdam::default()),
        Rule::Adafactor(Adafactor {
            beta1: Some(0.9),
            ..Default::default()
        }),
        Rule::Adafactor(Adafactor::default()),
        Rule::Lamb(Lamb::default()),
    ]
}

const SHAPES: [(&str, &[usize]); 3] = [("w", &[2, 3]), ("b", &[4]), ("stack", &[2, 2, 2])];

/// Gradient of the sum of `(x - 1)² / 2`.
fn gradient(values: &[f32]) -> Vec<f32> {
    values.iter().map(|x| x - 1.0).collect()
}

fn train(optimizer: &mut Optimizer, values: &mut [Vec<f32>], steps: usize) {
    for _ in 0..steps {
        for ((name, shape), values) in SHAPES.iter().zip(values.iter_mut()) {
            let gradient = gradient(values);
            let slot = ParamSlot {
                name,
                shape,
                values,
                gradient: &gradient,
                decay: false,
            };
            optimizer.update(0.05, slot).unwrap();
        }
    }
}

fn start() -> Vec<Vec<f32>> {
    SHAPES
        .iter()
        .map(|(_, shape)| {
            (0..shape.iter().product())
                .map(|i| i as f32 * 0.7 - 1.3)
                .collect()
        })
        .collect()
}

fn distance(values: &[Vec<f32>]) -> f64 {
    values.iter().map(|v| sum_of_squares(&gradient(v))).sum()
}

#[test]
fn every_rule_approaches_a_minimum() {
    for rule in rules() {
        let mut values = start();
        let before = distance(&values);
        train(&mut Optimizer::new(rule.clone()).unwrap(), &mut values, 60);
        assert!(
            distance(&values) < 0.9 * before,
            "{rule:?}: {} of {before}",
            distance(&values)
        );
    }
}

#[test]
fn a_saved_state_continues_with_the_same_bits() {
    for rule in rules() {
        let mut whole = start();
        train(&mut Optimizer::new(rule.clone()).unwrap(), &mut whole, 7);
        let mut parts = start();
        let mut first = Optimizer::new(rule.clone()).unwrap();
        train(&mut first, &mut parts, 3);
        let mut second = Optimizer::new(rule.clone()).unwrap();
        second.load(first.state(), SHAPES).unwrap();
        assert_eq!(second.state(), first.state());
        train(&mut second, &mut parts, 4);
        assert_eq!(parts, whole, "{rule:?}");
    }
}

#[test]
fn a_state_of_another_model_or_rule_is_refused() {
    let mut adam = Optimizer::new(Rule::AdamW(Adam::default())).unwrap();
    train(&mut adam, &mut start(), 1);
    let error = adam
        .clone()
        .load(adam.state(), [("w", &[5usize][..])])
        .unwrap_err();
    assert!(error.to_string().contains("w/exp_avg"), "{error}");
    let error = adam.clone().load(adam.state(), [SHAPES[0]]).unwrap_err();
    assert!(error.to_string().contains("something else"), "{error}");
    let mut sgd = Optimizer::new(Rule::Sgd(Sgd {
        momentum: 0.9,
        ..Default::default()
    }))
    .unwrap();
    assert!(sgd.load(adam.state(), SHAPES).is_err());
}

#[test]
fn wrong_lengths_and_settings_are_refused() {
    let mut adam = Optimizer::new(Rule::AdamW(Adam::default())).unwrap();
    let slot = ParamSlot {
        name: "w",
        shape: &[3],
        values: &mut [0.0; 3],
        gradient: &[0.0; 2],
        decay: true,
    };
    assert!(matches!(
        adam.update(0.1, slot),
        Err(OptimizerError::Length { .. })
    ));
    assert!(
        Optimizer::new(Rule::AdamW(Adam {
            beta2: 1.0,
            ..Default::default()
        }))
        .is_err()
    );
    assert!(
        Optimizer::new(Rule::Sgd(Sgd {
            nesterov: true,
            ..Default::default()
        }))
        .is_err()
    );
}

#[test]
fn decay_applies_only_where_asked() {
    let mut adam = Optimizer::new(Rule::AdamW(Adam {
        weight_decay: 0.5,
        ..Default::default()
    }))
    .unwrap();
    let mut values = [[1.0f32; 2], [1.0; 2]];
    let [a, b] = &mut values;
    let slot = |name, values, decay| ParamSlot {
        name,
        shape: &[2],
        values,
        gradient: &[0.0; 2],
        decay,
    };
    adam.step(0.1, vec![slot("a", a, true), slot("b", b, false)])
        .unwrap();
    assert_eq!(values, [[0.95; 2], [1.0; 2]]);
}

#[test]
fn clipping_scales_to_the_norm_and_leaves_small_gradients_alone() {
    let (mut a, mut b) = ([3.0f32], [4.0f32]);
    assert_eq!(clip::clip(&mut [&mut a, &mut b], 10.0), 5.0);
    assert_eq!((a, b), ([3.0], [4.0]));
    clip::clip(&mut [&mut a, &mut b], 1.0);
    assert!((clip::global_norm([&a[..], &b[..]]) - 1.0).abs() < 1e-6);
    let mut nan = [f32::NAN, 2.0];
    assert!(clip::clip(&mut [&mut nan], 1.0).is_nan());
    assert_eq!(nan[1], 2.0);
}

#[test]
fn settings_read_from_a_config_with_defaults_and_refuse_unknown_keys() {
    let read = |text: &str| serde_json::from_str::<Rule>(text);
    let rule = read(r#"{"name": "adamw", "beta2": 0.99}"#).unwrap();
    assert_eq!(
        rule,
        Rule::AdamW(Adam {
            beta2: 0.99,
            ..Default::default()
        })
    );
    assert!(read(r#"{"name": "adamw", "betas": 1}"#).is_err());
    assert!(read(r#"{"name": "adamv"}"#).is_err());
}
