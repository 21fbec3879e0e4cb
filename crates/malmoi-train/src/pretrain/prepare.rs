//! Tokenizer and tokenised text of a run, made once and kept in its directory.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use malmoi_models::ModelConfig;
use malmoi_text::{
    BuildOptions, CorpusOptions, DocumentMode, ReadOptions, TokenCorpus, Tokenizer,
    build_token_corpus,
};

use super::event::{Event, Observer};
use super::state::DataIdentity;
use super::{setup, tokenizer};
use crate::config::{Documents, Objective, OneOrMany, PretrainConfig};
use crate::data::{Corpus, Examples};
use crate::error::TrainError;

/// Directory of the tokenizer in a run directory.
const TOKENIZER: &str = "tokenizer";
/// Directory of tokenised text in a run directory.
const CORPUS: &str = "corpus";

/// What a run reads.
pub(super) struct Prepared {
    pub(super) tokenizer: Tokenizer,
    pub(super) model: ModelConfig,
    pub(super) train: Box<dyn Examples>,
    pub(super) valid: Option<Box<dyn Examples>>,
    pub(super) train_tokens: u64,
    pub(super) valid_tokens: Option<u64>,
    identity: DataIdentity,
    /// Where the tokenizer's files are.
    tokenizer_dir: PathBuf,
}

impl Prepared {
    /// What the data is known by.
    pub(super) fn identity(&self) -> DataIdentity {
        self.identity.clone()
    }

    /// Name and path of the tokenizer's files, which go into every checkpoint.
    pub(super) fn tokenizer_files(&self) -> Result<Vec<(String, PathBuf)>, TrainError> {
        let dir = &self.tokenizer_dir;
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(|e| TrainError::io("list", dir, e))? {
            let entry = entry.map_err(|e| TrainError::io("list", dir, e))?;
            files.push((
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            ));
        }
        files.sort();
        Ok(files)
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

/// Writes the tokenizer under a temporary name, so that the directory is complete or absent.
fn save_tokenizer(tokenizer: &Tokenizer, dir: &Path, max_len: usize) -> Result<(), TrainError> {
    let temporary = dir.with_file_name(format!(".tmp-{TOKENIZER}"));
    if temporary.is_dir() {
        fs::remove_dir_all(&temporary).map_err(|e| TrainError::io("remove", &temporary, e))?;
    }
    fs::create_dir_all(&temporary).map_err(|e| TrainError::io("create", &temporary, e))?;
    tokenizer.save(&temporary, Some(max_len))?;
    fs::rename(&temporary, dir).map_err(|e| TrainError::io("rename into", dir, e))
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

/// CRC-32C and length of the content of some files, one after another.
fn checksum(files: &[PathBuf]) -> Result<String, TrainError> {
    let (mut sum, mut length) = (0, 0_u64);
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let mut file = fs::File::open(path).map_err(|e| TrainError::io("open", path, e))?;
        loop {
            match file
                .read(&mut buffer)
                .map_err(|e| TrainError::io("read", path, e))?
            {
                0 => break,
                n => {
                    sum = crc32c::crc32c_append(sum, &buffer[..n]);
                    length += n as u64;
                }
            }
        }
    }
    Ok(format!("{sum:08x}-{length}"))
}
