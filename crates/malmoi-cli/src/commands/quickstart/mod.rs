//! `malmoi quickstart`: from raw text to a working BERT and GPT.

mod recipe;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use malmoi_infer::Pipeline;
use malmoi_infer::generate::{Flow, GenerateOptions};
use malmoi_infer::sampling::SamplingSettings;
use malmoi_text::{
    Algorithm, CorpusOptions, DocumentMode, Tokenizer, TrainOptions, documents, train,
};

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::{output, progress};
use recipe::Recipe;

/// Tokens of the Korean tokenizer.
const WORDPIECE_TOKENS: usize = 4000;
/// Tokens of the tokenizer of both languages.
const BPE_TOKENS: usize = 5000;
/// The corpora, as folders of the data directory.
const KOREAN: &str = "ko_corpus_reviews";
const ENGLISH: &str = "en_corpus_shakespeare";
/// Lines of the validation text on which masked accuracy is measured; about 3,000 hidden tokens.
const MEASURED_LINES: usize = 1200;

/// Train tokenizers, a small BERT and a small GPT from scratch, and use them
#[derive(Args, Debug)]
#[command(
    after_help = "Needs no network: the text comes with the repository. Takes at most four minutes on two cores.\nWrites complete model folders DIR/bert and DIR/gpt, and the runs that made them.\n\nExample:\n  malmoi quickstart --out malmoi-quickstart"
)]
pub struct Quickstart {
    /// Folder to write
    #[arg(long, value_name = "DIR", default_value = "malmoi-quickstart")]
    out: PathBuf,
    /// Folder with the bundled texts (default: data/ of the repository around the working folder)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// The folder with the bundled texts: the one given, or `data` in the working folder, around it, or around the program.
pub fn find_data(given: Option<&Path>) -> Option<PathBuf> {
    let complete = |dir: &Path| dir.join(KOREAN).is_dir() && dir.join(ENGLISH).is_dir();
    if let Some(dir) = given {
        return complete(dir).then(|| dir.to_path_buf());
    }
    let places = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let around = places
        .iter()
        .flatten()
        .flat_map(|place| place.ancestors().map(|dir| dir.join("data")));
    around.into_iter().find(|dir| complete(dir))
}

impl Quickstart {
    pub fn run(self, global: &Global) -> Result<()> {
        let started = Instant::now();
        let Some(data) = find_data(self.data.as_deref()) else {
            let place = self
                .data
                .as_ref()
                .map_or("no data folder around the working folder".into(), |dir| {
                    dir.display().to_string()
                });
            return Err(Failure::input(format!(
                "{place}: expected a folder that holds {KOREAN}/ and {ENGLISH}/; run inside a clone of the repository, or pass --data DIR"
            )));
        };
        recipe::prepare_out(&self.out)?;
        output::line(format!(
            "Text: {} (Korean film reviews, Shakespeare). Results: {}. Random draws come from fixed seeds.\n",
            data.display(),
            self.out.display()
        ))?;

        output::line("1. A tokenizer each")?;
        let korean = data.join(KOREAN).join("train.txt.gz");
        let english = data.join(ENGLISH).join("train.txt");
        let wordpiece = self.tokenizer(
            global,
            "WordPiece, Korean",
            &TrainOptions::new(Algorithm::WordPiece, WORDPIECE_TOKENS),
            std::slice::from_ref(&korean),
            "bert",
        )?;
        show_tokens(&wordpiece, "배우들의 연기가 정말 훌륭했다ㅋㅋ")?;
        let bpe = self.tokenizer(
            global,
            "byte-level BPE, Korean and English",
            &TrainOptions::new(Algorithm::Bpe, BPE_TOKENS),
            &[korean, english],
            "gpt",
        )?;
        show_tokens(&bpe, "정말 재미있는 영화")?;
        show_tokens(&bpe, "Good morrow, my lord.")?;

        output::line("\n2. A small BERT, from scratch: predicts hidden words")?;
        let bert = Recipe::bert(&data, &self.out).train(global)?;
        use_bert(&bert, &data)?;

        output::line("\n3. A small GPT, from scratch: predicts the next piece")?;
        let gpt = Recipe::gpt(&data, &self.out).train(global)?;
        use_gpt(&gpt)?;

        let out = self.out.display();
        output::line(format!(
            "\nDone in {:.0} s. Complete model folders, which Python's from_pretrained loads as well:\n  {out}/bert\n  {out}/gpt\n\nNext (malmoi is `cargo run --release --` in the repository):\n  \
             malmoi fill-mask --model {out}/bert --prompt \"배우들의 [MASK] 정말 좋았다.\"\n  \
             malmoi generate --model {out}/gpt --prompt \"이 영화는\" --temperature 0.8 --top-k 50 --seed 2\n  \
             malmoi embed --model {out}/bert --prompt \"최고의 영화\" --prompt \"정말 재미있다\"\n  \
             malmoi tokenizer inspect --tokenizer {out}/bert {}\n  \
             malmoi pretrain configs/bert-korean-small.toml      a larger BERT, your own settings",
            started.elapsed().as_secs_f64(),
            data.join(KOREAN).join("valid.txt.gz").display()
        ))
    }

    /// Trains a tokenizer and writes it where the run will look for it.
    fn tokenizer(
        &self,
        global: &Global,
        what: &str,
        options: &TrainOptions,
        files: &[PathBuf],
        name: &str,
    ) -> Result<Tokenizer> {
        let started = Instant::now();
        let spinner = progress::spinner(global.quiet, what);
        if !progress::visible(global.quiet) {
            progress::remark(global.quiet, format!("training a tokenizer: {what}"));
        }
        let trained = train(files, &CorpusOptions::default(), options, &mut |p| {
            spinner.set_message(format!(
                "{what}: {} {}",
                p.stage,
                output::thousands(p.done as usize)
            ));
        })?;
        spinner.finish_and_clear();
        let dir = recipe::tokenizer_dir(&self.out, name);
        std::fs::create_dir_all(&dir).map_err(|error| Failure::io(&dir, &error))?;
        trained.tokenizer.save(&dir, None)?;
        output::line(format!(
            "   {what}: {} tokens from {} words, {:.1} s",
            output::thousands(trained.report.vocab_size),
            output::thousands(trained.report.counts.words as usize),
            started.elapsed().as_secs_f64()
        ))?;
        Ok(trained.tokenizer)
    }
}

/// A text with its tokens apart, as readable text.
fn show_tokens(tokenizer: &Tokenizer, text: &str) -> Result<()> {
    let encoding = tokenizer.encode(text, None, &malmoi_text::EncodeOptions::plain())?;
    let pieces: Vec<&str> = encoding
        .byte_offsets
        .iter()
        .filter_map(|&(start, end)| text.get(start..end))
        .collect();
    output::line(format!("     {text}  →  {}", pieces.join("│")))
}

/// Fills a blank and measures masked accuracy.
fn use_bert(bert: &Pipeline, data: &Path) -> Result<()> {
    let text = "이 영화는 정말 [MASK].";
    output::line(format!("\n   {text}"))?;
    let blanks = bert.fill_mask(&[text], 5)?;
    let row = |f: &malmoi_infer::pipeline::Filling| {
        vec![
            String::new(),
            format!("{:.1} %", 100.0 * f.probability),
            f.word.clone(),
            f.text.clone(),
        ]
    };
    output::table("lrll", &blanks[0][0].iter().map(row).collect::<Vec<_>>())?;
    let options = CorpusOptions {
        mode: DocumentMode::Lines,
        ..CorpusOptions::default()
    };
    let mut lines = Vec::new();
    for document in
        documents(&[data.join(KOREAN).join("valid.txt.gz")], &options).take(MEASURED_LINES)
    {
        lines.extend(document?.sentences);
    }
    let borrowed: Vec<&str> = lines.iter().map(String::as_str).collect();
    let found = bert.masked_accuracy(&borrowed, 1)?;
    output::line(format!(
        "\n   masked accuracy on unseen reviews: {:.1} % of {} hidden tokens; always the most frequent token: {:.1} % ({:.2} times as many)",
        100.0 * found.accuracy,
        output::thousands(found.hidden),
        100.0 * found.most_frequent,
        found.accuracy / found.most_frequent
    ))
}

/// Writes a few lines in both languages.
fn use_gpt(gpt: &Pipeline) -> Result<()> {
    for (prompt, tokens, stop) in [
        ("이 영화는", 60, Some("\n")),
        ("배우들의 연기", 60, Some("\n")),
        ("KING RICHARD III:\n", 80, None),
    ] {
        let sampling = SamplingSettings {
            do_sample: true,
            temperature: Some(0.7),
            top_k: Some(40),
            repetition_penalty: Some(1.1),
            // A speech may end after two words; a few lines show more.
            min_new_tokens: stop.is_none().then_some(40),
            ..Default::default()
        };
        let options = GenerateOptions {
            max_new_tokens: tokens,
            end_ids: gpt.end_ids().to_vec(),
            sampling,
            seed: 3,
            log_probabilities: false,
        };
        let stop: Vec<String> = stop.into_iter().map(str::to_owned).collect();
        output::piece(&format!("\n   {}", indented(prompt)))?;
        let mut failed = None;
        gpt.generate(
            &[gpt.prompt_ids(prompt, 0)?],
            &options,
            &stop,
            &mut |_, text| match output::piece(&indented(text)) {
                Ok(()) => Flow::Continue,
                Err(failure) => {
                    failed = Some(failure);
                    Flow::Cancel
                }
            },
        )?;
        if let Some(failure) = failed {
            return Err(failure);
        }
        output::line("")?;
    }
    Ok(())
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n   ")
}
