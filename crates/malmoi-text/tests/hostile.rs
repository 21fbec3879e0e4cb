//! Bytes from outside give errors, never panics.
//!
//! A long run: `PROPTEST_CASES=20000 cargo test --release -p malmoi-text --test hostile`.

use std::path::Path;

use malmoi_text::{
    CorpusBuilder, CorpusOptions, DocumentMode, EncodeOptions, LineReader, LoadOptions,
    ReadOptions, RowFormat, RowOptions, RowReader, SentencePiece, TextError, TokenCorpus,
    Tokenizer, Truncation, TruncationError, documents,
};
use proptest::prelude::*;

fn spiece() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden/tokenizer-sentencepiece/spiece.model");
    std::fs::read(path).unwrap()
}

fn write(bytes: &[u8], name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn corpus_file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corpus");
    let mut builder = CorpusBuilder::create(&path, 50, 1).unwrap();
    for length in 1..6_u32 {
        builder.sentence(&(0..length).collect::<Vec<_>>()).unwrap();
        builder.end_document().unwrap();
    }
    builder.finish().unwrap();
    std::fs::read(path).unwrap()
}

proptest! {
    #[test]
    fn sentencepiece_files(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), keep in 0.0..1.0_f64, cut in any::<bool>()) {
        let mut bytes = spiece();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if cut {
            bytes.truncate((bytes.len() as f64 * keep) as usize);
        }
        let (folder, _) = write(&bytes, "spiece.model");
        if SentencePiece::from_bytes(&bytes, Path::new("spiece.model")).is_ok()
            && let Ok(tokenizer) = Tokenizer::load(folder.path())
        {
            for text in ["한국어 \u{1112}\u{1161}\u{11ab} ﬁ ½ ㅋㅋ", "a  b ™"] {
                let encoding = tokenizer.encode(text, None, &EncodeOptions::default()).unwrap();
                tokenizer.decode(&encoding.ids, false).unwrap();
            }
        }
    }

    #[test]
    fn tokenizer_files(which in 0..4_usize, changes in prop::collection::vec((any::<prop::sample::Index>(), 0..8_usize), 1..6)) {
        let name = ["wordpiece", "unigram", "bytelevel-bpe", "word-bpe"][which];
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../golden/tokenizer-{name}/tokenizer.json"));
        let mut text = std::fs::read_to_string(path).unwrap();
        for (at, kind) in &changes {
            // Replace a number or a word of the document, which keeps it JSON more often than a random byte would.
            let mut at = at.index(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let replacement = ["0", "4294967295", "-1", "null", "\"\"", "true", "99999", "x"][*kind];
            let start = text[..at].rfind([' ', ':', ',', '[']).map_or(0, |at| at + 1);
            let end = text[at..].find([',', '}', ']', ' ']).map_or(text.len(), |end| at + end);
            if start <= end {
                text.replace_range(start..end, replacement);
            }
        }
        let (folder, _) = write(text.as_bytes(), "tokenizer.json");
        if let Ok(tokenizer) = Tokenizer::load(folder.path()) {
            for text in ["한국어 Hello [MASK] ﬁ ½ ㅋㅋ", "", " a  b ™ "] {
                if let Ok(encoding) = tokenizer.encode(text, Some(text), &EncodeOptions::default()) {
                    let _ = tokenizer.decode(&encoding.ids, false);
                    let _ = tokenizer.whole_words(&encoding.ids);
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_as_a_model(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = SentencePiece::from_bytes(&bytes, Path::new("x"));
        for name in ["tokenizer.json", "vocab.txt", "vocab.json", "spiece.model"] {
            let (folder, _) = write(&bytes, name);
            let _ = Tokenizer::load_with(folder.path(), &LoadOptions::default());
        }
    }

    #[test]
    fn corpus_files(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>(), whole in any::<bool>()) {
        let mut bytes = corpus_file();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let (_folder, path) = write(&bytes, "corpus");
        if let Ok(corpus) = TokenCorpus::open(&path, None) {
            for document in 0..corpus.len() {
                prop_assert!(!corpus.document(document).to_vec().is_empty());
                for sentence in corpus.document_sentences(document) {
                    prop_assert!(!corpus.sentence(sentence).is_empty());
                }
            }
            let _ = corpus.check_tokens();
        }
    }

    #[test]
    fn text_and_tables(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..6_usize, encoding in 0..4_usize) {
        let prefix: &[u8] = [&b""[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"a\tb\n", b"{\"a\":", b"a,b\n"][kind];
        let (_folder, path) = write(&[prefix, &bytes].concat(), "file");
        let read = ReadOptions {
            encoding: [None, Some("cp949"), Some("utf-16le"), Some("shift_jis")][encoding].map(str::to_owned),
            max_unpacked: 1 << 20,
            ..ReadOptions::default()
        };
        if let Ok(mut lines) = LineReader::open(&path, &read) {
            while let Ok(Some(_)) = lines.next_line() {}
        }
        for format in [RowFormat::Tsv, RowFormat::Csv, RowFormat::Jsonl] {
            let options = RowOptions { format: Some(format), read: read.clone(), ..RowOptions::default() };
            if let Ok(rows) = RowReader::open(&path, &options) {
                for row in rows {
                    if row.is_err() {
                        break;
                    }
                }
            }
        }
        for mode in [DocumentMode::Auto, DocumentMode::File] {
            let options = CorpusOptions { mode, read: read.clone(), split_sentences: true, ..CorpusOptions::default() };
            for document in documents(std::slice::from_ref(&path), &options).flatten() {
                prop_assert!(document.sentences.iter().all(|sentence| !sentence.is_empty()));
            }
        }
    }

    #[test]
    fn any_truncation(text in "[a-z가-힣ㅋ ]{0,40}", pair in prop::option::of("[a-z가-힣 ]{0,40}"), max_length in 0..30_usize, stride in 0..12_usize, strategy in 0..3_usize) {
        use malmoi_text::{Side, TruncationStrategy as S};
        thread_local! {
            static BERT: Tokenizer = Tokenizer::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/tokenizer-wordpiece")).unwrap();
        }
        BERT.with(|tokenizer| {
            let truncation = Truncation {
                max_length,
                stride,
                strategy: [S::LongestFirst, S::OnlyFirst, S::OnlySecond][strategy],
                direction: if max_length % 2 == 0 { Side::Left } else { Side::Right },
            };
            let options = EncodeOptions { truncation: Some(truncation), ..EncodeOptions::default() };
            match tokenizer.encode(&text, pair.as_deref(), &options) {
                Ok(encoding) => {
                    prop_assert!(encoding.len() <= max_length, "{} > {max_length}", encoding.len());
                    for piece in std::iter::once(&encoding).chain(&encoding.overflowing) {
                        for (index, &(start, end)) in piece.byte_offsets.iter().enumerate() {
                            let source = match piece.sequence_ids[index] {
                                Some(1) => pair.as_deref().unwrap_or(""),
                                _ => &text,
                            };
                            prop_assert!(source.get(start..end).is_some());
                            let (from, to) = piece.offsets[index];
                            prop_assert_eq!(source[start..end].chars().count(), to - from);
                        }
                    }
                }
                Err(TextError::Truncation(_)) => {}
                Err(other) => prop_assert!(false, "{}", other),
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_huge_id_is_refused() {
    let vocab = r#"{"a": 0, "b": 4294967295}"#;
    let (folder, _) = write(vocab.as_bytes(), "vocab.json");
    std::fs::write(folder.path().join("merges.txt"), "").unwrap();
    let error = Tokenizer::load(folder.path()).unwrap_err();
    assert!(matches!(error, TextError::BadTokenizer { .. }), "{error}");
    assert!(error.to_string().contains("4294967295"), "{error}");
}

#[test]
fn truncation_errors_are_typed() {
    let bert = Tokenizer::load(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/tokenizer-wordpiece"),
    )
    .unwrap();
    let with = |max_length, stride| EncodeOptions {
        truncation: Some(Truncation {
            stride,
            ..Truncation::to(max_length)
        }),
        ..EncodeOptions::default()
    };
    let error =
        |options: &EncodeOptions| match bert.encode("one two three four five", None, options) {
            Err(TextError::Truncation(error)) => error,
            other => panic!("{other:?}"),
        };
    assert_eq!(
        error(&with(1, 0)),
        TruncationError::NoRoom {
            max_length: 1,
            special: 2
        }
    );
    assert_eq!(
        error(&with(4, 2)),
        TruncationError::StrideTooLarge {
            stride: 2,
            length: 2
        }
    );
}
