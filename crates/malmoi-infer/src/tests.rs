//! Generation and beam search on small models with random weights, compared with the plain way of doing the same.

use malmoi_models::{Head, Mode, Model, ModelConfig, PackedBatch};
use serde_json::json;

use crate::InferError;
use crate::beam::{BeamOptions, beam_search};
use crate::generate::{FinishReason, Flow, GenerateOptions, Generated, generate, log_probability};
use crate::masked_accuracy::masked_accuracy;
use crate::perplexity::{WindowOptions, negative_log_likelihood};
use crate::sampling::SamplingSettings;

const VOCAB: usize = 11;
const MAX_LEN: usize = 16;

fn gpt2(seed: u64) -> Model {
    let config = json!({
        "model_type": "gpt2", "vocab_size": VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": MAX_LEN,
        "initializer_range": 0.6,
    });
    Model::initialise(
        ModelConfig::from_json(&config, false).unwrap(),
        Head::CausalLm,
        seed,
        Mode::Inference,
    )
}

fn t5() -> Model {
    let config = json!({
        "model_type": "t5", "vocab_size": VOCAB, "d_model": 16, "d_kv": 6, "num_heads": 2, "d_ff": 32, "num_layers": 2,
        "relative_attention_num_buckets": 6, "relative_attention_max_distance": 9, "decoder_start_token_id": 3,
        "tie_word_embeddings": false,
    });
    Model::initialise(
        ModelConfig::from_json(&config, false).unwrap(),
        Head::Seq2SeqLm,
        8,
        Mode::Inference,
    )
}

fn bert() -> Model {
    let config = json!({
        "model_type": "bert", "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": MAX_LEN,
    });
    Model::initialise(
        ModelConfig::from_json(&config, false).unwrap(),
        Head::MaskedLm,
        3,
        Mode::Inference,
    )
}

/// Logits after the last token, without a cache.
fn next_logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    model
        .logits(
            &PackedBatch::from_sequences(&[ids]),
            &[ids.len() as u32 - 1],
        )
        .unwrap()
}

fn run(model: &Model, prompts: &[Vec<u32>], options: &GenerateOptions) -> Vec<Generated> {
    generate(model, prompts, options, &mut |_| Flow::Continue).unwrap()
}

const PROMPTS: [&[u32]; 3] = [&[1, 2, 3, 4, 5], &[7], &[3, 3, 9]];

fn prompts() -> Vec<Vec<u32>> {
    PROMPTS.map(<[u32]>::to_vec).to_vec()
}

#[test]
fn greedy_rows_of_a_batch_equal_greedy_without_cache_or_batch() {
    let model = gpt2(5);
    let options = GenerateOptions {
        max_new_tokens: 8,
        log_probabilities: true,
        ..Default::default()
    };
    for (prompt, got) in prompts().iter().zip(run(&model, &prompts(), &options)) {
        let mut ids = prompt.clone();
        for (step, &token) in got.ids.iter().enumerate() {
            let logits = next_logits(&model, &ids);
            let best = (0..VOCAB)
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
                .unwrap();
            assert_eq!(token, best as u32, "step {step} after {ids:?}");
            assert!((got.log_probabilities[step] - log_probability(&logits, token)).abs() < 1e-4);
            ids.push(token);
        }
        assert_eq!(got.ids.len(), 8);
        assert_eq!(got.finish_reason, FinishReason::Length);
    }
}

#[test]
fn an_encoder_decoder_writes_from_its_start_token_what_belongs_to_each_source() {
    let model = t5();
    // Longer than the length it is meant for: relative positions have no end.
    let sources = [prompts(), vec![vec![7, 2, 9]; 1], vec![vec![5; 600]]].concat();
    let options = GenerateOptions {
        max_new_tokens: 6,
        ..Default::default()
    };
    let beams = BeamOptions {
        num_beams: 1,
        max_new_tokens: 6,
        ..Default::default()
    };
    let searched = beam_search(&model, &sources, &beams).unwrap();
    let mut texts = Vec::new();
    for ((source, got), searched) in
        (sources.iter().zip(run(&model, &sources, &options))).zip(searched)
    {
        let mut ids = vec![3];
        for (step, &token) in got.ids.iter().enumerate() {
            let batch = PackedBatch::from_sequences(&[&ids])
                .with_source(PackedBatch::from_sequences(&[source]));
            let logits = model.logits(&batch, &[ids.len() as u32 - 1]).unwrap();
            let best = (0..VOCAB)
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
                .unwrap();
            assert_eq!(token, best as u32, "step {step} for {source:?}");
            ids.push(token);
        }
        assert_eq!(got.ids.len(), 6);
        assert_eq!(searched[0].ids, got.ids, "one beam is greedy");
        texts.push(got.ids);
    }
    texts.dedup();
    assert!(
        texts.len() > 1,
        "every source gave the same text: {texts:?}"
    );
    // It has no probability of a text on its own.
    let window = WindowOptions {
        window: 4,
        stride: 2,
        tokens_per_batch: 16,
    };
    let error = negative_log_likelihood(&model, &[[1, 2, 3, 4]], &window, &mut |_| ()).unwrap_err();
    assert!(matches!(error, InferError::WrongModel { .. }), "{error}");
}

#[test]
fn a_finished_row_leaves_and_the_others_are_not_disturbed() {
    let model = gpt2(5);
    let alone = run(
        &model,
        &prompts(),
        &GenerateOptions {
            max_new_tokens: 8,
            ..Default::default()
        },
    );
    // The second token of the first row ends it.
    let end = alone[0].ids[1];
    let options = GenerateOptions {
        max_new_tokens: 8,
        end_ids: vec![end],
        ..Default::default()
    };
    for (got, free) in run(&model, &prompts(), &options).iter().zip(&alone) {
        let stop = free.ids.iter().position(|&id| id == end);
        assert_eq!(got.ids, free.ids[..stop.map_or(8, |at| at + 1)]);
        assert_eq!(
            got.finish_reason,
            if stop.is_some() {
                FinishReason::Stop
            } else {
                FinishReason::Length
            }
        );
    }
}

#[test]
fn sampling_repeats_itself_and_a_row_does_not_depend_on_its_neighbours() {
    let model = gpt2(6);
    let sampling = SamplingSettings {
        do_sample: true,
        top_k: Some(5),
        temperature: Some(1.3),
        ..Default::default()
    };
    let options = GenerateOptions {
        max_new_tokens: 9,
        sampling,
        seed: 17,
        ..Default::default()
    };
    let all = run(&model, &prompts(), &options);
    assert_eq!(all, run(&model, &prompts(), &options));
    assert_eq!(all[0], run(&model, &prompts()[..1], &options)[0]);
    let other = run(
        &model,
        &prompts(),
        &GenerateOptions {
            seed: 18,
            ..options
        },
    );
    assert_ne!(all, other);
}

#[test]
fn the_last_position_ends_generation_and_a_prompt_that_fills_it_is_refused() {
    let model = gpt2(1);
    let options = GenerateOptions {
        max_new_tokens: 100,
        ..Default::default()
    };
    let got = run(&model, &[vec![1; 10]], &options);
    assert_eq!(
        (got[0].ids.len(), got[0].finish_reason),
        (6, FinishReason::Length)
    );
    let error = generate(&model, &[vec![1; MAX_LEN]], &options, &mut |_| {
        Flow::Continue
    })
    .unwrap_err();
    assert!(
        matches!(
            error,
            InferError::PromptTooLong {
                row: 1,
                tokens: 16,
                max_len: 16
            }
        ),
        "{error}"
    );
    let error = generate(&model, &[vec![VOCAB as u32]], &options, &mut |_| {
        Flow::Continue
    })
    .unwrap_err();
    assert!(matches!(error, InferError::Batch(_)), "{error}");
    let error = generate(&bert(), &[vec![1]], &options, &mut |_| Flow::Continue).unwrap_err();
    assert!(matches!(error, InferError::WrongModel { .. }), "{error}");
}

#[test]
fn a_caller_can_end_rows_one_by_one() {
    let options = GenerateOptions {
        max_new_tokens: 6,
        ..Default::default()
    };
    let got = generate(
        &gpt2(2),
        &prompts(),
        &options,
        &mut |step| match (step.row, step.step) {
            (0, 1) => Flow::Stop,
            (1, 0) => Flow::Cancel,
            _ => Flow::Continue,
        },
    )
    .unwrap();
    let ends: Vec<_> = got.iter().map(|g| (g.ids.len(), g.finish_reason)).collect();
    assert_eq!(
        ends,
        [
            (2, FinishReason::Stop),
            (1, FinishReason::Cancelled),
            (6, FinishReason::Length)
        ]
    );
}

/// Every continuation of `n` tokens with its summed log-probability, best first.
fn exhaustive(model: &Model, prompt: &[u32], n: usize) -> Vec<(Vec<u32>, f64)> {
    let mut all = vec![(Vec::new(), 0.0)];
    for _ in 0..n {
        let mut longer = Vec::new();
        for (ids, sum) in all {
            let logits = next_logits(model, &[prompt, &ids].concat());
            for token in 0..VOCAB as u32 {
                longer.push((
                    [ids.as_slice(), &[token]].concat(),
                    sum + log_probability(&logits, token),
                ));
            }
        }
        all = longer;
    }
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

#[test]
fn beams_wide_enough_find_the_best_sequences_of_all() {
    let model = gpt2(9);
    // As many beams as there are prefixes of two tokens: nothing can be missed.
    let options = BeamOptions {
        num_beams: VOCAB * VOCAB,
        num_return_sequences: 5,
        max_new_tokens: 3,
        length_penalty: 1.0,
        ..Default::default()
    };
    for (prompt, got) in prompts()
        .iter()
        .zip(beam_search(&model, &prompts(), &options).unwrap())
    {
        for (hypothesis, (ids, sum)) in got.iter().zip(exhaustive(&model, prompt, 3)) {
            assert_eq!(hypothesis.ids, ids);
            assert!(
                (hypothesis.score - sum / 3.0).abs() < 1e-5,
                "{} {}",
                hypothesis.score,
                sum / 3.0
            );
            assert!(!hypothesis.ended);
        }
    }
}

#[test]
fn one_beam_is_greedy_and_an_end_token_ends_a_hypothesis() {
    let model = gpt2(5);
    let greedy = run(
        &model,
        &prompts(),
        &GenerateOptions {
            max_new_tokens: 7,
            ..Default::default()
        },
    );
    let options = BeamOptions {
        num_beams: 1,
        max_new_tokens: 7,
        ..Default::default()
    };
    let beams = beam_search(&model, &prompts(), &options).unwrap();
    assert!(
        beams
            .iter()
            .zip(&greedy)
            .all(|(beam, greedy)| beam[0].ids == greedy.ids)
    );
    let end = greedy[0].ids[0];
    let options = BeamOptions {
        num_beams: 3,
        num_return_sequences: 3,
        max_new_tokens: 7,
        end_ids: vec![end],
        ..Default::default()
    };
    for hypotheses in beam_search(&model, &prompts(), &options).unwrap() {
        assert_eq!(hypotheses.len(), 3);
        assert!(
            hypotheses
                .windows(2)
                .all(|pair| pair[0].score >= pair[1].score)
        );
        for hypothesis in hypotheses {
            let at = hypothesis.ids.iter().position(|&id| id == end);
            assert_eq!(at, hypothesis.ended.then_some(hypothesis.ids.len() - 1));
        }
    }
    let wrong = BeamOptions {
        num_beams: 2,
        num_return_sequences: 3,
        ..Default::default()
    };
    assert!(matches!(
        beam_search(&model, &prompts(), &wrong),
        Err(InferError::Setting {
            name: "num_return_sequences",
            ..
        })
    ));
}

#[test]
fn perplexity_windows_add_up_to_the_loss_of_each_token_in_its_context() {
    let model = gpt2(4);
    let ids: Vec<u32> = (0..41).map(|i| (i * i + 3) % VOCAB as u32).collect();
    for (window, stride) in [(16, 15), (16, 5), (8, 1)] {
        let options = WindowOptions {
            window,
            stride,
            tokens_per_batch: 40,
        };
        let mut seen = 0;
        let got = negative_log_likelihood(&model, &[&ids], &options, &mut |n| seen += n).unwrap();
        let (mut expected, mut start, mut scored) = (0.0, 0, 1);
        while scored < ids.len() {
            let end = (start + window).min(ids.len());
            for token in scored..end {
                expected -= log_probability(&next_logits(&model, &ids[start..token]), ids[token]);
            }
            (scored, start) = (end, start + stride);
        }
        assert!(
            (got - expected).abs() < 1e-3,
            "window {window} stride {stride}: {got} {expected}"
        );
        assert_eq!(seen, 40);
    }
    let options = WindowOptions {
        window: 17,
        stride: 4,
        tokens_per_batch: 40,
    };
    assert!(matches!(
        negative_log_likelihood(&model, &[&ids], &options, &mut |_| ()),
        Err(InferError::Setting { name: "window", .. })
    ));
}

#[test]
fn masked_accuracy_counts_hits_and_the_commonest_hidden_token() {
    let model = bert();
    let sequences: Vec<_> = (0..40u32)
        .map(|i| crate::fill_mask::Sequence {
            ids: vec![1, 5, 5 + i % 2, 6, 2],
            segments: Vec::new(),
        })
        .collect();
    let got = masked_accuracy(&model, &sequences, 4, &[1, 2], (0.5, 7), 64).unwrap();
    assert!(got.hidden > 30 && got.hidden < 90, "{got:?}");
    assert!(
        got.most_frequent > 0.4 && got.most_frequent < 0.7,
        "{got:?}"
    );
    assert!(
        got.loss > 1.0 && (0.0..=1.0).contains(&got.accuracy),
        "{got:?}"
    );
    assert_eq!(
        got,
        masked_accuracy(&model, &sequences, 4, &[1, 2], (0.5, 7), 1000)
            .map(|r| crate::masked_accuracy::MaskedAccuracy {
                loss: got.loss,
                ..r
            })
            .unwrap()
    );
}

#[test]
fn texts_are_scored_apart_whatever_the_batch() {
    let model = gpt2(7);
    let texts: Vec<Vec<u32>> = vec![vec![1, 2, 3], vec![4], (0..30).map(|i| i % 11).collect()];
    let score = |texts: &[Vec<u32>], tokens_per_batch| {
        let options = WindowOptions {
            window: 12,
            stride: 6,
            tokens_per_batch,
        };
        negative_log_likelihood(&model, texts, &options, &mut |_| ())
    };
    // A text of one token predicts nothing.
    let apart: f64 = [0, 2]
        .iter()
        .map(|&i| score(&texts[i..=i], 64).unwrap())
        .sum();
    for budget in [1, 20, 1000] {
        assert!((score(&texts, budget).unwrap() - apart).abs() < 1e-4);
    }
    let error = score(&texts[1..2], 64).unwrap_err();
    assert!(
        matches!(
            error,
            InferError::TooShort {
                found: 1,
                expected: 2
            }
        ),
        "{error}"
    );
}
