//! Tokenizer and examples of a run, made once and kept in its directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use malmoi_models::{Head, Mode, Model, ModelConfig, OpenOptions, ParameterInfo};
use malmoi_text::Tokenizer;

use super::card::card;
use super::corpus::{self, Role, Source};
use super::evaluate::evaluate;
use super::{objective, setup, tokenizer};
use crate::config::{Objective, PretrainConfig};
use crate::data::Examples;
use crate::error::TrainError;
use crate::files::{TOKENIZER, files_in, save_tokenizer};
use crate::finetune::{open_with, with_dropout};
use crate::training::{
    Adapters, DataIdentity, Evaluation, Judge, Observer, TrainerState, Tuning, Work,
};

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
        let Some(path) = &self.config.model.path else {
            return Ok(Model::initialise(model, self.head(), seed, Mode::Training));
        };
        let (opened, _) = self.opened(path)?;
        Ok(match self.config.train.dropout {
            Some(rate) => with_dropout(opened, rate, Mode::Training),
            None => opened,
        })
    }

    fn tuning(&self, model: &Model, checkpoint: Option<&Path>) -> Result<Tuning, TrainError> {
        let (Some(lora), Some(path)) = (&self.config.tune.lora, &self.config.model.path) else {
            return Ok(Tuning::default());
        };
        let task_type = match model.head() {
            Head::CausalLm => Some("CAUSAL_LM"),
            Head::Seq2SeqLm => Some("SEQ_2_SEQ_LM"),
            _ => None,
        };
        // An adapter adds to the weights that the run started from, also when it goes on from a checkpoint.
        let (start, new) = self.opened(path)?;
        let names = start.name_table();
        let whole = |info: &ParameterInfo| new.contains(&names.place(info).name);
        let options = lora.options(self.config.seed, path, task_type);
        let adapters = Adapters::new(&start, options, whole)?.resumed(checkpoint)?;
        let frozen = model.parameters().into_iter().filter(|info| !whole(info));
        Ok(Tuning {
            factors: frozen.map(|info| (info.name, 0.0)).collect(),
            adapters: Some(adapters),
        })
    }

    fn head(&self) -> Head {
        objective::head(&self.config.objective)
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
        match self.config.objective {
            // The better the generator, the harder it is to find what it put in: the discriminator's loss rises while both learn.
            Objective::Rtd(_) => Judge {
                metric: "token_loss".into(),
                higher: false,
            },
            _ => Judge::loss(),
        }
    }

    fn files(&self) -> Result<Vec<(String, PathBuf)>, TrainError> {
        files_in(&self.tokenizer_dir)
    }

    fn card(&self, model: &Model, state: &TrainerState) -> String {
        card(model, state)
    }
}

impl Prepared {
    /// The model that training goes on from, and the published names of what its files lack.
    fn opened(&self, path: &Path) -> Result<(Model, Vec<String>), TrainError> {
        let options = OpenOptions {
            mode: Mode::Training,
            head: Some(self.head()),
            seed: self.config.seed,
            ..OpenOptions::default()
        };
        open_with(path, &self.model, &options, &|_| ())
    }
}

/// Makes or finds the tokenizer and the tokenised text in `out`.
pub(super) fn prepare(
    config: &PretrainConfig,
    out: &Path,
    observer: &mut dyn Observer,
) -> Result<Prepared, TrainError> {
    let train = corpus::sources(config, Role::Train);
    let valid = corpus::sources(config, Role::Valid);
    for file in train.iter().chain(&valid).flat_map(|source| &source.files) {
        // Said before an hour of tokenizer training, not after it.
        fs::metadata(file).map_err(|e| TrainError::io("read", file, e))?;
    }
    let tokenizer_dir = out.join(TOKENIZER);
    let given = config
        .tokenizer
        .path
        .as_ref()
        .or(config.model.path.as_ref());
    let tokenizer = match (given, &config.tokenizer.train) {
        (Some(path), _) => Tokenizer::load(path)?,
        (None, Some(_)) if tokenizer_dir.is_dir() => Tokenizer::load(&tokenizer_dir)?,
        (None, section) => {
            let Some(section) = section else {
                unreachable!("validated: a path or a training")
            };
            tokenizer::train(section, &config.objective, &train, observer)?
        }
    };
    let model = setup::model_config(config, &tokenizer)?;
    if !tokenizer_dir.is_dir() {
        save_tokenizer(&tokenizer, &tokenizer_dir, model.max_len())?;
    }
    let mut built = |role: Role, sources: &[Source]| -> Result<Built, TrainError> {
        let mut corpora = Vec::new();
        let (mut names, mut tokens) = (Vec::new(), 0);
        for (number, source) in sources.iter().enumerate() {
            let (corpus, name) = corpus::build(role, number, source, &tokenizer, out, observer)?;
            tokens += corpus.0.totals().tokens;
            corpora.push(Arc::new(corpus));
            names.push(name);
        }
        Ok(Built {
            examples: objective::examples(config, &tokenizer, &model, &corpora, role)?,
            tokens,
            name: names.join("+"),
        })
    };
    let train = built(Role::Train, &train)?;
    let valid = match valid.is_empty() {
        true => None,
        false => Some(built(Role::Valid, &valid)?),
    };
    let identity = DataIdentity {
        train: train.name,
        valid: valid.as_ref().map(|valid| valid.name.clone()),
        vocabulary: format!("{:016x}", tokenizer.vocabulary_hash()),
    };
    Ok(Prepared {
        config: config.clone(),
        tokenizer,
        model,
        train: train.examples,
        train_tokens: train.tokens,
        valid_tokens: valid.as_ref().map(|valid| valid.tokens),
        valid: valid.map(|valid| valid.examples),
        identity,
        tokenizer_dir,
    })
}

/// The examples of training or validation.
struct Built {
    examples: Box<dyn Examples>,
    tokens: u64,
    name: String,
}
