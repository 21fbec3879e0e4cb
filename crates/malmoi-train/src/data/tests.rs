use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use malmoi_text::{Algorithm, Tokenizer, TrainOptions, train_from_iter};

use super::clm::ClmOptions;
use super::mlm::MlmOptions;
use super::*;
use crate::config::ClmSampling;
use crate::objectives::masked::MaskingRates;

/// Documents of sentences in memory.
pub(super) struct Memory {
    tokens: Vec<u32>,
    /// End of each sentence, in tokens.
    sentences: Vec<u64>,
    /// End of each document, in sentences.
    documents: Vec<usize>,
}

impl Memory {
    pub(super) fn new(documents: &[Vec<Vec<u32>>]) -> Arc<Self> {
        let mut this = Self {
            tokens: Vec::new(),
            sentences: Vec::new(),
            documents: Vec::new(),
        };
        for document in documents {
            for sentence in document {
                this.tokens.extend(sentence);
                this.sentences.push(this.tokens.len() as u64);
            }
            this.documents.push(this.sentences.len());
        }
        Arc::new(this)
    }

    fn sentence_range(&self, document: usize) -> Range<usize> {
        let start = if document == 0 {
            0
        } else {
            self.documents[document - 1]
        };
        start..self.documents[document]
    }

    fn span(&self, sentences: Range<usize>) -> Range<u64> {
        let bound = |i: usize| if i == 0 { 0 } else { self.sentences[i - 1] };
        bound(sentences.start)..bound(sentences.end)
    }
}

impl Tokens for Memory {
    fn n_tokens(&self) -> u64 {
        self.tokens.len() as u64
    }

    fn n_documents(&self) -> usize {
        self.documents.len()
    }

    fn document(&self, document: usize) -> Range<u64> {
        self.span(self.sentence_range(document))
    }

    fn n_sentences(&self, document: usize) -> u64 {
        self.sentence_range(document).len() as u64
    }

    fn sentences(&self, document: usize, sentences: Range<u64>) -> Range<u64> {
        let first = self.sentence_range(document).start;
        self.span(first + sentences.start as usize..first + sentences.end as usize)
    }

    fn read(&self, range: Range<u64>, out: &mut Vec<u32>) {
        out.extend(&self.tokens[range.start as usize..range.end as usize]);
    }
}

const END: u32 = 99;

fn clm(documents: &[Vec<Vec<u32>>], change: impl FnOnce(&mut ClmOptions)) -> ClmData {
    let mut options = ClmOptions {
        context: 4,
        separator: Some(END),
        reset_positions: false,
        cross_document_attention: true,
        sampling: ClmSampling::Packed,
    };
    change(&mut options);
    ClmData::new(Memory::new(documents), "test", options).unwrap()
}

fn three() -> Vec<Vec<Vec<u32>>> {
    vec![
        vec![vec![1, 2, 3]],
        vec![vec![4], vec![5, 6, 7, 8]],
        vec![vec![9, 10]],
    ]
}

#[test]
fn evaluation_windows_are_the_joined_documents_in_order() {
    let data = clm(&three(), |_| ());
    // 1 2 3 E 4 5 6 7 8 E 9 10 E: thirteen tokens, three windows of four and the token after each.
    assert_eq!(data.evaluation_count(), 3);
    let stream = [1, 2, 3, END, 4, 5, 6, 7, 8, END, 9, 10, END];
    for n in 0..3 {
        let example = data.evaluation(n).unwrap();
        let at = 4 * n as usize;
        assert_eq!(example.ids, stream[at..at + 4]);
        let targets: Vec<(usize, u32)> = (0..4).map(|i| (i, stream[at + i + 1])).collect();
        assert_eq!(example.targets, targets);
        assert_eq!(example.starts, [0]);
        assert_eq!(example.positions, [0, 1, 2, 3]);
    }
}

#[test]
fn documents_kept_apart_are_sequences_of_their_own() {
    let data = clm(&three(), |options| {
        options.context = 12;
        options.cross_document_attention = false;
    });
    let example = data.evaluation(0).unwrap();
    // A separator begins the next document; each one still predicts what follows it.
    assert_eq!(example.starts, [0, 3, 9]);
    assert_eq!(example.targets.len(), 12);
    assert_eq!(example.positions, (0..12).collect::<Vec<u32>>());
    let micro = MicroBatch::pack(&[example.clone(), example]);
    assert_eq!(&*micro.batch.cu_seqlens, [0, 3, 9, 12, 15, 21, 24]);
    assert_eq!(micro.rows[12], 12);
}

#[test]
fn positions_restart_in_each_document_when_asked() {
    for apart in [false, true] {
        let data = clm(&three(), |options| {
            options.context = 12;
            options.reset_positions = true;
            options.cross_document_attention = !apart;
        });
        let example = data.evaluation(0).unwrap();
        assert_eq!(example.positions, [0, 1, 2, 0, 1, 2, 3, 4, 5, 0, 1, 2]);
        assert_eq!(example.starts.len(), if apart { 3 } else { 1 });
    }
}

#[test]
fn without_a_separator_nothing_predicts_the_next_document_when_kept_apart() {
    let data = clm(&three(), |options| {
        options.context = 9;
        options.separator = None;
        options.cross_document_attention = false;
    });
    let example = data.evaluation(0).unwrap();
    assert_eq!(example.ids, (1..=9).collect::<Vec<u32>>());
    assert_eq!(example.starts, [0, 3, 8]);
    let places: Vec<usize> = example.targets.iter().map(|&(place, _)| place).collect();
    assert_eq!(places, [0, 1, 3, 4, 5, 6, 8]);
    let joined = clm(&three(), |options| {
        options.context = 9;
        options.separator = None;
    });
    assert_eq!(joined.evaluation(0).unwrap().targets.len(), 9);
}

#[test]
fn an_epoch_of_packed_blocks_holds_every_block_once_in_another_order_each_time() {
    let documents = vec![vec![(0..403).collect::<Vec<u32>>()]];
    let data = clm(&documents, |options| options.separator = None);
    let n = data.per_epoch();
    assert_eq!(n, 100);
    let epoch = |e: u64| -> Vec<u32> {
        (0..n)
            .map(|i| data.training(3, e * n + i).unwrap().ids[0])
            .collect()
    };
    let (first, second) = (epoch(0), epoch(1));
    assert_ne!(first, second);
    for order in [&first, &second] {
        let offset = order.iter().min().unwrap() % 4;
        let seen: BTreeSet<u32> = order.iter().map(|id| (id - offset) / 4).collect();
        assert_eq!(seen.len(), 100, "every block once");
    }
    assert_eq!(
        first,
        epoch(0),
        "the order is a function of seed and number"
    );
    assert_ne!(
        first,
        (0..n)
            .map(|i| data.training(4, i).unwrap().ids[0])
            .collect::<Vec<_>>()
    );
}

#[test]
fn random_windows_start_anywhere() {
    let documents = vec![vec![(0..30).collect::<Vec<u32>>()]];
    let data = clm(&documents, |options| {
        options.separator = None;
        options.sampling = ClmSampling::RandomWindow;
    });
    let starts: BTreeSet<u32> = (0..2000)
        .map(|n| data.training(1, n).unwrap().ids[0])
        .collect();
    // The last start leaves room for four tokens and the one after them.
    assert_eq!(starts, (0..=25).collect::<BTreeSet<u32>>());
}

#[test]
fn a_text_shorter_than_the_context_gives_a_shorter_sequence() {
    let data = clm(&[vec![vec![1, 2, 3]]], |options| options.context = 64);
    assert_eq!(data.per_epoch(), 1);
    assert_eq!(data.training(0, 5).unwrap().ids, [1, 2, 3]);
    let none = ClmData::new(
        Memory::new(&[vec![vec![1]]]),
        "the training text",
        ClmOptions {
            context: 4,
            separator: None,
            reset_positions: false,
            cross_document_attention: true,
            sampling: ClmSampling::Packed,
        },
    );
    let error = none.err().expect("refused");
    assert!(
        error.is_bad_input() && error.to_string().contains("at least 2"),
        "{error}"
    );
}

#[test]
fn micro_batches_hold_the_examples_of_the_whole_batch() {
    let documents = vec![vec![(0..403).collect::<Vec<u32>>()]];
    let data = clm(&documents, |_| ());
    for step in 0..5 {
        let whole = step_batches(&data, 1, step, 1, 8).unwrap();
        let parts = step_batches(&data, 1, step, 4, 2).unwrap();
        let ids: Vec<u32> = parts
            .iter()
            .flat_map(|micro| micro.batch.ids.iter().copied())
            .collect();
        assert_eq!(&*whole[0].batch.ids, ids.as_slice());
        assert_eq!(Counts::of(&whole), Counts::of(&parts));
    }
}

/// A WordPiece tokenizer over words of two syllables, and its text as a corpus: `documents` documents of `sentences` sentences.
pub(super) fn korean(documents: usize, sentences: usize) -> (Tokenizer, Vec<Vec<Vec<u32>>>) {
    let syllables: Vec<char> = "가나다라마바사아자차카타파하거너더러머버".chars().collect();
    let key = Key::new(1, Purpose::Other(7), 0);
    let mut draw = 0;
    let mut word = || {
        draw += 2;
        let pick = |at| syllables[key.below_at(at, syllables.len() as u64) as usize];
        format!("{}{}", pick(draw), pick(draw + 1))
    };
    let text: Vec<Vec<String>> = (0..documents)
        .map(|_| {
            (0..sentences)
                .map(|s| (0..3 + s % 5).map(|_| word()).collect::<Vec<_>>().join(" "))
                .collect()
        })
        .collect();
    // As many entries as characters: words stay in pieces, so that whole words differ from tokens.
    let options = TrainOptions {
        limit_alphabet: Some(100),
        ..TrainOptions::new(Algorithm::WordPiece, 50)
    };
    let lines = text.iter().flatten().cloned().map(Ok);
    let tokenizer = train_from_iter(lines, &options, &mut |_| ())
        .unwrap()
        .tokenizer;
    let ids = text
        .iter()
        .map(|document| {
            document
                .iter()
                .map(|sentence| tokenizer.encode_ids(sentence, false).unwrap())
                .collect()
        })
        .collect();
    (tokenizer, ids)
}

pub(super) fn mlm_options() -> MlmOptions {
    MlmOptions {
        max_len: 32,
        rates: MaskingRates::default(),
        units: Units::Tokens,
        pairs: PairKind::None,
        detection: None,
    }
}

/// The example with its hidden tokens put back.
pub(super) fn original(example: &Example) -> Vec<u32> {
    let mut ids = example.ids.clone();
    example
        .targets
        .iter()
        .for_each(|&(place, target)| ids[place] = target);
    ids
}

#[test]
fn single_sequences_hold_every_token_of_the_text_once() {
    let (tokenizer, documents) = korean(20, 11);
    let special = SpecialIds::of(&tokenizer).unwrap();
    let data = MlmData::new(Memory::new(&documents), tokenizer, "test", mlm_options()).unwrap();
    let mut text: Vec<u32> = Vec::new();
    for n in 0..data.evaluation_count() {
        let ids = original(&data.evaluation(n).unwrap());
        assert!(ids.len() <= 32);
        assert_eq!((ids[0], ids[ids.len() - 1]), (special.cls, special.sep));
        text.extend(&ids[1..ids.len() - 1]);
    }
    assert_eq!(text, documents.concat().concat());
}

#[test]
fn a_sentence_longer_than_the_sequence_is_cut_into_several() {
    let (tokenizer, _) = korean(2, 4);
    let long: Vec<u32> = (5..45).cycle().take(100).collect();
    let documents = vec![vec![vec![6, 7], long.clone(), vec![8]]];
    let data = MlmData::new(Memory::new(&documents), tokenizer, "test", mlm_options()).unwrap();
    let lengths: Vec<usize> = (0..data.per_epoch())
        .map(|n| data.evaluation(n).unwrap().ids.len() - 2)
        .collect();
    // Thirty tokens of text fit; what is left of the long sentence shares a sequence with the next one.
    assert_eq!(lengths, [2, 30, 30, 30, 11]);
}

#[test]
fn masking_follows_the_rates_and_changes_with_every_pass() {
    let (tokenizer, documents) = korean(60, 12);
    let mask = tokenizer.special().mask.unwrap();
    let data = MlmData::new(Memory::new(&documents), tokenizer, "test", mlm_options()).unwrap();
    let (mut tokens, mut chosen, mut masked, mut kept) = (0.0, 0.0, 0.0, 0.0);
    for n in 0..10 * data.per_epoch() {
        let example = data.training(1, n).unwrap();
        tokens += (example.ids.len() - 2) as f64;
        assert!(
            !example.targets.is_empty(),
            "every sequence has something to predict"
        );
        for &(place, target) in &example.targets {
            chosen += 1.0;
            masked += f64::from(u8::from(example.ids[place] == mask));
            kept += f64::from(u8::from(example.ids[place] == target));
        }
    }
    // Five standard deviations of binomial counts. A random token is now and then the original one (1 in 50), or the mask.
    let within = |share: f64, expected: f64, n: f64, slack: f64| {
        let bound = 5.0 * (expected * (1.0 - expected) / n).sqrt() + slack;
        assert!(
            (share - expected).abs() < bound,
            "{share} of {n}, expected {expected}"
        );
    };
    // A sequence of 30 tokens in which nothing was drawn (0.85^30 = 0.8 %) hides one anyway: 0.0003 of the tokens, more for
    // short ones at the end of documents.
    within(chosen / tokens, 0.15, tokens, 0.004);
    within(masked / chosen, 0.8, chosen, 0.02);
    within(kept / chosen, 0.1, chosen, 0.004);
    let n = data.per_epoch();
    let again = |n| data.training(1, n).unwrap();
    assert_eq!(again(3), again(3));
    let passes: BTreeSet<Vec<(usize, u32)>> = (0..6)
        .map(|pass| {
            let same = (0..n)
                .map(|i| again(pass * n + i))
                .find(|e| original(e) == original(&again(0)));
            same.expect("every pass holds every text").targets
        })
        .collect();
    assert!(passes.len() > 3, "other tokens are hidden in every pass");
}

#[test]
fn whole_words_are_hidden_together() {
    let (tokenizer, documents) = korean(40, 12);
    let options = MlmOptions {
        units: Units::Words,
        ..mlm_options()
    };
    let data = MlmData::new(Memory::new(&documents), tokenizer.clone(), "test", options).unwrap();
    let mut in_pieces = 0;
    for n in 0..data.per_epoch() {
        let example = data.training(1, n).unwrap();
        let hidden: BTreeSet<usize> = example.targets.iter().map(|&(place, _)| place).collect();
        for word in tokenizer.whole_words(&original(&example)) {
            let count = word.clone().filter(|place| hidden.contains(place)).count();
            assert!(count == 0 || count == word.len());
            in_pieces += usize::from(count > 1);
        }
    }
    assert!(in_pieces > 50, "the words of this text have several pieces");
}

#[test]
fn half_of_the_pairs_follow_each_other_and_half_come_from_another_document() {
    let (tokenizer, documents) = korean(40, 12);
    let special = SpecialIds::of(&tokenizer).unwrap();
    // Every sentence is unique in practice; find a segment's document and place by looking for it.
    let joined: Vec<Vec<u32>> = documents.iter().map(|document| document.concat()).collect();
    let place = |document: usize, part: &[u32]| {
        joined[document]
            .windows(part.len())
            .position(|window| window == part)
    };
    let options = MlmOptions {
        pairs: PairKind::NextSentence,
        ..mlm_options()
    };
    let data = MlmData::new(Memory::new(&documents), tokenizer, "test", options).unwrap();
    let total = 5 * data.per_epoch();
    let (mut random, mut short) = (0_u64, 0_u64);
    for n in 0..total {
        let example = data.training(2, n).unwrap();
        let ids = original(&example);
        assert!(ids.len() <= 32);
        let segments = example.segments.as_ref().unwrap();
        let cut = segments.iter().position(|&segment| segment == 1).unwrap();
        assert_eq!(
            (ids[0], ids[cut - 1], ids[ids.len() - 1]),
            (special.cls, special.sep, special.sep)
        );
        let (a, b) = (&ids[1..cut - 1], &ids[cut..ids.len() - 1]);
        assert!(!a.is_empty() && !b.is_empty());
        if a.len() < 6 || b.len() < 6 {
            // Too short to tell where it comes from.
            short += 1;
            random += u64::from(example.next_sentence.unwrap());
            continue;
        }
        let own = (0..documents.len())
            .find(|&d| place(d, a).is_some())
            .expect("A is text of one document");
        match example.next_sentence.unwrap() {
            0 => assert!(place(own, b) > place(own, a), "B follows A in its document"),
            _ => {
                random += 1;
                assert_eq!(place(own, b), None, "B comes from another document");
                assert!((0..documents.len()).any(|d| place(d, b).is_some()));
            }
        }
    }
    assert!(short * 2 < total);
    let share = random as f64 / total as f64;
    assert!(
        (share - 0.5).abs() < 5.0 * (0.25 / total as f64).sqrt(),
        "{share} of {total} are random"
    );
}

#[test]
fn pairs_need_two_documents_with_sentences() {
    let (tokenizer, _) = korean(2, 4);
    let options = MlmOptions {
        pairs: PairKind::NextSentence,
        ..mlm_options()
    };
    for documents in [
        vec![vec![vec![6, 7], vec![8]]],
        vec![vec![vec![6]], vec![vec![7]]],
    ] {
        let made = MlmData::new(
            Memory::new(&documents),
            tokenizer.clone(),
            "the training text",
            options,
        );
        let error = made.err().expect("refused");
        assert!(
            error.is_bad_input() && error.to_string().contains("two documents"),
            "{error}"
        );
    }
}

#[test]
fn evaluation_examples_do_not_depend_on_anything() {
    let (tokenizer, documents) = korean(10, 12);
    let make = || {
        MlmData::new(
            Memory::new(&documents),
            tokenizer.clone(),
            "test",
            mlm_options(),
        )
        .unwrap()
    };
    let (first, second) = (make(), make());
    second.training(5, 3).unwrap();
    for n in 0..first.evaluation_count() {
        assert_eq!(first.evaluation(n).unwrap(), second.evaluation(n).unwrap());
    }
}
