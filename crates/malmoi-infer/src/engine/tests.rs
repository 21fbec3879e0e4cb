//! The engine on small models with random weights: whatever runs beside a text, it becomes the same.

use std::sync::{Arc, Mutex};

use malmoi_models::{Head, Mode, Model, ModelConfig};
use serde_json::json;

use super::*;
use crate::beam::{BeamOptions, beam_search};
use crate::generate::{FinishReason, Flow, GenerateOptions, generate};
use crate::sampling::SamplingSettings;

const VOCAB: u32 = 53;

fn decoder(d_model: usize, n_layers: usize, seed: u64) -> Model {
    let config = json!({
        "model_type": "gpt2", "vocab_size": VOCAB, "n_embd": d_model, "n_layer": n_layers, "n_head": 2, "n_positions": 64,
        "initializer_range": 0.5,
    });
    let config = ModelConfig::from_json(&config, false).unwrap();
    Model::initialise(config, Head::CausalLm, seed, Mode::Inference)
}

fn t5() -> Model {
    let config = json!({
        "model_type": "t5", "vocab_size": VOCAB, "d_model": 16, "d_kv": 6, "num_heads": 2, "d_ff": 32, "num_layers": 2,
        "relative_attention_num_buckets": 6, "relative_attention_max_distance": 9, "decoder_start_token_id": 3,
        "tie_word_embeddings": false,
    });
    let config = ModelConfig::from_json(&config, false).unwrap();
    Model::initialise(config, Head::Seq2SeqLm, 8, Mode::Inference)
}

/// What a text became.
#[derive(Debug, Default)]
struct Heard {
    tokens: Vec<u32>,
    log_probabilities: Vec<f64>,
    finished: Option<FinishReason>,
    found: Vec<Vec<u32>>,
    failed: Option<String>,
    unwanted: bool,
}

#[derive(Debug, Clone, Default)]
struct Ear(Arc<Mutex<Heard>>);

impl Sink for Ear {
    fn event(&mut self, event: Event) -> Flow {
        let mut heard = self.0.lock().unwrap();
        match event {
            Event::Token(choice) => {
                heard.tokens.push(choice.token);
                heard.log_probabilities.extend(choice.log_probability);
            }
            Event::Finished(reason) => heard.finished = Some(reason),
            Event::Found(found) => heard.found = found.into_iter().map(|h| h.ids).collect(),
            Event::Failed(error) => heard.failed = Some(error.to_string()),
            Event::Lost => heard.failed = Some("lost".into()),
        }
        Flow::Continue
    }

    fn is_wanted(&self) -> bool {
        !self.0.lock().unwrap().unwanted
    }
}

fn request(prompt: &[u32], settings: SamplingSettings, seed: u64, ear: &Ear) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_new_tokens: 12,
        end_ids: vec![0],
        writing: Writing::Tokens(settings),
        seed,
        stream: 0,
        top: Some(2),
        drafting: Drafting::Off,
        constraint: None,
        sink: Box::new(ear.clone()),
    }
}

fn options() -> EngineOptions {
    EngineOptions {
        rows: 32,
        cache_bytes: 1 << 24,
        prompt_piece: 4,
    }
}

fn finish(engine: &mut Engine<'_>) -> StepReport {
    let mut all = StepReport::default();
    while !engine.is_idle() {
        let report = engine.step();
        all.prompt_tokens += report.prompt_tokens;
        all.reused_tokens += report.reused_tokens;
        all.new_tokens += report.new_tokens;
        all.guessed += report.guessed;
        all.accepted += report.accepted;
        assert!(engine.cache_bytes() <= engine.options.cache_bytes);
    }
    all
}

/// Requests of every kind: lengths, greedy and drawn, penalties.
fn mixed(count: usize) -> Vec<(Vec<u32>, SamplingSettings, u64)> {
    (0..count)
        .map(|i| {
            let prompt = (0..1 + i * 5 % 23)
                .map(|t| ((7 * i + 3 * t) % 51 + 1) as u32)
                .collect();
            let settings = SamplingSettings {
                do_sample: i % 3 > 0,
                temperature: (i % 2 > 0).then_some(0.8),
                top_k: (i % 4 == 1).then_some(9),
                repetition_penalty: (i % 5 == 2).then_some(1.3),
                frequency_penalty: (i % 5 == 3).then_some(0.7),
                ..Default::default()
            };
            (prompt, settings, 100 + i as u64)
        })
        .collect()
}

#[test]
fn many_together_write_what_each_writes_alone() {
    // Weights are read in packed form alone, so that all go through them in one pass; an update brings them back as they were, and few
    // rows at a time are alike: eight of 16 columns, sixteen of 256.
    for (d_model, count, packed) in [(16, 16, false), (256, 16, false), (256, 40, true)] {
        let model = decoder(d_model, 2, 5);
        let model = if packed {
            model
        } else {
            model.update(|_, _| ())
        };
        assert_eq!(model.rows_alike() == usize::MAX, packed);
        let requests = mixed(count);
        // Long enough, and read fast enough, for most of forty to be there at once.
        let (prompt_piece, max_new_tokens) = if packed { (32, 40) } else { (4, 12) };
        let options = || EngineOptions {
            rows: count,
            prompt_piece,
            ..options()
        };
        let request = |prompt: &[u32], settings: &SamplingSettings, seed: u64, ear: &Ear| Request {
            max_new_tokens,
            ..request(prompt, settings.clone(), seed, ear)
        };
        let alone: Vec<Ear> = (requests.iter())
            .map(|(prompt, settings, seed)| {
                let (ear, mut engine) = (Ear::default(), Engine::new(&model, None, options()));
                engine.submit(request(prompt, settings, *seed, &ear));
                finish(&mut engine);
                ear
            })
            .collect();
        let mut engine = Engine::new(&model, None, options());
        let (mut together, mut most) = (Vec::new(), None);
        for (i, (prompt, settings, seed)) in requests.iter().enumerate() {
            let ear = Ear::default();
            engine.submit(request(prompt, settings, *seed, &ear));
            together.push(ear);
            // Some join while others are well under way.
            (0..i % 3).for_each(|_| {
                engine.step();
            });
            most = most.max(engine.groups.iter().map(|group| group.rows.len()).max());
        }
        finish(&mut engine);
        assert!(!packed || most > Some(16), "{most:?}");
        for (i, (a, b)) in alone.iter().zip(&together).enumerate() {
            let (a, b) = (a.0.lock().unwrap(), b.0.lock().unwrap());
            assert!(a.finished.is_some() && !a.tokens.is_empty());
            assert_eq!(a.tokens, b.tokens, "d_model {d_model}, text {i}");
            assert_eq!(a.finished, b.finished);
            // Not only the choices: the logits have the same bits.
            assert_eq!(a.log_probabilities, b.log_probabilities, "text {i}");
        }
    }
}

#[test]
fn the_engine_writes_what_generation_without_it_writes() {
    let greedy = SamplingSettings::default();
    let sampled = SamplingSettings {
        do_sample: true,
        top_k: Some(8),
        ..Default::default()
    };
    for model in [decoder(16, 2, 5), t5()] {
        for settings in [&greedy, &sampled] {
            let prompt = [5, 9, 2, 30, 11, 7];
            let ear = Ear::default();
            let mut engine = Engine::new(&model, None, options());
            engine.submit(request(&prompt, settings.clone(), 3, &ear));
            finish(&mut engine);
            let plain = GenerateOptions {
                max_new_tokens: 12,
                end_ids: vec![0],
                sampling: settings.clone(),
                seed: 3,
                log_probabilities: true,
            };
            let plain = generate(&model, &[prompt], &plain, &mut |_| Flow::Continue).unwrap();
            let heard = ear.0.lock().unwrap();
            assert_eq!(heard.tokens, plain[0].ids);
            assert_eq!(heard.finished, Some(plain[0].finish_reason));
        }
    }
}

#[test]
fn guessing_ahead_changes_the_passes_and_not_the_text() {
    let model = decoder(16, 2, 5);
    let other = decoder(16, 1, 9);
    // A model that repeats itself, so that looking up finds something.
    let prompt: Vec<u32> = [4, 8, 15, 16, 23, 42].repeat(3);
    let run = |draft: Option<&Model>, drafting| {
        let ears: Vec<Ear> = (0..3).map(|_| Ear::default()).collect();
        let mut engine = Engine::new(&model, draft, options());
        for (i, ear) in ears.iter().enumerate() {
            let mut request = request(&prompt[i..], SamplingSettings::default(), 1, ear);
            request.drafting = drafting;
            request.max_new_tokens = 30;
            request.end_ids = Vec::new();
            engine.submit(request);
        }
        let report = finish(&mut engine);
        let texts: Vec<Vec<u32>> = (ears.iter())
            .map(|ear| ear.0.lock().unwrap().tokens.clone())
            .collect();
        (texts, report)
    };
    let (plain, without) = run(None, Drafting::Off);
    assert_eq!(without.guessed, 0);
    let (looked_up, report) = run(None, Drafting::LookUp { tokens: 3 });
    assert_eq!(plain, looked_up);
    assert!(report.guessed > 0 && report.accepted > 0, "{report:?}");
    let (drafted, report) = run(Some(&other), Drafting::Model { tokens: 3 });
    assert_eq!(plain, drafted);
    assert!(report.guessed > 0, "{report:?}");
    // The model itself guesses everything right.
    let (own, report) = run(Some(&model), Drafting::Model { tokens: 3 });
    assert_eq!(plain, own);
    assert_eq!(report.accepted, report.guessed, "{report:?}");
}

#[test]
fn a_known_beginning_is_not_read_again() {
    let model = decoder(16, 2, 5);
    let prompt: Vec<u32> = (1..20).collect();
    let longer = [&prompt[..], &[40, 41, 42]].concat();
    let write = |engine: &mut Engine<'_>, prompt: &[u32]| {
        let ear = Ear::default();
        engine.submit(request(prompt, SamplingSettings::default(), 1, &ear));
        let report = finish(engine);
        let tokens = ear.0.lock().unwrap().log_probabilities.clone();
        (tokens, report)
    };
    let (fresh, _) = write(&mut Engine::new(&model, None, options()), &longer);
    let mut engine = Engine::new(&model, None, options());
    let (_, first) = write(&mut engine, &prompt);
    assert_eq!((first.reused_tokens, first.prompt_tokens), (0, 19));
    let (second, report) = write(&mut engine, &longer);
    assert_eq!((report.reused_tokens, report.prompt_tokens), (16, 6));
    assert_eq!(fresh, second);
    // Two of the same at once: the second takes over from the first while it runs.
    let mut engine = Engine::new(&model, None, options());
    let ears = [Ear::default(), Ear::default()];
    engine.submit(request(&prompt, SamplingSettings::default(), 1, &ears[0]));
    (0..6).for_each(|_| {
        engine.step();
    });
    engine.submit(request(&prompt, SamplingSettings::default(), 1, &ears[1]));
    let report = finish(&mut engine);
    assert_eq!(report.reused_tokens, 16);
    let [a, b] = ears.map(|ear| ear.0.lock().unwrap().tokens.clone());
    assert_eq!(a, b);
}

#[test]
fn memory_stays_within_its_bound_and_texts_wait_for_it() {
    let model = decoder(16, 2, 5);
    // 2 (keys and values) · 4 bytes · 2 layers · 16.
    let token = 256;
    let bound = EngineOptions {
        cache_bytes: 40 * token,
        ..options()
    };
    let mut engine = Engine::new(&model, None, bound);
    let ears: Vec<Ear> = (0..6).map(|_| Ear::default()).collect();
    for (i, ear) in ears.iter().enumerate() {
        let prompt = vec![i as u32 + 1; 6];
        engine.submit(request(&prompt, SamplingSettings::default(), 1, ear));
    }
    engine.step();
    // 18 tokens each.
    assert_eq!((engine.active(), engine.waiting()), (2, 4));
    finish(&mut engine);
    assert!(
        ears.iter()
            .all(|ear| ear.0.lock().unwrap().finished.is_some())
    );
    let large = Ear::default();
    engine.submit(request(&[1; 30], SamplingSettings::default(), 1, &large));
    let failed = large.0.lock().unwrap().failed.clone().unwrap();
    assert!(failed.contains("42 tokens need"), "{failed}");
}

#[test]
fn a_long_prompt_holds_nobody_up_and_the_unwanted_leave() {
    let model = decoder(16, 2, 5);
    let (short, long) = (Ear::default(), Ear::default());
    let mut engine = Engine::new(&model, None, options());
    let mut first = request(&[3], SamplingSettings::default(), 1, &short);
    first.end_ids = Vec::new();
    engine.submit(first);
    engine.step();
    let prompt: Vec<u32> = (0..40).map(|i| i % 50 + 1).collect();
    engine.submit(request(&prompt, SamplingSettings::default(), 1, &long));
    for step in 1..=5 {
        let report = engine.step();
        assert_eq!(report.prompt_tokens, 4);
        // The short text got its first token and another in the first step.
        assert_eq!(short.0.lock().unwrap().tokens.len(), 2 + step);
    }
    assert!(long.0.lock().unwrap().tokens.is_empty());
    short.0.lock().unwrap().unwanted = true;
    long.0.lock().unwrap().unwanted = true;
    engine.step();
    assert!(engine.is_idle());
}

#[test]
fn beams_run_beside_texts_and_find_the_same() {
    let model = decoder(16, 2, 5);
    let beams = BeamOptions {
        num_beams: 3,
        num_return_sequences: 2,
        max_new_tokens: 6,
        end_ids: vec![0],
        ..Default::default()
    };
    let (ear, other) = (Ear::default(), Ear::default());
    let mut engine = Engine::new(&model, None, options());
    let mut asked = request(&[5, 6, 7], SamplingSettings::default(), 1, &ear);
    asked.writing = Writing::Beams(beams.clone());
    asked.max_new_tokens = 6;
    engine.submit(asked);
    engine.submit(request(&[9, 9], SamplingSettings::default(), 1, &other));
    finish(&mut engine);
    let expected = beam_search(&model, &[[5, 6, 7]], &beams).unwrap();
    let expected: Vec<Vec<u32>> = expected[0].iter().map(|h| h.ids.clone()).collect();
    assert_eq!(ear.0.lock().unwrap().found, expected);
    assert!(other.0.lock().unwrap().finished.is_some());
}

#[test]
fn what_cannot_be_written_is_said_and_the_rest_goes_on() {
    let model = decoder(16, 2, 5);
    let mut engine = Engine::new(&model, None, options());
    let wrong = SamplingSettings {
        do_sample: true,
        top_p: Some(7.0),
        ..Default::default()
    };
    let ears: Vec<Ear> = (0..4).map(|_| Ear::default()).collect();
    engine.submit(request(&[1], wrong, 1, &ears[0]));
    engine.submit(request(&[], SamplingSettings::default(), 1, &ears[1]));
    engine.submit(request(&[1; 64], SamplingSettings::default(), 1, &ears[2]));
    engine.submit(request(
        &[VOCAB - 1],
        SamplingSettings::default(),
        1,
        &ears[3],
    ));
    finish(&mut engine);
    for ear in &ears[..3] {
        assert!(ear.0.lock().unwrap().failed.is_some());
    }
    assert!(ears[3].0.lock().unwrap().finished.is_some());
    // The last position ends a text.
    let ear = Ear::default();
    let mut close = request(&[1; 60], SamplingSettings::default(), 1, &ear);
    close.end_ids = Vec::new();
    close.drafting = Drafting::LookUp { tokens: 8 };
    engine.submit(close);
    finish(&mut engine);
    let heard = ear.0.lock().unwrap();
    assert_eq!(
        (heard.tokens.len(), heard.finished),
        (4, Some(FinishReason::Length))
    );
}
