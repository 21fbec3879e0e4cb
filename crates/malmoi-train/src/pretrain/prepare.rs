//! Tokenizer and tokenised text of a run, made once and kept in its directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use malmoi_models::{Head, Mode, Model, ModelConfig};
use malmoi_text::{
    BuildOptions, CorpusOptions, DocumentMode, ReadOptions, TokenCorpus, Tokenizer,
    build_token_corpus,
};

use super::card::card;
use super::evaluate::evaluate;
use super::{setup, tokenizer};
use crate::config::{Documents, Objective, OneOrMany, PretrainConfig};
use crate::data::{Corpus, Examples};
use crate::error::TrainError;
use crate::files::{TOKENIZER, checksum, files_in, save_tokenizer};
use crate::training::{DataIdentity, Evaluation, Event, Judge, Observer, TrainerState, Work};

/// Directory of tokenised text in a run directory.
const CORPUS: &str = "corpus";

/// What a run reads and trains.
pub(super) struct Prepared {
    pub(super) tokenizer: Tokenizer,
    pub(super) train: Box<dyn Examples>,
    config: PretrainConfig,
    model: ModelConfig,
    valid: Option<Box<dyn Examples>>,
    train_tokens: u64,
    valid_tokens: Option<u64>,
    identity: DataIdentity,
    /// Where the tokenizer's files are.
    tokenizer_dir: PathBuf,
}

impl Work for Prepared {
    fn examples(&self) -> &dyn Examples {
        &*self.train
    }

    fn tokens(&self) -> (u64, Option<u64>) {
        (self.train_tokens, self.valid_tokens)
    }

    fn identity(&self) -> DataIdentity {
        self.identity.clone()
    }

    fn start(&self) -> Result<Model, TrainError> {
        let (model, seed) = (self.model.clone(), self.config.seed);
        Ok(Model::initialise(model, self.head(), seed, Mode::Training))
    }

    fn head(&self) -> Head {
        setup::head(&self.config.objective)
    }

    fn evaluate(&self, model: &Model) -> Result<Evaluation, TrainError> {
        let valid = self.valid.as_ref().ok_or_else(|| TrainError::Corpus {
            corpus: "data.valid".into(),
            problem: "no validation text to measure on; name a file".into(),
        })?;
        let (size, batches) = (self.config.train.batch_size, self.config.evaluate.batches);
        evaluate(model, &**valid, size, batches)
    }

    fn intervals(&self) -> (u64, u64) {
        (self.config.evaluate.every, self.config.checkpoint.every)
    }

    fn judge(&self) -> Judge {
        Judge::loss()
    }

    fn files(&self) -> Result<Vec<(String, PathBuf)>, TrainError> {
        files_in(&self.tokenizer_dir)
    }

    fn card(&self, model: &Model, state: &TrainerState) -> String {
        card(model, state)
    }
}

/// Makes or finds the tokenizer and the tokenised text in `out`.
pub(super) fn prepare(
    config: &PretrainConfig,
    out: &Path,
    observer: &mut dyn Observer,
) -> Result<Prepared, TrainError> {
    let train_files = setup::files(&config.data, &config.data.train);
    let valid_files = config
        .data
        .valid
        .as_ref()
        .map(|list| setup::files(&config.data, list));
    for file in train_files.iter().chain(valid_files.iter().flatten()) {
        // Said before an hour of tokenizer training, not after it.
        fs::metadata(file).map_err(|e| TrainError::io("read", file, e))?;
    }
    let corpus_options = corpus_options(config);
    let tokenizer_dir = out.join(TOKENIZER);
    let tokenizer = match (&config.tokenizer.path, &config.tokenizer.train) {
        (Some(path), _) => Tokenizer::load(path)?,
        (None, Some(_)) if tokenizer_dir.is_dir() => Tokenizer::load(&tokenizer_dir)?,
        (None, train) => {
            let Some(train) = train else {
                unreachable!("validated: a path or a training")
            };
            tokenizer::train(
                train,
                &config.objective,
                &train_files,
                &corpus_options,
                observer,
            )?
        }
    };
    let model = setup::model_config(config, &tokenizer)?;
    if !tokenizer_dir.is_dir() {
        save_tokenizer(&tokenizer, &tokenizer_dir, model.max_len())?;
    }
    let options = BuildOptions {
        corpus: corpus_options,
        keep_line_breaks: matches!(config.objective, Objective::Clm(_)),
    };
    let (train, train_name) = corpus(
        "train",
        &config.data.train,
        config,
        &options,
        &tokenizer,
        out,
        observer,
    )?;
    let train_tokens = train.0.totals().tokens;
    let length = setup::sequence_length(&config.objective, model.max_len())?;
    let examples =
        |corpus, name| setup::examples(config, &tokenizer, Arc::new(corpus), name, length);
    let train = examples(train, "the training text")?;
    let (mut valid, mut valid_name, mut valid_tokens) = (None, None, None);
    if let Some(list) = &config.data.valid {
        let (corpus, name) = corpus("valid", list, config, &options, &tokenizer, out, observer)?;
        valid_tokens = Some(corpus.0.totals().tokens);
        valid = Some(examples(corpus, "the validation text")?);
        valid_name = Some(name);
    }
    let identity = DataIdentity {
        train: train_name,
        valid: valid_name,
        vocabulary: format!("{:016x}", tokenizer.vocabulary_hash()),
    };
    Ok(Prepared {
        config: config.clone(),
        tokenizer,
        model,
        train,
        valid,
        train_tokens,
        valid_tokens,
        identity,
        tokenizer_dir,
    })
}

/// How the text is read.
fn corpus_options(config: &PretrainConfig) -> CorpusOptions {
    CorpusOptions {
        mode: match config.data.documents {
            Documents::Auto => DocumentMode::Auto,
            Documents::Line => DocumentMode::Lines,
            Documents::BlankLine => DocumentMode::Paragraphs,
            Documents::File => DocumentMode::File,
        },
        field: config.data.column.clone(),
        split_sentences: config.data.split_sentences,
        read: ReadOptions {
            encoding: Some(config.data.encoding.clone()),
            ..ReadOptions::default()
        },
    }
}

/// The tokenised text of some files and the name it is known by. It is made once; its file name holds checksums of the text and
/// of the vocabulary, so that other text is never taken for it.
fn corpus(
    role: &str,
    list: &OneOrMany,
    config: &PretrainConfig,
    options: &BuildOptions,
    tokenizer: &Tokenizer,
    out: &Path,
    observer: &mut dyn Observer,
) -> Result<(Corpus, String), TrainError> {
    let files = setup::files(&config.data, list);
    let name = checksum(&files)?;
    let dir = out.join(CORPUS);
    fs::create_dir_all(&dir).map_err(|e| TrainError::io("create", &dir, e))?;
    let hash = tokenizer.vocabulary_hash();
    let path = dir.join(format!("{role}-{name}-{hash:016x}.tokens"));
    if !path.is_file() {
        let names: Vec<String> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        observer.event(&Event::Preparing(&format!(
            "tokenizing {}",
            names.join(", ")
        )));
        build_token_corpus(&files, &path, tokenizer, options, &mut |_| ())?;
    }
    Ok((Corpus(TokenCorpus::open(&path, Some(hash))?), name))
}
