use super::*;

const NOTHING: History<'static> = History {
    ids: &[],
    prompt_len: 0,
};

fn apply(filter: Filter, logits: &[f64], ids: &[u32], prompt_len: usize) -> Vec<f64> {
    let mut row = logits.to_vec();
    filter.apply(&mut row, &History { ids, prompt_len });
    row
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
    let sampler = Sampler::new(&settings, &[], 42).unwrap();
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
    let sampler = Sampler::new(&settings, &[], 0).unwrap();
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
    let sampler = greedy();
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
