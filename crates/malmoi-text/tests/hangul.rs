//! The Hangul-safe normaliser, the doctor, and streams of Korean text.

use std::path::{Path, PathBuf};

use malmoi_text::{
    Algorithm, EncodeOptions, HangulSafe, LoadOptions, TextError, Tokenizer, TrainOptions, inspect,
    train_from_iter,
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn wordpiece(normalizer: HangulSafe) -> Tokenizer {
    let lines = [
        "한국 영화가 정말 좋았다",
        "한국어 문장 ㅋㅋㅋ ㅠㅠ",
        "cafe resume naive 🙂",
    ];
    let mut options = TrainOptions::new(Algorithm::WordPiece, 300);
    options.normalizer = Some(normalizer);
    options.limit_alphabet = Some(200);
    train_from_iter(
        lines
            .iter()
            .cycle()
            .take(30)
            .map(|line| Ok((*line).to_owned())),
        &options,
        &mut |_| {},
    )
    .unwrap()
    .tokenizer
}

const STRIPPING: HangulSafe = HangulSafe {
    lowercase: true,
    strip_accents: true,
    clean_text: true,
    split_chinese: true,
};

#[test]
fn hangul_is_composed_and_never_decomposed() {
    let nfd = "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}";
    for normalizer in [HangulSafe::default(), STRIPPING] {
        let tokenizer = wordpiece(normalizer);
        for (text, expected) in [
            (nfd, "한국"),
            ("한국 영화", "한국 영화"),
            ("ㅋㅋㅋ ㅠㅠ ㄱㄴ", "ㅋㅋㅋ ㅠㅠ ㄱㄴ"),
            ("🙂🎉 👩\u{200d}👧", "🙂🎉 👩👧"),
            ("a\tb\u{0}c\nd", "a bc d"),
        ] {
            assert_eq!(
                tokenizer.normalize(text).unwrap(),
                expected,
                "{text:?} with {normalizer:?}"
            );
        }
        let nfd_ids = tokenizer.encode_ids(nfd, false).unwrap();
        assert_eq!(nfd_ids, tokenizer.encode_ids("한국", false).unwrap());
        assert!(!nfd_ids.contains(&tokenizer.special().unk.unwrap()));
    }
}

#[test]
fn accents_go_only_when_asked() {
    let keeps = wordpiece(HangulSafe::default());
    assert_eq!(keeps.normalize("Cafe\u{301} Å").unwrap(), "Café Å");
    let strips = wordpiece(STRIPPING);
    assert_eq!(
        strips
            .normalize("Cafe\u{301} ÀÉ ñ İ o\u{323}\u{308}")
            .unwrap(),
        "cafe ae n i o"
    );
    let lowers = wordpiece(HangulSafe {
        strip_accents: false,
        ..STRIPPING
    });
    assert_eq!(lowers.normalize("CAFÉ").unwrap(), "café");
}

#[test]
fn offsets_point_into_the_original() {
    let tokenizer = wordpiece(STRIPPING);
    let text = "🙂 Cafe\u{301} \u{1112}\u{1161}\u{11ab}국 ㅋㅋㅋ 좋았다";
    let encoding = tokenizer
        .encode(text, None, &EncodeOptions::plain())
        .unwrap();
    let points: Vec<char> = text.chars().collect();
    for (index, &(start, end)) in encoding.byte_offsets.iter().enumerate() {
        let (from, to) = encoding.offsets[index];
        let slice: String = points[from..to].iter().collect();
        // Byte offsets are at character boundaries, or this slicing would panic.
        assert_eq!(slice, &text[start..end]);
    }
    let word = |token: &str| {
        let index = encoding.tokens.iter().position(|t| t == token).unwrap();
        let (start, end) = encoding.byte_offsets[index];
        &text[start..end]
    };
    assert_eq!(word("좋았다"), "좋았다");
    assert_eq!(word("🙂"), "🙂");
    let last = encoding.offsets.last().unwrap();
    assert_eq!(last.1, points.len());
}

#[test]
fn spans_can_cover_whole_syllables() {
    let tokenizer = wordpiece(STRIPPING);
    let text = "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8} cafe\u{301}";
    let mut encoding = tokenizer
        .encode(text, None, &EncodeOptions::default())
        .unwrap();
    encoding.cover_whole_characters(text, None);
    let spans: Vec<&str> = tokenizer
        .whole_words(&encoding.ids)
        .into_iter()
        .map(|word| {
            let (start, end) = (
                encoding.byte_offsets[word.start].0,
                encoding.byte_offsets[word.end - 1].1,
            );
            &text[start..end]
        })
        .collect();
    assert_eq!(spans, text.split(' ').collect::<Vec<_>>());
    assert_eq!(encoding.offsets[1].0, 0);
    assert_eq!(encoding.offsets[encoding.len() - 2].1, text.chars().count());
}

#[test]
fn saving_and_loading_keeps_every_id() {
    let texts = [
        "한국 영화가 ㅋㅋ",
        "Cafe\u{301} 🙂",
        "\u{1112}\u{1161}\u{11ab}국",
        "좋았다 정말",
    ];
    for algorithm in [
        Algorithm::WordPiece,
        Algorithm::Bpe,
        Algorithm::Unigram,
        Algorithm::Char,
    ] {
        let mut options = TrainOptions::new(algorithm, 400);
        options.limit_alphabet = (algorithm != Algorithm::Bpe).then_some(200);
        let trained = train_from_iter(
            texts.iter().map(|t| Ok((*t).to_owned())),
            &options,
            &mut |_| {},
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        trained.tokenizer.save(folder.path(), Some(128)).unwrap();
        let loaded = Tokenizer::load(folder.path()).unwrap();
        assert_eq!(
            loaded.vocabulary_hash(),
            trained.tokenizer.vocabulary_hash()
        );
        assert_eq!(loaded.special(), trained.tokenizer.special());
        assert_eq!(loaded.model_max_length(), Some(128));
        for text in texts {
            let options = EncodeOptions::default();
            let expected = trained.tokenizer.encode(text, None, &options).unwrap();
            assert_eq!(loaded.encode(text, None, &options).unwrap(), expected);
        }
        // The classic files alone mean the same.
        let classic = match algorithm {
            Algorithm::Bpe => Some("vocab.json"),
            _ => None,
        };
        if let Some(file) = classic {
            let bare = Tokenizer::load(folder.path().join(file)).unwrap();
            for text in texts {
                assert_eq!(
                    bare.encode_ids(text, false).unwrap(),
                    loaded.encode_ids(text, false).unwrap()
                );
            }
        }
    }
}

#[test]
fn a_sentencepiece_model_survives_saving() {
    let source = repository().join("data/vocab/t5");
    let options = LoadOptions {
        extra_ids: Some(100),
        ..LoadOptions::default()
    };
    let t5 = Tokenizer::load_with(&source, &options).unwrap();
    assert_eq!(t5.vocab_size(), 32_100);
    assert_eq!(t5.token_to_id("<extra_id_0>"), Some(32_099));
    let folder = tempfile::tempdir().unwrap();
    t5.save(folder.path(), Some(512)).unwrap();
    let loaded = Tokenizer::load(folder.path()).unwrap();
    for text in [
        "Hello world, this is T5.",
        "The <extra_id_0> walks in <extra_id_1> park",
        "naïve Über  straße",
    ] {
        let ids = t5
            .encode(text, None, &EncodeOptions::default())
            .unwrap()
            .ids;
        assert_eq!(
            loaded
                .encode(text, None, &EncodeOptions::default())
                .unwrap()
                .ids,
            ids
        );
    }
    assert_eq!(
        std::fs::read(folder.path().join("spiece.model")).unwrap(),
        std::fs::read(source.join("spiece.model")).unwrap()
    );
}

#[test]
fn the_tokenizer_json_of_a_sentencepiece_model_means_the_same() {
    for (fixture, model) in [
        ("tokenizer-sentencepiece", "golden/tokenizer-sentencepiece"),
        ("tokenizer-real-t5", "data/vocab/t5"),
    ] {
        let exact = Tokenizer::load(repository().join(model)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        exact.save(folder.path(), None).unwrap();
        let stock = Tokenizer::load(folder.path()).unwrap();
        let file = repository()
            .join("golden")
            .join(fixture)
            .join("encodings.json");
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let mut different = Vec::new();
        for entry in json["entries"].as_array().unwrap() {
            let text = entry["text"].as_str().unwrap();
            let is_tie = entry.get("tie").is_some();
            // Stock models match control symbols in the text; SentencePiece does not.
            let has_control = text.contains("</s>");
            let same =
                stock.encode_ids(text, false).unwrap() == exact.encode_ids(text, false).unwrap();
            if !same && !is_tie && !has_control {
                different.push(text.to_owned());
            }
        }
        assert!(different.is_empty(), "{fixture}: {different:#?}");
    }
}

#[test]
fn streams_never_break_a_syllable() {
    let vocab = repository().join("data/vocab");
    let texts = [
        "안녕하세요, ㅋㅋ 좋은 아침입니다 🙂👩\u{200d}👧!",
        "한글 and English, 漢字.",
        "뷁쀍",
    ];
    for name in ["gpt2", "koelectra", "t5", "bert-base-uncased"] {
        let tokenizer = Tokenizer::load(vocab.join(name)).unwrap();
        for text in texts {
            let ids = tokenizer.encode_ids(text, false).unwrap();
            let mut stream = tokenizer.decode_stream(true);
            let mut joined = String::new();
            for &id in &ids {
                let part = stream.push(id).unwrap();
                assert!(!part.contains('\u{fffd}'), "{name}: {part:?}");
                joined.push_str(&part);
            }
            joined.push_str(&stream.finish().unwrap());
            assert_eq!(joined, tokenizer.decode(&ids, true).unwrap(), "{name}");
        }
    }
    // A character that is never finished comes out as a replacement at the end, and not before.
    let gpt2 = Tokenizer::load(vocab.join("gpt2")).unwrap();
    let ids = gpt2.encode_ids("뷁", false).unwrap();
    let mut stream = gpt2.decode_stream(true);
    assert_eq!(stream.push(ids[0]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

#[test]
fn words_are_grouped() {
    let vocab = repository().join("data/vocab");
    let groups = |name: &str, text: &str| -> Vec<String> {
        let tokenizer = Tokenizer::load(vocab.join(name)).unwrap();
        let ids = tokenizer
            .encode(text, None, &EncodeOptions::default())
            .unwrap()
            .ids;
        tokenizer
            .whole_words(&ids)
            .into_iter()
            .map(|range| {
                tokenizer
                    .decode(&ids[range], true)
                    .unwrap()
                    .trim()
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(
        groups("bert-base-uncased", "unaffable tokenizers!"),
        ["unaffable", "tokenizers", "!"]
    );
    assert_eq!(
        groups("gpt2", "unaffable tokenizers"),
        ["unaffable", "tokenizers"]
    );
    assert_eq!(
        groups("t5", "unaffable tokenizers"),
        ["unaffable", "tokenizers"]
    );
    let koelectra = groups("koelectra", "아버지가 방에 들어가신다");
    assert_eq!(koelectra, ["아버지가", "방에", "들어가신다"]);
}

#[test]
fn the_doctor_knows_a_good_tokenizer_from_a_bad_one() {
    let vocab = repository().join("data/vocab");
    let lines = || {
        [
            "아버지가 방에 들어가신다 ㅋㅋ",
            "\u{1112}\u{1161}\u{11ab}국 영화 ㅠㅠ",
            "정말 재미있는 이야기였다",
        ]
        .map(|line| Ok::<_, TextError>(line.to_owned()))
        .into_iter()
    };
    let good = inspect(&Tokenizer::load(vocab.join("koelectra")).unwrap(), lines()).unwrap();
    assert_eq!(
        (
            good.lines,
            good.eojeols,
            good.nfd_lines,
            good.nfd_characters
        ),
        (3, 10, 1, 3)
    );
    assert_eq!(good.compatibility_jamo, 4);
    assert_eq!(good.fertility.iter().sum::<u64>(), good.eojeols);
    assert!(!good.composes_hangul && !good.decomposes_hangul && good.keeps_compatibility_jamo);
    assert!(
        good.suggestions.iter().any(|s| s.contains("NFC")),
        "{:?}",
        good.suggestions
    );

    let english = inspect(
        &Tokenizer::load(vocab.join("bert-base-uncased")).unwrap(),
        lines(),
    )
    .unwrap();
    assert!(english.decomposes_hangul);
    assert!(english.tokens_per_character > good.tokens_per_character);
    assert!(
        english.suggestions[0].contains("strip_accents"),
        "{:?}",
        english.suggestions
    );
    assert!(
        english
            .worst_words
            .iter()
            .any(|word| word.tokens.len() >= 5)
    );

    let bytes = inspect(&Tokenizer::load(vocab.join("gpt2")).unwrap(), lines()).unwrap();
    assert_eq!((bytes.unknown, bytes.round_trip_failures), (0, 0));
    assert!(bytes.tokens_per_character > 1.0);

    let t5 = inspect(&Tokenizer::load(vocab.join("t5")).unwrap(), lines()).unwrap();
    assert!(t5.unknown_eojeol_rate > 0.9);
    assert!(t5.composes_hangul && !t5.keeps_compatibility_jamo);
    assert!(
        t5.suggestions.iter().any(|s| s.contains("train one")),
        "{:?}",
        t5.suggestions
    );

    let nothing = inspect(&wordpiece(STRIPPING), std::iter::empty()).unwrap();
    assert_eq!((nothing.lines, nothing.unknown_rate), (0, 0.0));
    let text = serde_json::to_string(&nothing).unwrap();
    assert!(text.contains("\"suggestions\""));
}
