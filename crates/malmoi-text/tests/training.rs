//! Training: the vocabulary is a function of the text and the options alone.

use malmoi_text::{
    Algorithm, BuildOptions, CorpusOptions, DocumentMode, HangulSafe, Layout, Progress, TextError,
    TokenCorpus, TrainOptions, Trained, build_token_corpus, train, train_from_iter,
};

/// Korean and English sentences with repetition, built from parts so that there are a few thousand distinct words.
fn sentences() -> Vec<String> {
    let subjects = [
        "영화가",
        "배우들이",
        "음악이",
        "the film",
        "이야기는",
        "감독의 연출이",
        "결말이",
    ];
    let adverbs = [
        "정말",
        "너무",
        "꽤",
        "really",
        "그다지",
        "솔직히",
        "생각보다",
    ];
    let predicates = [
        "좋았다.",
        "재미있었어요!",
        "지루했다...",
        "감동적이에요 ㅠㅠ",
        "최고 ㅋㅋㅋ",
        "별로였습니다.",
        "was great.",
    ];
    let mut lines = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        for (j, adverb) in adverbs.iter().enumerate() {
            for (k, predicate) in predicates.iter().enumerate() {
                lines.push(format!(
                    "{subject} {adverb} {predicate} {}점",
                    (i * 31 + j * 7 + k) % 11
                ));
            }
        }
    }
    lines
}

fn trained(options: &TrainOptions) -> Result<Trained, TextError> {
    train_from_iter(sentences().into_iter().map(Ok), options, &mut |_| {})
}

fn vocabulary(trained: &Trained) -> Vec<Option<String>> {
    (0..trained.tokenizer.vocab_size() as u32)
        .map(|id| trained.tokenizer.id_to_token(id))
        .collect()
}

const ALL: [Algorithm; 4] = [
    Algorithm::WordPiece,
    Algorithm::Bpe,
    Algorithm::Unigram,
    Algorithm::Char,
];

fn options(algorithm: Algorithm) -> TrainOptions {
    TrainOptions::new(algorithm, 400)
}

#[test]
fn any_number_of_threads_gives_the_same_tokenizer() {
    for algorithm in ALL {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let dir = tempfile::tempdir().unwrap();
            let trained = pool.install(|| trained(&options(algorithm))).unwrap();
            trained.tokenizer.save(dir.path(), None).unwrap();
            std::fs::read(dir.path().join("tokenizer.json")).unwrap()
        };
        let one = run(1);
        assert!(one == run(2), "{algorithm:?} at 2 threads");
        assert!(one == run(3), "{algorithm:?} at 3 threads");
        assert!(one == run(1), "{algorithm:?} again");
    }
}

#[test]
fn text_survives_a_round_trip() {
    for algorithm in ALL {
        let trained = trained(&options(algorithm)).unwrap();
        for line in sentences().iter().step_by(17) {
            let ids = trained.tokenizer.encode_ids(line, false).unwrap();
            assert!(!ids.is_empty());
            let text = trained.tokenizer.decode(&ids, true).unwrap();
            if algorithm == Algorithm::WordPiece {
                // WordPiece does not keep white space around punctuation.
                let squeeze = |text: &str| text.replace(char::is_whitespace, "");
                assert_eq!(squeeze(&text), squeeze(line));
            } else {
                assert_eq!(&text, line, "{algorithm:?}");
            }
        }
    }
}

#[test]
fn frequent_words_become_one_token() {
    for algorithm in [Algorithm::WordPiece, Algorithm::Bpe, Algorithm::Unigram] {
        let mut options = options(algorithm);
        options.vocab_size = 700;
        let trained = trained(&options).unwrap();
        let ids = trained
            .tokenizer
            .encode_ids("영화가 정말 좋았다", false)
            .unwrap();
        assert!(ids.len() <= 4, "{algorithm:?}: {ids:?}");
        assert!(trained.tokenizer.vocab_size() <= 700);
    }
}

#[test]
fn special_tokens_have_the_published_ids() {
    let bert = trained(&options(Algorithm::WordPiece)).unwrap().tokenizer;
    for (id, token) in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .iter()
        .enumerate()
    {
        assert_eq!(bert.token_to_id(token), Some(id as u32));
        assert!(bert.is_special(id as u32));
    }
    let special = bert.special();
    assert_eq!(
        [
            special.pad,
            special.unk,
            special.cls,
            special.sep,
            special.mask
        ],
        [Some(0), Some(1), Some(2), Some(3), Some(4)]
    );
    let pair = bert
        .encode("영화가", Some("정말"), &Default::default())
        .unwrap();
    assert_eq!((pair.ids[0], *pair.ids.last().unwrap()), (2, 3));
    assert_eq!((pair.type_ids[0], *pair.type_ids.last().unwrap()), (0, 1));
    let gpt = trained(&options(Algorithm::Bpe)).unwrap().tokenizer;
    assert_eq!(gpt.token_to_id("<|endoftext|>"), Some(0));
    assert_eq!((gpt.special().bos, gpt.special().eos), (Some(0), Some(0)));
    assert_eq!(gpt.special().unk, None);
    let t5 = trained(&options(Algorithm::Unigram)).unwrap().tokenizer;
    assert_eq!(
        (t5.special().pad, t5.special().eos, t5.special().unk),
        (Some(0), Some(1), Some(2))
    );
    assert_eq!(
        t5.encode("영화가", None, &Default::default())
            .unwrap()
            .ids
            .last(),
        Some(&1)
    );
}

#[test]
fn a_character_vocabulary_holds_every_character_and_refuses_others() {
    let lines = ["To be,\n".to_owned(), "or not\nto be".to_owned()];
    let mut options = TrainOptions::new(Algorithm::Char, 100);
    let trained = train_from_iter(lines.into_iter().map(Ok), &options, &mut |_| {}).unwrap();
    let expected: Vec<Option<String>> =
        "\n ,Tbenort".chars().map(|c| Some(c.to_string())).collect();
    assert_eq!(vocabulary(&trained), expected);
    let ids = trained.tokenizer.encode_ids("not\nT", false).unwrap();
    assert_eq!(ids, [6, 7, 9, 0, 3]);
    assert_eq!(trained.tokenizer.decode(&ids, true).unwrap(), "not\nT");
    let refused = trained.tokenizer.encode_ids("x", false);
    assert!(matches!(refused, Err(TextError::Encode(_))), "{refused:?}");
    options.vocab_size = 5;
    let small = train_from_iter(
        std::iter::once(Ok("abcdefg".to_owned())),
        &options,
        &mut |_| {},
    );
    assert!(matches!(small, Err(TextError::Training(_))));
}

#[test]
fn a_memory_bound_drops_rare_words_and_says_so() {
    let lines = || {
        (0..200_000_u64).map(|i| {
            // Every tenth line repeats one of a few words; the others are unique.
            Ok(if i % 10 == 0 {
                format!("자주{}", i / 10 % 7)
            } else {
                format!("드문{i}")
            })
        })
    };
    let mut options = TrainOptions::new(Algorithm::WordPiece, 200);
    let exact = train_from_iter(lines(), &options, &mut |_| {})
        .unwrap()
        .report
        .counts;
    assert_eq!((exact.dropped, exact.dropped_up_to), (0, 0));
    assert_eq!(exact.distinct, 180_007);
    options.memory = 4 << 20;
    let bounded = train_from_iter(lines(), &options, &mut |_| {}).unwrap();
    let counts = &bounded.report.counts;
    assert_eq!(counts.dropped_up_to, 1);
    assert!(counts.dropped > 100_000, "{counts:?}");
    assert_eq!(counts.words, 200_000);
    let again = train_from_iter(lines(), &options, &mut |_| {}).unwrap();
    assert_eq!(vocabulary(&bounded), vocabulary(&again));
}

#[test]
fn the_layout_of_bart_starts_and_ends_texts() {
    let trained = trained(&TrainOptions {
        layout: Some(Layout::Bart),
        ..options(Algorithm::Bpe)
    })
    .unwrap();
    let tokenizer = trained.tokenizer;
    let special = tokenizer.special();
    assert_eq!(
        [
            special.bos,
            special.pad,
            special.eos,
            special.unk,
            special.mask
        ],
        [0, 1, 2, 3, 4].map(Some)
    );
    let ids = tokenizer.encode_ids("영화", true).unwrap();
    assert_eq!((ids[0], ids[ids.len() - 1]), (0, 2));
    let options = malmoi_text::EncodeOptions::default();
    let pair = tokenizer.encode("영화", Some("영화"), &options).unwrap();
    let inside = &ids[1..ids.len() - 1];
    assert_eq!(pair.ids, [&[0], inside, &[2, 2], inside, &[2]].concat());
}

#[test]
fn contradictions_are_refused() {
    let refuse = |change: fn(&mut TrainOptions)| {
        let mut options = options(Algorithm::WordPiece);
        change(&mut options);
        let outcome = trained(&options);
        assert!(
            matches!(outcome, Err(TextError::Training(_))),
            "{options:?}"
        );
    };
    refuse(|o| {
        o.vocab_size = 10;
        o.limit_alphabet = Some(50);
    });
    refuse(|o| o.layout = Some(Layout::None));
    refuse(|o| o.byte_fallback = true);
    refuse(|o| o.extra_special = vec![String::new()]);
    let empty = train_from_iter(std::iter::empty(), &options(Algorithm::Bpe), &mut |_| {});
    assert!(matches!(empty, Err(TextError::EmptyCorpus(_))));
}

#[test]
fn the_alphabet_can_be_limited() {
    for algorithm in [Algorithm::WordPiece, Algorithm::Unigram] {
        let mut options = options(algorithm);
        options.limit_alphabet = Some(30);
        let trained = trained(&options).unwrap();
        assert_eq!(trained.report.alphabet, 30);
        assert!(trained.report.coverage < 1.0);
        let unknown = trained.tokenizer.special().unk.unwrap();
        let ids = trained.tokenizer.encode_ids("쀍", false).unwrap();
        assert!(ids.contains(&unknown));
    }
}

#[test]
fn byte_fallback_leaves_nothing_unknown() {
    let mut options = TrainOptions::new(Algorithm::Unigram, 700);
    options.byte_fallback = true;
    let tokenizer = trained(&options).unwrap().tokenizer;
    let ids = tokenizer.encode_ids("쀍 🙂 좋았다", false).unwrap();
    assert!(!ids.contains(&tokenizer.special().unk.unwrap()));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "쀍 🙂 좋았다");
    let mut stream = tokenizer.decode_stream(true);
    let mut text = String::new();
    for id in ids {
        let part = stream.push(id).unwrap();
        assert!(!part.contains('\u{fffd}'), "{part:?}");
        text.push_str(&part);
    }
    text.push_str(&stream.finish().unwrap());
    assert_eq!(text, "쀍 🙂 좋았다");
}

#[test]
fn options_reach_the_normaliser() {
    let mut options = options(Algorithm::WordPiece);
    options.normalizer = Some(HangulSafe {
        lowercase: true,
        strip_accents: true,
        ..HangulSafe::default()
    });
    let tokenizer = trained(&options).unwrap().tokenizer;
    assert_eq!(
        tokenizer.normalize("Café 한국 ㅋㅋ").unwrap(),
        "cafe 한국 ㅋㅋ"
    );
}

#[test]
fn progress_is_reported() {
    let mut stages: Vec<&str> = Vec::new();
    let mut note = |progress: Progress| {
        if stages.last() != Some(&progress.stage) {
            stages.push(progress.stage);
        }
    };
    train_from_iter(
        sentences().into_iter().map(Ok),
        &options(Algorithm::Bpe),
        &mut note,
    )
    .unwrap();
    assert_eq!(stages, ["count words", "merge pairs"]);
}

#[test]
fn shakespeare_has_65_characters_and_keeps_every_one() {
    let root =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/en_corpus_shakespeare");
    let paths = [root.join("train.txt")];
    let options = TrainOptions::new(Algorithm::Char, 100);
    let trained = train(&paths, &CorpusOptions::default(), &options, &mut |_| {}).unwrap();
    let tokenizer = trained.tokenizer;
    assert_eq!(tokenizer.vocab_size(), 65);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("valid.tokens");
    let build = BuildOptions {
        corpus: CorpusOptions {
            mode: DocumentMode::File,
            ..CorpusOptions::default()
        },
        ..BuildOptions::default()
    };
    let valid = root.join("valid.txt");
    let totals = build_token_corpus(
        std::slice::from_ref(&valid),
        &target,
        &tokenizer,
        &build,
        &mut |_| {},
    )
    .unwrap();
    let text = std::fs::read_to_string(valid).unwrap();
    assert_eq!((totals.tokens, totals.documents), (text.len() as u64, 1));
    let corpus = TokenCorpus::open(&target, Some(tokenizer.vocabulary_hash())).unwrap();
    assert!(
        tokenizer
            .decode(&corpus.document(0).to_vec(), false)
            .unwrap()
            == text
    );
}
