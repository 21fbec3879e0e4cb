//! Text files, tables and tokenised corpora, good and bad.

use std::io::Write;
use std::path::{Path, PathBuf};

use malmoi_text::{
    Algorithm, BuildOptions, CorpusBuilder, CorpusOptions, CorpusProblem, Document, DocumentMode,
    LineReader, ReadOptions, RowOptions, RowReader, TextError, TokenCorpus, Tokenizer,
    TrainOptions, build_token_corpus, documents, train_from_iter,
};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(path: &Path, options: &CorpusOptions) -> Result<Vec<Vec<String>>, TextError> {
    documents(&[path.to_path_buf()], options)
        .map(|document| document.map(|d| d.sentences))
        .collect()
}

fn all_lines(path: &Path, options: &ReadOptions) -> Result<Vec<String>, TextError> {
    LineReader::open(path, options)?.into_lines().collect()
}

#[test]
fn empty_lines_separate_documents_when_there_are_any() {
    let folder = Folder::new();
    let blocks = folder.file("blocks.txt", "하나\n둘\n\n\n셋\n");
    let mut stream = documents(std::slice::from_ref(&blocks), &CorpusOptions::default());
    assert_eq!(stream.next().unwrap().unwrap().sentences, ["하나", "둘"]);
    assert_eq!(stream.mode(), Some(DocumentMode::Paragraphs));
    assert_eq!(stream.next().unwrap().unwrap().sentences, ["셋"]);
    assert!(stream.next().is_none());
    // Empty lines at the ends separate nothing.
    let lines = folder.file("lines.txt", "\n하나\n둘\n\n");
    let got = read(&lines, &CorpusOptions::default()).unwrap();
    assert_eq!(got, [["하나"], ["둘"]]);
    let forced = CorpusOptions {
        mode: DocumentMode::Lines,
        ..CorpusOptions::default()
    };
    assert_eq!(read(&blocks, &forced).unwrap().len(), 3);
}

#[test]
fn sentences_can_be_split() {
    let folder = Folder::new();
    let path = folder.file("a.txt", "좋았다. 정말? \"그래!\" 3.5점 끝…\n");
    let options = CorpusOptions {
        split_sentences: true,
        ..CorpusOptions::default()
    };
    assert_eq!(
        read(&path, &options).unwrap(),
        [["좋았다.", "정말?", "\"그래!\"", "3.5점 끝…"]]
    );
}

#[test]
fn a_whole_file_keeps_its_line_breaks() {
    let folder = Folder::new();
    let text = "line one\n\nline two\r\n".repeat(10_000);
    let path = folder.file("raw.txt", &text);
    let options = CorpusOptions {
        mode: DocumentMode::File,
        ..CorpusOptions::default()
    };
    let pieces: Vec<Document> = documents(&[path], &options).map(Result::unwrap).collect();
    assert!(pieces.len() > 1);
    assert!(!pieces[0].continues && pieces[1..].iter().all(|piece| piece.continues));
    let joined: String = pieces
        .iter()
        .flat_map(|piece| &piece.sentences)
        .map(String::as_str)
        .collect();
    assert_eq!(joined, text);
}

#[test]
fn compressed_files_read_like_plain_ones() {
    let folder = Folder::new();
    let text = "한국어 문장\n둘째 줄\n";
    // The content decides, not the name.
    for (name, bytes) in [
        ("a.gz", gzip(text.as_bytes())),
        ("b.zst", zstd::encode_all(text.as_bytes(), 3).unwrap()),
        ("c.txt", gzip(text.as_bytes())),
        (
            "two.gz",
            [
                gzip("한국어 문장\n".as_bytes()),
                gzip("둘째 줄\n".as_bytes()),
            ]
            .concat(),
        ),
        ("bom.txt", ["\u{feff}", text].concat().into_bytes()),
        ("crlf.txt", text.replace('\n', "\r\n").into_bytes()),
    ] {
        let path = folder.file(name, bytes);
        let lines = all_lines(&path, &ReadOptions::default()).unwrap();
        assert_eq!(lines, ["한국어 문장", "둘째 줄"], "{name}");
    }
}

#[test]
fn bounds_hold() {
    let folder = Folder::new();
    let bomb = folder.file("bomb.gz", gzip(&vec![b'a'; 10_000_000]));
    let options = ReadOptions {
        max_unpacked: 1_000_000,
        ..ReadOptions::default()
    };
    let error = all_lines(&bomb, &options).unwrap_err();
    assert!(
        matches!(
            error,
            TextError::TooLarge {
                limit: 1_000_000,
                ..
            }
        ),
        "{error}"
    );
    let options = ReadOptions {
        max_line: 1_000,
        ..ReadOptions::default()
    };
    let error = all_lines(&bomb, &options).unwrap_err();
    assert!(
        matches!(
            error,
            TextError::LineTooLong {
                line: 1,
                limit: 1_000,
                ..
            }
        ),
        "{error}"
    );
    let cut = gzip("한국어\n".repeat(1_000).as_bytes());
    let cut = folder.file("cut.gz", &cut[..cut.len() / 2]);
    assert!(matches!(
        all_lines(&cut, &ReadOptions::default()),
        Err(TextError::Io { .. })
    ));
}

#[test]
fn other_encodings_are_read_and_recognised() {
    let folder = Folder::new();
    let text = "첫째 줄\n펲시콜라 똠방각하\n";
    let cp949 = encoding_rs::EUC_KR.encode(text).0.into_owned();
    let path = folder.file("cp949.txt", &cp949);
    let with = |name: &str| ReadOptions {
        encoding: Some(name.into()),
        ..ReadOptions::default()
    };
    for name in ["cp949", "CP949", "euc-kr", "uhc"] {
        assert_eq!(
            all_lines(&path, &with(name)).unwrap(),
            ["첫째 줄", "펲시콜라 똠방각하"]
        );
    }
    match all_lines(&path, &ReadOptions::default()).unwrap_err() {
        TextError::InvalidEncoding {
            line: 1,
            // The first characters happen to be valid UTF-8.
            offset: 5,
            likely: Some("cp949"),
            ..
        } => {}
        other => panic!("{other}"),
    }
    let mut utf16 = vec![0xff, 0xfe];
    utf16.extend("한\n글".encode_utf16().flat_map(u16::to_le_bytes));
    let path = folder.file("utf16.txt", utf16);
    assert_eq!(all_lines(&path, &with("utf-16le")).unwrap(), ["한", "글"]);
    match all_lines(&path, &ReadOptions::default()).unwrap_err() {
        TextError::InvalidEncoding {
            likely: Some("utf-16le"),
            ..
        } => {}
        other => panic!("{other}"),
    }
    assert!(matches!(
        all_lines(&path, &with("klingon")),
        Err(TextError::UnknownEncoding(_))
    ));
}

#[test]
fn invalid_text_is_located() {
    let folder = Folder::new();
    let path = folder.file("bad.txt", b"fine\nstill fine\nno\xff\xfe\n");
    let error = all_lines(&path, &ReadOptions::default()).unwrap_err();
    assert!(
        matches!(
            error,
            TextError::InvalidEncoding {
                line: 3,
                offset: 18,
                ..
            }
        ),
        "{error}"
    );
    let message = error.to_string();
    assert!(message.contains("line 3, byte 18"), "{message}");
    let path = folder.file("bad949.txt", b"\xb0\xa1\n\xb0\xff\n");
    let options = ReadOptions {
        encoding: Some("cp949".into()),
        ..ReadOptions::default()
    };
    let error = all_lines(&path, &options).unwrap_err();
    assert!(
        matches!(
            error,
            TextError::InvalidEncoding {
                line: 2,
                offset: 3,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn an_empty_corpus_is_an_error_of_its_own() {
    let folder = Folder::new();
    for text in ["", "\n\n  \n"] {
        let path = folder.file("empty.txt", text);
        let error = read(&path, &CorpusOptions::default()).unwrap_err();
        assert!(matches!(error, TextError::EmptyCorpus(_)), "{error}");
    }
    let missing = read(
        Path::new("/nonexistent/file.txt"),
        &CorpusOptions::default(),
    );
    assert!(matches!(missing, Err(TextError::Io { .. })));
}

#[test]
fn tables_are_read_by_column() {
    let folder = Folder::new();
    let tsv = folder.file("a.tsv", "id\ttext\n1\t그는 \"좋다\"고 했다\n\n2\t둘\n");
    let csv = folder.file(
        "a.csv",
        "id,text\n1,\"그는 \"\"좋다\"\"고 했다\"\n2,\"둘\n줄\"\n",
    );
    let jsonl = folder.file(
        "a.jsonl.gz",
        gzip("{\"text\":\"그는 \\\"좋다\\\"고 했다\",\"n\":1}\n{\"text\":\"둘\"}\n".as_bytes()),
    );
    for path in [&tsv, &csv, &jsonl] {
        let options = RowOptions {
            columns: vec!["text".into()],
            ..RowOptions::default()
        };
        let rows: Vec<_> = RowReader::open(path, &options)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(rows.len(), 2, "{}", path.display());
        assert_eq!(rows[0].get("text"), Some("그는 \"좋다\"고 했다"));
        assert!(rows[1].get("text").unwrap().starts_with('둘'));
        let texts = read(path, &CorpusOptions::default()).unwrap();
        assert_eq!(texts[0], ["그는 \"좋다\"고 했다"]);
    }
    let wrong = RowOptions {
        columns: vec!["label".into()],
        ..RowOptions::default()
    };
    for path in [&tsv, &csv] {
        match RowReader::open(path, &wrong).err() {
            Some(TextError::NoColumn { column, found, .. }) => {
                assert_eq!((column.as_str(), found.len()), ("label", 2));
            }
            other => panic!("{other:?}"),
        }
    }
    let lines = folder.file("wrong.jsonl", "{\"label\":1}\n{\"text\":\"a\"}\n");
    let mut rows = RowReader::open(&lines, &wrong).unwrap();
    assert!(rows.next_row().is_ok());
    let message = rows.next_row().unwrap_err().to_string();
    assert!(
        message.ends_with("wrong.jsonl: line 2: no column \"label\"; the row has: text"),
        "{message}"
    );
    let plain = folder.file("rows.txt", "a\n");
    let message = RowReader::open(&plain, &wrong).err().unwrap().to_string();
    assert!(
        message.contains("rows.txt: unknown kind of table"),
        "{message}"
    );
    let first = |name: &str, text: &str| {
        let path = folder.file(name, text);
        let mut rows = RowReader::open(&path, &RowOptions::default())?;
        while rows.next_row()?.is_some() {}
        Ok::<(), TextError>(())
    };
    for (name, text, line) in [
        ("b.tsv", "a\tb\n1\t2\n1\t2\t3\n", 3),
        ("b.csv", "a,b\n1,2\n1,2,3\n", 3),
        ("b.jsonl", "{\"a\":1}\n[1]\n", 2),
        ("c.jsonl", "{\"a\":1}\n{\"a\":\n", 2),
        ("c.tsv", "", 1),
    ] {
        match first(name, text).unwrap_err() {
            TextError::BadRow { line: at, .. } => assert_eq!(at, line, "{name}"),
            other => panic!("{name}: {other}"),
        }
    }
}

fn tokenizer() -> Tokenizer {
    let lines = [
        "영화가 정말 좋았다",
        "음악이 정말 좋았다",
        "the film was good",
    ];
    train_from_iter(
        lines.iter().map(|line| Ok((*line).to_owned())),
        &TrainOptions::new(Algorithm::Bpe, 280),
        &mut |_| {},
    )
    .unwrap()
    .tokenizer
}

#[test]
fn a_tokenised_corpus_gives_the_text_back() {
    let folder = Folder::new();
    let mut text = String::new();
    for document in 0..2_500 {
        for sentence in 0..document % 4 + 1 {
            text.push_str(&format!("문서 {document}의 {sentence}번 문장\n"));
        }
        text.push('\n');
    }
    let source = folder.file("corpus.txt", &text);
    let tokenizer = tokenizer();
    let target = folder.0.path().join("corpus.tokens");
    let build = |threads: usize, target: &Path| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            build_token_corpus(
                std::slice::from_ref(&source),
                target,
                &tokenizer,
                &BuildOptions::default(),
                &mut |_| {},
            )
        })
        .unwrap()
    };
    let totals = build(1, &target);
    assert_eq!(
        folder.names(),
        ["corpus.tokens", "corpus.txt"],
        "no temporary file stays"
    );
    let other = folder.0.path().join("other.tokens");
    build(3, &other);
    assert!(std::fs::read(&target).unwrap() == std::fs::read(&other).unwrap());

    let corpus = TokenCorpus::open(&target, Some(tokenizer.vocabulary_hash())).unwrap();
    corpus.check_tokens().unwrap();
    assert_eq!(corpus.totals(), totals);
    assert_eq!((corpus.len(), totals.documents), (2_500, 2_500));
    assert_eq!(totals.sentences, 2_500 / 4 * 10);
    for document in [0, 1, 7, 1_023, 1_024, 2_499] {
        let sentences = corpus.document_sentences(document);
        assert_eq!(sentences.len(), document % 4 + 1);
        let mut whole = Vec::new();
        for (index, sentence) in sentences.enumerate() {
            let ids = corpus.sentence(sentence).to_vec();
            let decoded = tokenizer.decode(&ids, false).unwrap();
            assert_eq!(decoded, format!("문서 {document}의 {index}번 문장"));
            whole.extend(ids);
        }
        assert_eq!(corpus.document(document).to_vec(), whole);
        assert_eq!(corpus.document(document).iter().collect::<Vec<_>>(), whole);
    }
    assert_eq!(corpus.tokens(0..totals.tokens).len() as u64, totals.tokens);
}

#[test]
fn wide_vocabularies_take_four_bytes() {
    let folder = Folder::new();
    let path = folder.0.path().join("wide");
    let mut builder = CorpusBuilder::create(&path, 70_000, 7).unwrap();
    builder.sentence(&[1, 69_999, 65_536]).unwrap();
    builder.sentence(&[]).unwrap();
    builder.end_document().unwrap();
    builder.end_document().unwrap();
    builder.sentence(&[5]).unwrap();
    let totals = builder.finish().unwrap();
    assert_eq!(
        (totals.tokens, totals.sentences, totals.documents),
        (4, 2, 2)
    );
    let corpus = TokenCorpus::open(&path, None).unwrap();
    assert_eq!(corpus.document(0).to_vec(), [1, 69_999, 65_536]);
    assert_eq!(corpus.document(1).get(0), Some(5));
    assert_eq!(corpus.document(1).get(1), None);
    let mut builder = CorpusBuilder::create(&folder.0.path().join("x"), 10, 7).unwrap();
    assert!(builder.sentence(&[10]).is_err());
    drop(builder);
    let empty = CorpusBuilder::create(&folder.0.path().join("x"), 10, 7)
        .unwrap()
        .finish();
    assert!(matches!(empty, Err(TextError::EmptyCorpus(_))));
    assert_eq!(folder.names(), ["wide"]);
}

#[test]
fn damaged_corpora_are_refused() {
    let folder = Folder::new();
    let path = folder.0.path().join("good");
    let mut builder = CorpusBuilder::create(&path, 100, 42).unwrap();
    for document in 0..5_u32 {
        builder.sentence(&[document, document + 1, 3]).unwrap();
        builder.sentence(&[9]).unwrap();
        builder.end_document().unwrap();
    }
    builder.finish().unwrap();
    let good = std::fs::read(&path).unwrap();
    let open = |bytes: &[u8]| {
        let path = folder.file("bad", bytes);
        match TokenCorpus::open(&path, Some(42)) {
            Ok(_) => None,
            Err(TextError::BadCorpus { problem, .. }) => Some(problem),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(open(&good), None);
    assert_eq!(open(b""), Some(CorpusProblem::NotACorpus));
    assert_eq!(
        open(b"MALMOIC\0"),
        Some(CorpusProblem::Size {
            expected: 64,
            found: 8
        })
    );
    let size = good.len() as u64;
    assert_eq!(
        open(&good[..good.len() - 1]),
        Some(CorpusProblem::Size {
            expected: size,
            found: size - 1
        })
    );
    let mut version = good.clone();
    version[8] = 9;
    assert_eq!(
        open(&version),
        Some(CorpusProblem::Version {
            found: 9,
            expected: 1
        })
    );
    for at in 12..64 {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        assert!(
            matches!(open(&bytes), Some(CorpusProblem::Damaged(_))),
            "byte {at}"
        );
    }
    // A damaged index: the last eight bytes are the end of the last document.
    let mut index = good.clone();
    index[good.len() - 8] = 200;
    assert!(matches!(open(&index), Some(CorpusProblem::Damaged(_))));
    let other = TokenCorpus::open(&path, Some(43));
    assert!(matches!(
        other,
        Err(TextError::BadCorpus {
            problem: CorpusProblem::Vocabulary {
                found: 42,
                expected: 43
            },
            ..
        })
    ));
}

#[test]
fn an_error_in_the_text_leaves_no_corpus_behind() {
    let folder = Folder::new();
    let source = folder.file("bad.txt", b"fine\n\xff\n");
    let target = folder.0.path().join("corpus");
    let outcome = build_token_corpus(
        &[source],
        &target,
        &tokenizer(),
        &BuildOptions::default(),
        &mut |_| {},
    );
    assert!(matches!(
        outcome,
        Err(TextError::InvalidEncoding { line: 2, .. })
    ));
    assert_eq!(folder.names(), ["bad.txt"]);
}
