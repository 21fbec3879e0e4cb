//! Tokens taken apart at random.

use malmoi_text::{Algorithm, Tokenizer, TrainOptions, train_from_iter};

use super::subwords::SUBWORDS;
use super::tests::{Memory, mlm_options, original};
use super::*;

/// A tokenizer that knows a few words whole, and a text in its tokens.
fn words(algorithm: Algorithm) -> (Tokenizer, Vec<u32>) {
    let text = "배우의 연기가 좋았다 배우가 좋았다 연기의 감동이 좋았다 영화의 감동";
    let lines = std::iter::repeat_n(text.to_string(), 20).map(Ok);
    let options = TrainOptions::new(algorithm, 400);
    let tokenizer = train_from_iter(lines, &options, &mut |_| ())
        .unwrap()
        .tokenizer;
    let ids = tokenizer.encode_ids(text, false).unwrap();
    (tokenizer, ids)
}

fn key(n: u64) -> Key {
    Key::new(1, SUBWORDS, n)
}

#[test]
fn the_text_stays_and_every_rate_between_whole_tokens_and_characters_is_kept() {
    for algorithm in [Algorithm::WordPiece, Algorithm::Bpe, Algorithm::Unigram] {
        let (tokenizer, ids) = words(algorithm);
        let text = tokenizer.decode(&ids, true).unwrap();
        let mut lengths = Vec::new();
        for rate in [0.0, 0.3, 1.0] {
            let subwords = SubwordDropout::new(&tokenizer, rate);
            let parts = subwords.text(&ids, 1000, key(0));
            assert_eq!(
                tokenizer.decode(&parts, true).unwrap(),
                text,
                "{algorithm:?} {rate}"
            );
            assert_eq!(
                parts,
                subwords.text(&ids, 1000, key(0)),
                "the same draws, the same parts"
            );
            lengths.push(parts.len());
        }
        assert_eq!(lengths[0], ids.len());
        assert!(
            lengths[0] < lengths[1] && lengths[1] < lengths[2],
            "{algorithm:?} {lengths:?}"
        );
    }
}

#[test]
fn a_rate_of_one_leaves_characters_and_no_other_draw_is_the_same() {
    let (tokenizer, ids) = words(Algorithm::WordPiece);
    let characters = SubwordDropout::new(&tokenizer, 1.0).text(&ids, 1000, key(0));
    for &id in &characters {
        let token = tokenizer.id_to_token(id).unwrap();
        assert_eq!(token.trim_start_matches("##").chars().count(), 1, "{token}");
    }
    let some = SubwordDropout::new(&tokenizer, 0.5);
    assert_ne!(some.text(&ids, 1000, key(0)), some.text(&ids, 1000, key(1)));
}

#[test]
fn a_match_is_passed_over_as_often_as_the_rate_says() {
    let (tokenizer, ids) = words(Algorithm::WordPiece);
    let long = *(ids.iter())
        .find(|&&id| tokenizer.id_to_token(id).unwrap() == "좋았다")
        .unwrap();
    let subwords = SubwordDropout::new(&tokenizer, 0.2);
    let whole = (0..4000).filter(|&n| subwords.text(&[long], 1000, key(n)) == [long]);
    let share = whole.count() as f64 / 4000.0;
    // Three standard errors of a share of 4,000 draws.
    assert!(
        (share - 0.8).abs() < 3.0 * (0.16_f64 / 4000.0).sqrt(),
        "{share}"
    );
}

#[test]
fn special_and_single_character_tokens_stay_and_the_room_is_kept() {
    let (tokenizer, ids) = words(Algorithm::WordPiece);
    let subwords = SubwordDropout::new(&tokenizer, 1.0);
    let special = tokenizer.special();
    let framed: Vec<u32> = special
        .cls
        .into_iter()
        .chain(ids.clone())
        .chain(special.sep)
        .collect();
    let parts = subwords.text(&framed, 1000, key(0));
    assert_eq!((parts[0], parts.last().copied()), (framed[0], special.sep));
    for room in [framed.len(), framed.len() + 1, framed.len() + 4] {
        let parts = subwords.text(&framed, room, key(0));
        assert!(parts.len() <= room, "{} of {room}", parts.len());
        let text = |ids: &[u32]| tokenizer.decode(ids, true).unwrap();
        assert_eq!(text(&parts), text(&framed));
    }
    // Nothing is taken away where there were too many before.
    assert_eq!(subwords.text(&framed, 3, key(0)), framed);
}

#[test]
fn tokens_that_stand_for_a_byte_or_were_added_stay_whole() {
    let text = "<0xEA> 0123456789 ABCDEF <tool>";
    let lines = std::iter::repeat_n(text.to_string(), 20).map(Ok);
    let options = TrainOptions {
        byte_fallback: true,
        ..TrainOptions::new(Algorithm::Unigram, 320)
    };
    let tokenizer = train_from_iter(lines, &options, &mut |_| ())
        .unwrap()
        .tokenizer;
    let tokenizer = tokenizer.with_special_tokens(&["<tool>"]).unwrap();
    let id = |token: &str| tokenizer.token_to_id(token).unwrap();
    let tool = id("<tool>");
    for character in ["<", "0", "x", "E", "A", ">"] {
        id(character);
    }
    let subwords = SubwordDropout::new(&tokenizer, 1.0);
    for token in [id("<0xEA>"), tool] {
        assert_eq!(subwords.text(&[token], 1000, key(0)), [token]);
    }
    assert!(tokenizer.is_added(tool) && !tokenizer.is_added(id("0")));
}

#[test]
fn answers_segments_and_sequences_follow_their_tokens() {
    let (tokenizer, ids) = words(Algorithm::WordPiece);
    let n = ids.len();
    let example = Example {
        ids: ids.iter().chain(&ids).copied().collect(),
        starts: vec![0, n],
        positions: (0..n as u32).chain(0..n as u32).collect(),
        segments: Some([vec![0; n], vec![1; n]].concat()),
        answer: Some(Answer::Tags(
            (0..2 * n)
                .map(|at| (at, Weighted::plain(at as u32)))
                .collect(),
        )),
        ..Example::default()
    };
    let subwords = SubwordDropout::new(&tokenizer, 0.5);
    let apart = subwords.example(&example, n + 5, key(3));
    let second = apart.starts[1];
    assert!(second > n, "something was taken apart");
    for (range, segment) in [(0..second, 0), (second..apart.ids.len(), 1)] {
        assert!(range.len() <= n + 5, "each sequence has its own room");
        let positions: Vec<u32> = (0..range.len() as u32).collect();
        assert_eq!(apart.positions[range.clone()], positions);
        assert!(
            apart.segments.as_ref().unwrap()[range.clone()]
                .iter()
                .all(|&s| s == segment)
        );
        let text = |ids: &[u32]| tokenizer.decode(ids, true).unwrap();
        assert_eq!(text(&apart.ids[range]), text(&ids));
    }
    let Some(Answer::Tags(tags)) = &apart.answer else {
        panic!("{:?}", apart.answer)
    };
    let ends = tags[1..].iter().map(|&(at, _)| at).chain([apart.ids.len()]);
    for ((&(at, tag), end), &id) in tags.iter().zip(ends).zip(&example.ids) {
        let text = |ids: &[u32]| tokenizer.decode(ids, true).unwrap().replace(' ', "");
        assert_eq!(text(&apart.ids[at..end]), text(&[id]), "tag {}", tag.class);
    }
    let whole = Example {
        answer: Some(Answer::Span(2, 4)),
        ..example
    };
    let characters = SubwordDropout::new(&tokenizer, 1.0);
    let apart = characters.example(&whole, 1000, key(4));
    let Some(Answer::Span(first, last)) = apart.answer else {
        panic!("{:?}", apart.answer)
    };
    let text = |ids: &[u32]| tokenizer.decode(ids, true).unwrap();
    assert!(last - first > 2, "the answer has more parts than tokens");
    assert_eq!(
        text(&apart.ids[first as usize..=last as usize]),
        text(&ids[2..=4])
    );
}

#[test]
fn where_the_next_token_is_predicted_every_part_of_it_is() {
    let (tokenizer, ids) = words(Algorithm::Bpe);
    // The source is two tokens; the last token of the target is not read.
    let read = &ids[..ids.len() - 1];
    let example = Example {
        ids: read.to_vec(),
        starts: vec![0],
        positions: (0..read.len() as u32).collect(),
        targets: (1..read.len()).map(|at| (at, ids[at + 1])).collect(),
        ..Example::default()
    };
    let apart = SubwordDropout::new(&tokenizer, 0.5).example(&example, 1000, key(5));
    assert!(apart.ids.len() > read.len());
    let (last, rest) = apart.targets.split_last().unwrap();
    assert_eq!(*last, (apart.ids.len() - 1, ids[ids.len() - 1]));
    let first = rest[0].0;
    assert_eq!(
        tokenizer.decode(&apart.ids[..=first], true).unwrap(),
        tokenizer.decode(&ids[..2], true).unwrap(),
        "predicting starts behind the source"
    );
    for (n, &(at, token)) in rest.iter().enumerate() {
        assert_eq!((at, token), (first + n, apart.ids[at + 1]));
    }
}

#[test]
fn hidden_words_are_taken_apart_in_training_and_not_in_evaluation() {
    let (tokenizer, ids) = words(Algorithm::WordPiece);
    let documents = vec![vec![ids.clone(), ids.clone()]; 4];
    for pairs in [PairKind::None, PairKind::NextSentence] {
        let options = MlmOptions {
            pairs,
            ..mlm_options()
        };
        let plain =
            MlmData::new(Memory::new(&documents), tokenizer.clone(), "test", options).unwrap();
        let apart =
            MlmData::new(Memory::new(&documents), tokenizer.clone(), "test", options).unwrap();
        let apart = apart.with_subwords(SubwordDropout::asked_for(&tokenizer, 0.5));
        let mut longer = 0;
        for n in 0..apart.per_epoch() {
            assert_eq!(apart.evaluation(n).unwrap(), plain.evaluation(n).unwrap());
            let (a, b) = (apart.training(1, n).unwrap(), plain.training(1, n).unwrap());
            assert_eq!(a, apart.training(1, n).unwrap());
            assert!(a.ids.len() <= options.max_len);
            longer += usize::from(a.ids.len() > b.ids.len());
            if pairs == PairKind::None {
                let text = |example| tokenizer.decode(&original(example), true).unwrap();
                assert_eq!(text(&a), text(&b));
            }
        }
        assert!(longer > 0);
    }
}
