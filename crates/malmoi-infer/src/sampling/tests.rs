use super::*;

const NOTHING: History<'static> = History {
    ids: &[],
    prompt_len: 0,
};

fn apply(filter: Filter, logits: &[f64], ids: &[u32], prompt_len: usize) -> Vec<f64> {
    let mut row = Row::new(logits.to_vec());
    filter.apply(&mut row, &History { ids, prompt_len });
    (0..logits.len() as u32).map(|id| row.logit(id)).collect()
}

fn kept(row: &[f64]) -> Vec<usize> {
    (0..row.len())
        .filter(|&i| row[i] > f64::NEG_INFINITY)
        .collect()
}

#[test]
fn top_k_keeps_ties_with_the_kth_value() {
    assert_eq!(
        kept(&apply(Filter::TopK(2), &[1.0, 3.0, 2.0, 2.0], &[], 0)),
        [1, 2, 3]
    );
    assert_eq!(kept(&apply(Filter::TopK(9), &[1.0, 3.0], &[], 0)), [0, 1]);
}

#[test]
fn top_p_keeps_the_smallest_set_that_reaches_p() {
    let logits: Vec<f64> = [0.5f64, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
    assert_eq!(kept(&apply(Filter::TopP(0.49), &logits, &[], 0)), [0]);
    assert_eq!(kept(&apply(Filter::TopP(0.6), &logits, &[], 0)), [0, 1]);
    assert_eq!(kept(&apply(Filter::TopP(0.9), &logits, &[], 0)), [0, 1, 2]);
    assert_eq!(
        kept(&apply(Filter::TopP(1.0), &logits, &[], 0)),
        [0, 1, 2, 3]
    );
}

#[test]
fn top_p_agrees_with_a_full_sort_on_long_rows() {
    // 5,000 nearly flat logits: the kept set is far longer than the head that is sorted first.
    let logits: Vec<f64> = (0..5000u64)
        .map(|i| ((i * 2_654_435_761) % 5003) as f64 / 5003.0)
        .collect();
    for p in [0.001, 0.05, 0.2, 0.7, 0.99] {
        let probs = softmax(&logits);
        let mut order: Vec<usize> = (0..probs.len()).collect();
        order.sort_by(|&a, &b| probs[b].total_cmp(&probs[a]));
        let (mut sum, mut expected) = (0.0, Vec::new());
        for i in order {
            if sum >= p {
                break;
            }
            sum += probs[i];
            expected.push(i);
        }
        expected.sort_unstable();
        assert_eq!(
            kept(&apply(Filter::TopP(p), &logits, &[], 0)),
            expected,
            "p = {p}"
        );
    }
}

/// The rules for drawing as their definitions read: on the whole row, sorted as a whole.
fn plainly(filter: &Filter, row: &mut [f64]) {
    let probs = softmax(row);
    let entropy: f64 = -(probs.iter().filter(|p| **p > 0.0))
        .map(|p| p * p.ln())
        .sum::<f64>();
    let sorted = |key: &dyn Fn(usize) -> f64| {
        let mut order: Vec<usize> = (0..row.len()).filter(|&i| probs[i] > 0.0).collect();
        order.sort_by(|&a, &b| key(a).total_cmp(&key(b)));
        order
    };
    let until = |order: &[usize], mass: f64| {
        let mut sum = 0.0;
        let reaching = order.iter().position(|&i| {
            sum += probs[i];
            sum >= mass
        });
        reaching.map_or(order.len(), |last| last + 1)
    };
    let best = probs.iter().copied().fold(0.0, f64::max);
    let above =
        |least: f64| -> Vec<bool> { (probs.iter().map(|&p| p >= least || p == best)).collect() };
    let kept = match filter {
        Filter::Temperature(temperature) => {
            row.iter_mut().for_each(|x| *x /= temperature);
            return;
        }
        Filter::TopK(k) => {
            let order = sorted(&|i| -row[i]);
            let kth = row[order[order.len().min(*k) - 1]];
            row.iter().map(|&x| x >= kth).collect()
        }
        Filter::TopP(p) => {
            let order = sorted(&|i| -probs[i]);
            let kept = &order[..until(&order, *p)];
            (0..row.len()).map(|i| kept.contains(&i)).collect()
        }
        Filter::MinP(fraction) => above(fraction * best),
        Filter::TypicalP(mass) => {
            let distance = |i: usize| (-probs[i].ln() - entropy).abs();
            let order = sorted(&distance);
            let farthest = distance(order[until(&order, *mass) - 1]);
            (0..row.len()).map(|i| distance(i) <= farthest).collect()
        }
        Filter::EpsilonCutoff(epsilon) => above(*epsilon),
        Filter::EtaCutoff(epsilon) => above(epsilon.min(epsilon.sqrt() * (-entropy).exp())),
        _ => vec![true; row.len()],
    };
    for (x, kept) in row.iter_mut().zip(kept) {
        if !kept {
            *x = f64::NEG_INFINITY;
        }
    }
}

#[test]
fn rules_on_what_is_left_keep_what_they_keep_of_whole_rows() {
    let key = Key::new(5, Purpose::Sampling, 0);
    let spread = [0.5, 3.0, 9.0];
    for case in 0..120_u64 {
        let uniform = |at: u64| key.fold(case).uniform_f64_at(at);
        let len = 1 + (uniform(0) * 3000.0) as usize;
        let logit = |i: usize| spread[case as usize % 3] * (uniform(10 + i as u64) - 0.5);
        let mut dense: Vec<f64> = (0..len).map(logit).collect();
        // Excluded tokens and equal logits.
        (0..len)
            .step_by(7)
            .for_each(|i| dense[i] = f64::NEG_INFINITY);
        (3..len).step_by(11).for_each(|i| dense[i] = dense[3]);
        if len == 1 {
            dense[0] = 1.0;
        }
        let filters = [
            Filter::Temperature(0.3 + uniform(1)),
            Filter::TopK(1 + (uniform(2) * 600.0) as usize),
            Filter::TopP(0.2 + 0.79 * uniform(3)),
            Filter::MinP(0.2 * uniform(4)),
            Filter::TypicalP(0.2 + 0.79 * uniform(5)),
            Filter::EpsilonCutoff(0.02 * uniform(6)),
            Filter::EtaCutoff(0.2 * uniform(7)),
        ];
        let mut row = Row::new(dense.clone());
        for filter in filters.into_iter().cycle().skip(case as usize % 7).take(3) {
            plainly(&filter, &mut dense);
            filter.apply(&mut row, &NOTHING);
            let left: Vec<f64> = (0..len as u32).map(|id| row.logit(id)).collect();
            assert_eq!(kept(&left), kept(&dense), "case {case}, {filter:?}");
        }
        let all = softmax(&dense);
        for (place, p) in row.probabilities().into_iter().enumerate() {
            assert!((p - all[row.id(place) as usize]).abs() < 1e-12);
        }
        // The draw falls where the plain sum of probabilities passes the number drawn.
        let target = uniform(8);
        let mut sum = 0.0;
        let bounds = all.iter().map(|p| {
            sum += p;
            sum
        });
        let bounds: Vec<f64> = bounds.collect();
        let id = row.sample(target).unwrap() as usize;
        assert!(bounds[id] > target - 1e-12 && bounds[id] - all[id] < target + 1e-12);
    }
}

#[test]
fn a_token_that_was_dropped_stays_out() {
    let mut row = Row::new(vec![1.0, 3.0, 2.0, 0.0]);
    Filter::TopK(2).apply(&mut row, &NOTHING);
    let bias = Filter::LogitBias(vec![(0, 9.0), (2, 5.0), (7, 1.0)]);
    bias.apply(&mut row, &NOTHING);
    assert_eq!(row.logits(), [3.0, 7.0]);
    assert_eq!((row.id(0), row.id(1)), (1, 2));
    assert_eq!(row.logit(0), f64::NEG_INFINITY);
}

#[test]
fn ngram_blocking_removes_what_followed_the_same_words() {
    let row = [0.0; 6];
    // The tail (1, 2) was followed by 3.
    assert_eq!(
        kept(&apply(
            Filter::NoRepeatNgram(3),
            &row,
            &[1, 2, 3, 4, 1, 2],
            0
        )),
        [0, 1, 2, 4, 5]
    );
    assert_eq!(
        kept(&apply(Filter::NoRepeatNgram(1), &row, &[1, 2], 0)),
        [0, 3, 4, 5]
    );
    assert_eq!(
        kept(&apply(Filter::NoRepeatNgram(3), &row, &[1, 2], 0)).len(),
        6
    );
}

#[test]
fn a_repeated_id_is_penalised_once_and_unknown_ids_are_ignored() {
    let row = apply(
        Filter::RepetitionPenalty(2.0),
        &[4.0, -4.0, 1.0],
        &[0, 0, 1, 99],
        0,
    );
    assert_eq!(row, [2.0, -8.0, 1.0]);
}

#[test]
fn end_tokens_wait_for_the_minimum_of_new_tokens() {
    let filter = Filter::MinNewTokens {
        count: 2,
        end_ids: vec![1],
    };
    assert_eq!(
        kept(&apply(filter.clone(), &[0.0; 3], &[7, 7, 7], 2)),
        [0, 2]
    );
    assert_eq!(kept(&apply(filter, &[0.0; 3], &[7, 7, 7, 7], 2)), [0, 1, 2]);
}

#[test]
fn cut_offs_always_keep_the_best_token() {
    assert_eq!(
        kept(&apply(Filter::EpsilonCutoff(0.9), &[0.0, 1.0, 0.5], &[], 0)),
        [1]
    );
    assert_eq!(
        kept(&apply(Filter::EtaCutoff(0.9), &[0.0, 9.0, 0.5], &[], 0)),
        [1]
    );
}

#[test]
fn a_draw_follows_the_distribution_and_never_takes_probability_zero() {
    let probs = [0.0, 0.25, 0.0, 0.75, 0.0];
    assert_eq!(sample(&probs, 0.0), Some(1));
    assert_eq!(sample(&probs, 0.2499), Some(1));
    assert_eq!(sample(&probs, 0.25), Some(3));
    assert_eq!(sample(&probs, 1.0), Some(3));
    assert_eq!(sample(&[0.0, 0.0], 0.5), None);
}

#[test]
fn a_sampler_repeats_itself_and_its_frequencies_follow_the_probabilities() {
    let settings = SamplingSettings {
        do_sample: true,
        ..Default::default()
    };
    let mut sampler = Sampler::new(&settings, &[], 42).unwrap();
    let logits = [0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()];
    let mut counts = [0usize; 3];
    let ids = vec![0u32; 20_000];
    for n in 0..ids.len() {
        let history = History {
            ids: &ids[..n],
            prompt_len: 0,
        };
        let token = sampler.choose(&logits, &history, 3).unwrap();
        assert_eq!(token, sampler.choose(&logits, &history, 3).unwrap());
        counts[token as usize] += 1;
    }
    // Standard deviation of a count is at most sqrt(20000 / 4) = 71; five of them.
    for (count, expected) in counts.iter().zip([4000.0, 10000.0, 6000.0]) {
        assert!((*count as f64 - expected).abs() < 355.0, "{counts:?}");
    }
}

#[test]
fn rows_and_seeds_draw_differently() {
    let settings = SamplingSettings {
        do_sample: true,
        ..Default::default()
    };
    let logits = [0.0f32; 1000];
    let choose = |seed, row| {
        Sampler::new(&settings, &[], seed)
            .unwrap()
            .choose(&logits, &NOTHING, row)
            .unwrap()
    };
    assert_ne!(choose(1, 0), choose(2, 0));
    assert_ne!(choose(1, 0), choose(1, 1));
}

fn greedy() -> Sampler {
    Sampler::new(&SamplingSettings::default(), &[], 0).unwrap()
}

#[test]
fn greedy_takes_the_first_of_equal_maxima_and_ignores_the_shaping_rules() {
    let settings = SamplingSettings {
        top_k: Some(1),
        ..Default::default()
    };
    let mut sampler = Sampler::new(&settings, &[], 0).unwrap();
    assert_eq!(sampler.choose(&[1.0, 5.0, 5.0], &NOTHING, 0), Ok(1));
}

#[test]
fn the_largest_of_a_long_row_is_found_wherever_it_is() {
    for len in [1, 15, 16, 17, 50, 64] {
        for at in 0..len {
            let mut row: Vec<f32> = (0..len).map(|i| -1.0 - (i % 7) as f32).collect();
            row[at] = -0.5;
            assert_eq!(argmax(&row), Some(at), "{len} values");
            row[len - 1] = row[at];
            assert_eq!(argmax(&row), Some(at), "the first of two");
            let wide: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            assert_eq!(argmax(&wide), Some(at), "{len} values of f64");
            row[at] = f32::NAN;
            assert_ne!(argmax(&row), Some(at), "NaN is no value");
            let refused = greedy().choose(&row, &NOTHING, 0);
            assert!(matches!(refused, Err(SamplingError::NotFinite { id, .. }) if id == at));
        }
    }
    assert_eq!(argmax::<f32>(&[]), None);
}

#[test]
fn bad_settings_and_logits_are_refused_by_name() {
    let bad = SamplingSettings {
        top_p: Some(0.0),
        ..Default::default()
    };
    assert!(
        Sampler::new(&bad, &[], 0)
            .unwrap_err()
            .to_string()
            .starts_with("top_p is 0")
    );
    let bad = SamplingSettings {
        temperature: Some(f64::NAN),
        ..Default::default()
    };
    assert!(Sampler::new(&bad, &[], 0).is_err());
    let mut sampler = greedy();
    assert!(matches!(
        sampler.choose(&[0.0, f32::NAN], &NOTHING, 0),
        Err(SamplingError::NotFinite { id: 1, .. })
    ));
    assert_eq!(
        sampler.choose(&[f32::NEG_INFINITY; 2], &NOTHING, 0),
        Err(SamplingError::NothingLeft)
    );
}

#[test]
fn penalties_count_what_was_generated_and_not_the_prompt() {
    let penalty = Filter::GeneratedPenalty {
        frequency: 0.5,
        presence: 1.0,
    };
    let row = apply(penalty, &[0.0; 4], &[3, 3, 1, 2, 1, 99], 2);
    assert_eq!(row, [0.0, -2.0, -1.5, 0.0]);
}

#[test]
fn a_bias_is_added_and_may_exclude() {
    let bias = Filter::LogitBias(vec![(0, 1.5), (2, f64::NEG_INFINITY), (9, 1.0)]);
    assert_eq!(
        apply(bias, &[1.0, 1.0, 1.0], &[], 0),
        [2.5, 1.0, f64::NEG_INFINITY]
    );
    let wild = SamplingSettings {
        frequency_penalty: Some(2.5),
        ..Default::default()
    };
    assert!(Sampler::new(&wild, &[], 0).is_err());
}
