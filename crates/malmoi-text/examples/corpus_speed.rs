//! Tokenises text files with a saved tokenizer and says how fast.
//!
//! ```sh
//! cargo run --release -p malmoi-text --example corpus_speed -- TOKENIZER TEXT...
//! ```

use std::path::PathBuf;

use malmoi_text::{BuildOptions, TokenCorpus, Tokenizer, build_token_corpus};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let tokenizer = Tokenizer::load(
        arguments
            .next()
            .ok_or("usage: corpus_speed TOKENIZER TEXT...")?,
    )?;
    let texts: Vec<PathBuf> = arguments.collect();
    let target = std::env::temp_dir().join(format!("malmoi-corpus-{}", std::process::id()));
    let started = std::time::Instant::now();
    let totals = build_token_corpus(
        &texts,
        &target,
        &tokenizer,
        &BuildOptions::default(),
        &mut |_| {},
    )?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{totals:?}, {seconds:.2} s, {:.2} M tokens/s",
        totals.tokens as f64 / seconds / 1e6
    );
    let started = std::time::Instant::now();
    let corpus = TokenCorpus::open(&target, Some(tokenizer.vocabulary_hash()))?;
    println!("opened in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let started = std::time::Instant::now();
    let sum: u64 = corpus.tokens(0..totals.tokens).iter().map(u64::from).sum();
    println!(
        "read in {:.1} ms (sum {sum})",
        started.elapsed().as_secs_f64() * 1e3
    );
    std::fs::remove_file(&target)?;
    Ok(())
}
