//! Tests of the examples of span corruption, sentence order, n-grams, translation and mixtures.

use malmoi_text::{Algorithm, Layout, TrainOptions, train_from_iter};

use super::tests::{Memory, korean, mlm_options, original};
use super::*;
use crate::objectives::infilling::InfillRates;
use crate::objectives::masked::MaskingRates;
use crate::objectives::span_corruption::SpanRates;

/// A tokenizer with sentinels, and a text of numbered words as ids.
fn with_sentinels(count: usize) -> (malmoi_text::Tokenizer, Vec<u32>) {
    let text: Vec<String> = (0..40)
        .map(|i| format!("영화 {i} 재미 {}", i % 7))
        .collect();
    let options = TrainOptions {
        layout: Some(Layout::T5),
        extra_special: (0..count).rev().map(sentinel).collect(),
        min_frequency: 1,
        ..TrainOptions::new(Algorithm::Bpe, 600)
    };
    let lines = text.iter().map(|line| Ok(line.clone()));
    let tokenizer = train_from_iter(lines, &options, &mut |_| ())
        .unwrap()
        .tokenizer;
    let ids = tokenizer.encode_ids(&text.join(" "), false).unwrap();
    (tokenizer, ids)
}

/// The text that input and target tell together: every sentinel of the input stands for what follows it in the target.
fn restored(example: &Example, sentinels: Sentinels) -> Vec<u32> {
    let is_sentinel =
        |id: u32| id <= sentinels.first && u64::from(sentinels.first - id) < sentinels.count as u64;
    let target = &example.decoder.as_ref().unwrap()[1..];
    let (target, _end) = target.split_at(target.len() - 1);
    let mut ids = Vec::new();
    for &id in &example.ids[..example.ids.len() - 1] {
        if !is_sentinel(id) {
            ids.push(id);
            continue;
        }
        let at = target.iter().position(|&t| t == id).expect("both have it");
        let hidden = target[at + 1..].iter().take_while(|&&t| !is_sentinel(t));
        ids.extend(hidden);
    }
    ids
}

#[test]
fn span_corruption_loses_nothing_and_fills_its_inputs() {
    let (tokenizer, ids) = with_sentinels(20);
    let sentinels = Sentinels::of(&tokenizer).unwrap();
    assert_eq!(sentinels.count, 20);
    for (density, mean_span) in [(0.15, 3.0), (0.5, 2.0), (0.3, 10.0)] {
        let options = SpanOptions {
            max_len: 24,
            rates: SpanRates { density, mean_span },
        };
        let data = SpanData::new(
            Memory::new(&[vec![ids.clone()]]),
            &tokenizer,
            "test",
            0,
            options,
        )
        .unwrap();
        let raw = options.rates.raw_length(24).unwrap().0;
        let mut hidden = 0;
        let total = 6 * data.per_epoch();
        for n in 0..total {
            let example = data.training(3, n).unwrap();
            assert_eq!(example, data.training(3, n).unwrap());
            assert!(example.ids.len() <= 24);
            let text = restored(&example, sentinels);
            assert_eq!(text.len(), raw);
            assert!(
                ids.windows(raw).any(|window| window == text),
                "it is a piece of the text"
            );
            // The sentinels of the input are the first ones, in order.
            let seen: Vec<u32> = example
                .ids
                .iter()
                .copied()
                .filter(|&id| id > sentinels.first - 20 && id <= sentinels.first)
                .collect();
            let expected = (0..seen.len() as u32).map(|k| sentinels.first - k);
            assert_eq!(seen, expected.collect::<Vec<u32>>());
            hidden += raw + seen.len() + 1 - example.ids.len();
        }
        let share = hidden as f64 / (raw as u64 * total) as f64;
        // Every block hides the same number: the density to the nearest token.
        assert!(
            (share - density).abs() <= 0.5 / raw as f64 + 1e-9,
            "{share}"
        );
    }
}

#[test]
fn denoising_hides_spans_shuffles_sentences_and_asks_for_the_text() {
    let options = TrainOptions {
        layout: Some(Layout::Bart),
        ..TrainOptions::new(Algorithm::Bpe, 300)
    };
    let lines = ["영화 재미", "배우 연기"]
        .into_iter()
        .map(|line| Ok(line.to_owned()));
    let tokenizer = train_from_iter(lines, &options, &mut |_| ())
        .unwrap()
        .tokenizer;
    let special = tokenizer.special();
    let [first, end, mask] = [special.bos, special.eos, special.mask].map(|id| id.unwrap());
    // Sentences of one token each, repeated so that a sentence is told by its token: 100 100 100, 101 101 101, …
    let document: Vec<Vec<u32>> = (100..120).map(|word| vec![word; 3]).collect();
    let mut rates = InfillRates {
        probability: 0.3,
        mean_span: 3.0,
    };
    let data = |rates, permute| {
        let options = DenoisingOptions {
            max_len: 32,
            rates,
            permute,
        };
        let tokens = Memory::new(std::slice::from_ref(&document));
        DenoisingData::new(tokens, &tokenizer, "test", end, options).unwrap()
    };
    let noisy = data(rates, true);
    assert_eq!(
        noisy.per_epoch(),
        2,
        "ten sentences of three tokens fill 30"
    );
    let mut shuffled = 0;
    for n in 0..40 {
        let example = noisy.training(3, n).unwrap();
        assert_eq!(example, noisy.training(3, n).unwrap());
        assert!(example.ids.len() <= 32);
        let decoder = example.decoder.as_ref().unwrap();
        let text = &decoder[2..decoder.len() - 1];
        assert_eq!(
            (decoder[0], decoder[1], decoder[decoder.len() - 1]),
            (end, first, end)
        );
        assert!([&document[..10].concat()[..], &document[10..].concat()[..]].contains(&text));
        let inside = &example.ids[1..example.ids.len() - 1];
        assert_eq!(
            (example.ids[0], example.ids[example.ids.len() - 1]),
            (first, end)
        );
        let kept: Vec<u32> = inside.iter().copied().filter(|id| *id != mask).collect();
        // Nine of thirty tokens are hidden; the rest are tokens of the text in runs of a sentence.
        assert!(kept.len() <= 21 && inside.len() > kept.len());
        assert!(kept.iter().all(|id| text.contains(id)));
        shuffled += usize::from(!kept.is_sorted());
    }
    assert!(shuffled > 35, "{shuffled}");
    let in_order = data(rates, false).training(3, 0).unwrap();
    let kept = in_order.ids.iter().filter(|id| (100..120).contains(*id));
    assert!(kept.is_sorted());
    rates.probability = 0.0;
    let untouched = data(rates, false).training(3, 0).unwrap();
    assert_eq!(untouched.ids[..], untouched.decoder.unwrap()[1..]);
}

#[test]
fn span_corruption_says_what_it_lacks() {
    let (tokenizer, ids) = with_sentinels(2);
    let options = SpanOptions {
        max_len: 60,
        rates: SpanRates {
            density: 0.3,
            mean_span: 2.0,
        },
    };
    let error = |tokenizer: &malmoi_text::Tokenizer| {
        let tokens = Memory::new(&[vec![ids.clone()]]);
        match SpanData::new(tokens, tokenizer, "the text", 0, options) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        }
    };
    let said = error(&tokenizer);
    assert!(said.contains("2 sentinels"), "{said}");
    let said = error(&with_sentinels(0).0);
    assert!(said.contains("<extra_id_0>"), "{said}");
}

#[test]
fn half_of_the_segments_are_swapped_and_all_are_neighbours() {
    let (tokenizer, documents) = korean(40, 12);
    let joined: Vec<Vec<u32>> = documents.iter().map(|document| document.concat()).collect();
    let options = MlmOptions {
        pairs: PairKind::SentenceOrder,
        ..mlm_options()
    };
    let data = MlmData::new(Memory::new(&documents), tokenizer, "test", options).unwrap();
    let total = 5 * data.per_epoch();
    let mut swapped = 0;
    for n in 0..total {
        let example = data.training(2, n).unwrap();
        let ids = original(&example);
        let segments = example.segments.as_ref().unwrap();
        let cut = segments.iter().position(|&segment| segment == 1).unwrap();
        let (a, b) = (&ids[1..cut - 1], &ids[cut..ids.len() - 1]);
        let label = example.next_sentence.unwrap();
        swapped += u64::from(label);
        // In the right order the text of A comes before that of B in one document; cutting took away ends only.
        let (first, second) = if label == 0 { (a, b) } else { (b, a) };
        let follows = joined.iter().any(|text| {
            let starts = text.windows(first.len()).enumerate();
            let mut starts = starts.filter(|(_, window)| *window == first);
            starts.any(|(at, _)| {
                text[at + first.len()..]
                    .windows(second.len())
                    .any(|window| window == second)
            })
        });
        assert!(follows, "example {n}");
    }
    let share = swapped as f64 / total as f64;
    assert!(
        (share - 0.5).abs() < 5.0 * (0.25 / total as f64).sqrt(),
        "{share}"
    );
    // One document is enough.
    let (tokenizer, documents) = korean(1, 6);
    assert!(MlmData::new(Memory::new(&documents), tokenizer, "test", options).is_ok());
}

#[test]
fn n_grams_hide_whole_words_of_any_tokenizer() {
    for algorithm in [Algorithm::WordPiece, Algorithm::Bpe, Algorithm::Unigram] {
        let text: Vec<String> = (0..60)
            .map(|i| format!("재미있는영화{} 배우연기 좋았습니다{}", i % 9, i % 5))
            .collect();
        let options = TrainOptions {
            layout: Some(Layout::Bert),
            ..TrainOptions::new(algorithm, 320)
        };
        let lines = text.iter().map(|line| Ok(line.clone()));
        let tokenizer = train_from_iter(lines, &options, &mut |_| ())
            .unwrap()
            .tokenizer;
        let documents: Vec<Vec<Vec<u32>>> = text
            .chunks(10)
            .map(|chunk| {
                let line = |t: &String| tokenizer.encode_ids(&format!(" {t}"), false).unwrap();
                chunk.iter().map(line).collect()
            })
            .collect();
        let options = MlmOptions {
            units: Units::Ngrams(3),
            max_len: 64,
            ..mlm_options()
        };
        let tokens = Memory::new(&documents);
        let data = MlmData::new(tokens, tokenizer.clone(), "test", options).unwrap();
        for n in 0..20 * data.per_epoch() {
            let example = data.training(7, n).unwrap();
            let places: Vec<usize> = example.targets.iter().map(|&(place, _)| place).collect();
            let ids = original(&example);
            for word in tokenizer.whole_words(&ids) {
                let hidden = word.clone().filter(|place| places.contains(place)).count();
                assert!(hidden == 0 || hidden == word.len(), "{algorithm:?}");
            }
            // A share of the tokens to the nearest token; the last words may not fit into it any more, and where none fits, one is
            // hidden all the same.
            let budget = (0.15 * (ids.len() - 2) as f64).round().max(1.0) as usize;
            let longest = tokenizer
                .whole_words(&ids)
                .iter()
                .map(ExactSizeIterator::len)
                .max();
            let longest = longest.unwrap();
            assert!(places.len() <= budget.max(longest) && places.len() + longest > budget);
        }
    }
}

fn rows(n: u32) -> Vec<Vec<Vec<u32>>> {
    // Source tokens are even, target tokens odd.
    (0..n)
        .map(|row| {
            let text = |side: u32, length: u32| -> Vec<u32> {
                (0..length)
                    .map(|i| 6 + 2 * ((row + i) % 12) + side)
                    .collect()
            };
            vec![text(0, 3 + row % 6), text(1, 2 + row % 9)]
        })
        .collect()
}

#[test]
fn translations_stand_side_by_side_with_positions_of_their_own() {
    let (tokenizer, _) = korean(3, 6);
    let end = tokenizer.special().sep.unwrap();
    let options = TranslationOptions {
        max_len: 14,
        rates: MaskingRates {
            chosen: 0.4,
            ..MaskingRates::default()
        },
        units: Units::Tokens,
        languages: Some([3, 5]),
        pairs: 0.7,
        segments: true,
    };
    let mut documents = rows(50);
    // Rows without one of the texts are left out.
    documents[7].pop();
    let data = TranslationData::new(Memory::new(&documents), tokenizer, "test", options).unwrap();
    assert_eq!(data.per_epoch(), 49);
    let (mut pairs, mut both) = (0, 0);
    let total = 40 * data.per_epoch();
    for n in 0..total {
        let example = data.training(9, n).unwrap();
        let ids = original(&example);
        assert!(ids.len() <= 14);
        let languages = example.languages.as_ref().unwrap();
        let sides: Vec<(usize, u32)> = [(0, 3), (1, 5)].to_vec();
        let mut seen = 0;
        for (side, language) in sides {
            let places: Vec<usize> = (0..ids.len())
                .filter(|&i| languages[i] == language)
                .collect();
            let (Some(&first), Some(&last)) = (places.first(), places.last()) else {
                continue;
            };
            seen += 1;
            assert_eq!((ids[first], ids[last]), (end, end));
            assert_eq!(example.positions[first], 0);
            assert_eq!(example.positions[last], (places.len() - 1) as u32);
            let inner = &ids[first + 1..last];
            assert!(inner.iter().all(|&id| id as usize % 2 == side), "{inner:?}");
        }
        pairs += u64::from(seen == 2);
        let segments = example.segments.as_ref().unwrap();
        let second = (0..ids.len()).map(|i| u32::from(seen == 2 && languages[i] == 5));
        assert_eq!(*segments, second.collect::<Vec<u32>>());
        let hidden = |language| {
            let mut targets = example.targets.iter();
            targets.any(|&(place, _)| languages[place] == language)
        };
        both += u64::from(hidden(3) && hidden(5));
        assert!(example.targets.iter().all(|&(place, _)| ids[place] != end));
    }
    let share = pairs as f64 / total as f64;
    let bound = 5.0 * (0.21 / total as f64).sqrt();
    assert!((share - 0.7).abs() < bound, "{share}");
    assert!(both * 2 > pairs, "words are hidden on both sides");
}

#[test]
fn a_mixture_draws_from_all_sources_as_their_rates_say() {
    let (tokenizer, ids) = with_sentinels(20);
    let text = || -> Box<dyn Examples> {
        let options = SpanOptions {
            max_len: 24,
            rates: SpanRates {
                density: 0.15,
                mean_span: 3.0,
            },
        };
        let tokens = Memory::new(&[vec![ids.clone()]]);
        Box::new(SpanData::new(tokens, &tokenizer, "test", 0, options).unwrap())
    };
    let task = |n| -> Box<dyn Examples> {
        let tokens = Memory::new(&rows(n));
        Box::new(TextPairs::new(tokens, &tokenizer, "test", 0, [8, 6]).unwrap())
    };
    let mixed = Mixed::new(vec![text(), task(30)], None, 1.0);
    let sizes = (text().per_epoch(), 30);
    let end = tokenizer.special().eos.unwrap();
    let total = 2048;
    let mut tasks = 0;
    for n in 0..total {
        let example = mixed.training(5, n).unwrap();
        assert_eq!(example.ids.last(), Some(&end));
        let is_task = example.ids.len() <= 8;
        tasks += u64::from(is_task);
        if is_task {
            assert!(example.decoder.as_ref().unwrap().len() <= 7);
        }
    }
    let expected = sizes.1 as f64 / (sizes.0 + sizes.1) as f64;
    let share = tasks as f64 / total as f64;
    assert!(
        (share - expected).abs() < 2.0 / 1024.0,
        "{share} {expected}"
    );
    assert_eq!(mixed.evaluation_count(), sizes.0 + sizes.1);
    assert!(mixed.evaluation(sizes.0 + 29).unwrap().ids.len() <= 8);
}

#[test]
fn examples_are_the_same_from_any_thread_in_any_order() {
    let (tokenizer, ids) = with_sentinels(20);
    let (wordpiece, documents) = korean(20, 8);
    let rates = SpanRates {
        density: 0.15,
        mean_span: 3.0,
    };
    let options = SpanOptions { max_len: 24, rates };
    let text = Memory::new(&[vec![ids]]);
    let spans = || -> Box<dyn Examples> {
        Box::new(SpanData::new(text.clone(), &tokenizer, "test", 0, options).unwrap())
    };
    let pairs = TextPairs::new(Memory::new(&rows(30)), &tokenizer, "test", 0, [8, 6]).unwrap();
    let mlm = |pairs, units| -> Box<dyn Examples> {
        let options = MlmOptions {
            pairs,
            units,
            detection: Some(50.0),
            ..mlm_options()
        };
        let tokens = Memory::new(&documents);
        Box::new(MlmData::new(tokens, wordpiece.clone(), "test", options).unwrap())
    };
    let translation = TranslationOptions {
        max_len: 14,
        rates: MaskingRates::default(),
        units: Units::Words,
        languages: Some([0, 1]),
        pairs: 0.5,
        segments: false,
    };
    let translation = TranslationData::new(
        Memory::new(&rows(30)),
        wordpiece.clone(),
        "test",
        translation,
    );
    let sources: Vec<Box<dyn Examples>> = vec![
        Box::new(Mixed::new(vec![spans(), Box::new(pairs)], None, 2.0)),
        mlm(PairKind::SentenceOrder, Units::Ngrams(3)),
        mlm(PairKind::None, Units::Tokens),
        Box::new(translation.unwrap()),
    ];
    for source in &sources {
        let straight: Vec<Example> = (0..120).map(|n| source.training(3, n).unwrap()).collect();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (source, straight) = (source, &straight);
                scope.spawn(move || {
                    for n in (0..120).rev().filter(|n| n % 3 == thread) {
                        assert_eq!(source.training(3, n).unwrap(), straight[n as usize]);
                    }
                });
            }
        });
        let other: Vec<Example> = (0..120).map(|n| source.training(4, n).unwrap()).collect();
        assert_ne!(other, straight, "another seed draws otherwise");
    }
}
