//! Trains one tokenizer of each kind and writes, beside it, how texts are encoded; `golden/check_tokenizers.py` compares
//! that with Python.
//!
//! ```sh
//! cargo run --release -p malmoi-text --example train_all -- OUT data/ko_corpus_reviews/train.txt.gz
//! python golden/check_tokenizers.py OUT/*
//! ```

use std::io::Write;
use std::path::PathBuf;

use malmoi_text::{
    Algorithm, CorpusOptions, EncodeOptions, HangulSafe, Layout, LineReader, ReadOptions,
    TrainOptions, train,
};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [out, text] = arguments.as_slice() else {
        return Err("usage: train_all OUT TEXT".into());
    };
    let accents = HangulSafe {
        lowercase: true,
        strip_accents: true,
        ..HangulSafe::default()
    };
    let size = |algorithm, vocab_size| TrainOptions::new(algorithm, vocab_size);
    let kinds = [
        ("wordpiece", size(Algorithm::WordPiece, 8_000)),
        (
            "wordpiece-uncased",
            TrainOptions {
                normalizer: Some(accents),
                ..size(Algorithm::WordPiece, 4_000)
            },
        ),
        ("bpe", size(Algorithm::Bpe, 8_000)),
        ("unigram", size(Algorithm::Unigram, 8_000)),
        (
            "unigram-bytes",
            TrainOptions {
                byte_fallback: true,
                layout: Some(Layout::Bert),
                ..size(Algorithm::Unigram, 6_000)
            },
        ),
        (
            "char",
            TrainOptions {
                layout: Some(Layout::Gpt),
                ..size(Algorithm::Char, 8_000)
            },
        ),
    ];
    let mut texts: Vec<String> = [
        "",
        " ",
        "안녕하세요, 반갑습니다!",
        "ㅋㅋㅋ 진짜 ㅠㅠ 대박",
        "Café ÀÉ naïve İstanbul",
        "🙂🎉 좋아요 👩‍👩‍👧",
        "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8} 영화",
        "e\u{301}\u{323} o\u{308}",
        "  앞뒤   공백  ",
        "tab\tand\nnewline",
        "漢字와 한글, 3.14% [MASK] <|endoftext|> </s>",
        "ＡＢＣ ﬁ ½",
        "\u{a0}\u{3000}\u{200b}폭",
        "쀍뷁 힣",
        "supercalifragilistic",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut lines = LineReader::open(text, &ReadOptions::default())?;
    while let Some(line) = lines.next_line()? {
        if lines_wanted(&texts) {
            texts.push(line.to_owned());
        } else {
            break;
        }
    }
    for (name, options) in kinds {
        let started = std::time::Instant::now();
        let mut stage = "";
        let trained = train(
            std::slice::from_ref(text),
            &CorpusOptions::default(),
            &options,
            &mut |progress| {
                if progress.stage != stage {
                    stage = progress.stage;
                    eprintln!("  {:.1} s {stage}", started.elapsed().as_secs_f64());
                }
            },
        )?;
        eprintln!(
            "{name}: {:.1} s, {:?}",
            started.elapsed().as_secs_f64(),
            trained.report
        );
        let dir = out.join(name);
        std::fs::create_dir_all(&dir)?;
        trained.tokenizer.save(&dir, Some(512))?;
        let mut file = std::fs::File::create(dir.join("encodings.jsonl"))?;
        for text in &texts {
            let encoding = trained
                .tokenizer
                .encode(text, None, &EncodeOptions::default())?;
            let decoded = trained.tokenizer.decode(&encoding.ids, true)?;
            let line = json!({"text": text, "ids": encoding.ids, "offsets": encoding.offsets, "decoded": decoded});
            writeln!(file, "{line}")?;
        }
    }
    Ok(())
}

fn lines_wanted(texts: &[String]) -> bool {
    texts.len() < 2_000
}
