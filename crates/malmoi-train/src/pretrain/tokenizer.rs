//! Training the tokenizer of a run.

use std::path::{Path, PathBuf};

use malmoi_text::{Algorithm, HangulSafe, Layout, Tokenizer, TrainOptions, train_from_iter};

use super::corpus::Source;

use crate::config::{Objective, TokenizerKind, TrainTokenizer};
use crate::data::sentinel;
use crate::error::{ConfigProblem, TrainError};
use crate::training::{Event, Observer};

/// Sentinels of a tokenizer for span corruption, as published (Raffel et al. 2020).
const SENTINELS: usize = 100;

/// Trains a tokenizer on the training text, with the special tokens that the objective needs.
pub(super) fn train(
    section: &TrainTokenizer,
    objective: &Objective,
    sources: &[Source],
    observer: &mut dyn Observer,
) -> Result<Tokenizer, TrainError> {
    let (algorithm, least) = match section.kind {
        TokenizerKind::Wordpiece => (Algorithm::WordPiece, 2),
        TokenizerKind::Bpe => (Algorithm::Bpe, 2),
        TokenizerKind::Unigram => (Algorithm::Unigram, 2),
        TokenizerKind::Char => (Algorithm::Char, 1),
    };
    let options = TrainOptions {
        // Character vocabularies have the size that the text gives; the number given is checked below.
        vocab_size: match section.kind {
            TokenizerKind::Char => usize::MAX >> 33,
            _ => section.vocab_size.unwrap_or_default(),
        },
        min_frequency: section.min_frequency.unwrap_or(least),
        layout: Some(match (objective, section.kind) {
            (Objective::Mlm(_) | Objective::Rtd(_) | Objective::Tlm(_), _) => Layout::Bert,
            (Objective::Clm(_), TokenizerKind::Char) => Layout::None,
            (Objective::Clm(_), _) => Layout::Gpt,
            (Objective::SpanCorruption(_) | Objective::Text2text(_), _) => Layout::T5,
            (Objective::Denoising(_), _) => Layout::Bart,
        }),
        extra_special: match objective {
            // The first sentinel has the largest id.
            Objective::SpanCorruption(_) => (0..SENTINELS).rev().map(sentinel).collect(),
            _ => Vec::new(),
        },
        normalizer: section.lowercase.then(|| HangulSafe {
            lowercase: true,
            ..HangulSafe::default()
        }),
        ..TrainOptions::new(algorithm, 0)
    };
    let mut stage = "";
    // Line ends are characters that a causal model sees.
    let whole = section.kind == TokenizerKind::Char && matches!(objective, Objective::Clm(_));
    let sources: Vec<Source> = sources
        .iter()
        .map(|source| match whole {
            true => source.clone().with_whole_files(),
            false => source.clone(),
        })
        .collect();
    let texts = sources.iter().flat_map(Source::texts);
    let trained = train_from_iter(texts, &options, &mut |progress| {
        if progress.stage != stage {
            stage = progress.stage;
            observer.event(&Event::Preparing(&format!(
                "training the tokenizer: {stage}"
            )));
        }
    })?;
    let found = trained.tokenizer.vocab_size();
    match (section.kind, section.vocab_size) {
        (TokenizerKind::Char, Some(size)) if size != found => Err(ConfigProblem::new(
            "tokenizer.train.vocab_size",
            format!("{found}, the number of characters of the training text and of special tokens"),
            size,
            "correct it, or leave it out",
        )
        .into()),
        _ => Ok(trained.tokenizer),
    }
}

/// A directory that is removed when it goes out of scope.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a new one in the system's temporary directory.
    pub(super) fn new(purpose: &str) -> Result<Self, TrainError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("malmoi-{purpose}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| TrainError::io("create", &path, e))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed stays in the temporary directory, which the system cleans.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
