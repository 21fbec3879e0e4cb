//! A served model: its pipeline, its thread and what it can do.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use malmoi_infer::Pipeline;
use malmoi_infer::constraint::Grammars;
use malmoi_infer::embed::Pooling;
use malmoi_infer::pipeline::OpenError;
use malmoi_models::{Direction, Head, ModelInfo, SentenceLayout};
use serde::Serialize;
use utoipa::ToSchema;

use crate::chat::ChatTemplate;
use crate::config::{Limits, ModelSource};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::text;
use crate::worker::{Worker, WorkerOptions};

/// What a model can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ability {
    /// Writing.
    Generate,
    /// Writing in a conversation.
    Chat,
    /// What comes next at every place.
    NextToken,
    /// Words for blanks.
    FillMask,
    /// Vectors.
    Embed,
    /// Classes.
    Predict,
    /// Texts by how well they fit a query.
    Rerank,
    /// Cosines.
    Similarity,
    /// Named entities.
    Ner,
    /// Answers in a text.
    Qa,
    /// Classes that were never trained.
    ZeroShot,
    /// Attention probabilities.
    Attention,
    /// A training step to watch.
    Learn,
}

/// A served model.
#[derive(Debug)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// Model and tokenizer.
    pub pipeline: Arc<Pipeline>,
    /// Its thread.
    pub worker: Worker,
    /// Seconds since 1970 when it was loaded.
    pub created: u64,
    /// How its token vectors become one.
    pub pooling: Pooling,
    /// How conversations are written for it.
    pub chat: Option<ChatTemplate>,
    /// Whether it has a draft model.
    pub has_draft: bool,
    abilities: Vec<Ability>,
    grammars: OnceLock<Result<Grammars, String>>,
}

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The model or its tokenizer.
    #[error("model {name}: {source}")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        source: Box<OpenError>,
    },
    /// The files about it.
    #[error("model {name}: {message}")]
    Files {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// No thread.
    #[error("model {name}: no thread: {source}")]
    Thread {
        /// Its name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Served {
    /// Loads a model and starts its thread.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(
        source: &ModelSource,
        limits: &Limits,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, LoadError> {
        let name = source.name.clone();
        let open = |directory| {
            let pipeline = Pipeline::open(directory, &source.options).and_then(|pipeline| {
                pipeline.model.prepare()?;
                Ok(pipeline)
            });
            pipeline.map_err(|error| LoadError::Open {
                name: name.clone(),
                source: Box::new(error),
            })
        };
        let pipeline = open(&source.directory)?;
        let draft = match &source.draft {
            Some(directory) => {
                let draft = open(directory)?;
                if draft.tokenizer.vocabulary_hash() != pipeline.tokenizer.vocabulary_hash() {
                    return Err(LoadError::Files {
                        name,
                        message:
                            "its draft model has another vocabulary: expected the same tokenizer"
                                .into(),
                    });
                }
                Some(draft.model)
            }
            None => None,
        };
        let files = |message| LoadError::Files {
            name: name.clone(),
            message,
        };
        let chat = ChatTemplate::load(&source.directory).map_err(files)?;
        let pooling = pooling(&source.directory, &pipeline).map_err(files)?;
        let has_draft = draft.is_some();
        let abilities = abilities(&pipeline, chat.is_some());
        let pipeline = Arc::new(pipeline);
        let options = WorkerOptions {
            name: source.name.clone(),
            queue: limits.queue,
            batch_tokens: limits.batch_tokens,
            engine: malmoi_infer::engine::EngineOptions {
                rows: limits.rows,
                cache_bytes: limits.cache_bytes,
                ..Default::default()
            },
        };
        let worker = Worker::start(Arc::clone(&pipeline), draft, options, Arc::clone(metrics));
        let worker = worker.map_err(|error| LoadError::Thread {
            name: name.clone(),
            source: error,
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            name,
            pipeline,
            worker,
            created: now.map_or(0, |now| now.as_secs()),
            pooling,
            chat,
            has_draft,
            abilities,
            grammars: OnceLock::new(),
        })
    }

    /// Whether it can be asked for that.
    pub fn can(&self, ability: Ability) -> bool {
        self.abilities.contains(&ability)
    }

    /// Everything it can be asked.
    pub fn abilities(&self) -> &[Ability] {
        &self.abilities
    }

    /// `model_type` and class.
    pub fn describe(&self) -> String {
        let config = self.pipeline.model.config();
        let head = self.pipeline.model.head();
        format!(
            "{}, {}",
            config.model_type(),
            config.architecture_name(head)
        )
    }

    /// Shape and size.
    pub fn info(&self) -> ModelInfo {
        let model = &self.pipeline.model;
        ModelInfo::new(model.config(), model.head())
    }

    /// Longest input, in tokens.
    pub fn max_tokens(&self) -> usize {
        text::max_tokens(&self.pipeline)
    }

    /// What makes constrained output, built on first use.
    ///
    /// # Errors
    /// 422 for a tokenizer that it cannot work with.
    pub fn grammars(&self) -> Result<&Grammars, ApiError> {
        let vocab_size = self.pipeline.model.config().vocab_size();
        let built = self.grammars.get_or_init(|| {
            Grammars::new(&self.pipeline.tokenizer, vocab_size).map_err(|error| error.to_string())
        });
        built
            .as_ref()
            .map_err(|error| ApiError::invalid(error.clone()))
    }

    /// Names of its classes, `LABEL_n` where it has none.
    pub fn labels(&self, classes: usize) -> Vec<String> {
        let labels = self.pipeline.model.config().labels();
        if labels.len() == classes {
            return labels.to_vec();
        }
        (0..classes).map(|class| format!("LABEL_{class}")).collect()
    }

    /// The class that says that one text follows from another.
    pub fn entailment(&self) -> Option<(usize, Option<usize>)> {
        entailment(self.pipeline.model.config().labels())
    }
}

fn entailment(labels: &[String]) -> Option<(usize, Option<usize>)> {
    let place =
        |word: &str| (labels.iter()).position(|label| label.to_lowercase().starts_with(word));
    Some((place("entail")?, place("contra")))
}

fn abilities(pipeline: &Pipeline, chat: bool) -> Vec<Ability> {
    let (config, head) = (pipeline.model.config(), pipeline.model.head());
    let mut list = Vec::new();
    let direction = config.direction();
    match (direction, head) {
        (Direction::Decoder, Head::CausalLm | Head::DoubleHeads) => {
            list.extend([
                Ability::Generate,
                Ability::NextToken,
                Ability::ZeroShot,
                Ability::Learn,
            ]);
            list.extend(chat.then_some(Ability::Chat));
        }
        (_, Head::Seq2SeqLm) => {
            list.push(Ability::Generate);
            list.extend(chat.then_some(Ability::Chat));
        }
        (Direction::Encoder, Head::MaskedLm | Head::Pretraining)
            if pipeline.tokenizer.special().mask.is_some() =>
        {
            list.extend([Ability::FillMask, Ability::Learn]);
        }
        (_, Head::SequenceClassification) => {
            list.push(Ability::Predict);
            if entailment(config.labels()).is_some() {
                list.push(Ability::ZeroShot);
            }
            if config.labels().len() == 1 {
                list.push(Ability::Rerank);
            }
        }
        (_, Head::TokenClassification) => list.push(Ability::Ner),
        (_, Head::QuestionAnswering) => list.push(Ability::Qa),
        _ => {}
    }
    if direction != Direction::EncoderDecoder {
        list.extend([Ability::Embed, Ability::Similarity]);
    }
    list.push(Ability::Attention);
    list
}

/// How the layout of sentence-transformers says that vectors are pooled; else the mean for encoders, and the last
/// token for decoders, which is the one that has seen the whole text.
fn pooling(directory: &std::path::Path, pipeline: &Pipeline) -> Result<Pooling, String> {
    let layout = SentenceLayout::read(directory).map_err(|error| error.to_string())?;
    Ok(match (layout, pipeline.model.config().direction()) {
        (Some(layout), _) => layout.pooling,
        (None, Direction::Decoder) => Pooling::Last,
        (None, _) => Pooling::Mean,
    })
}
