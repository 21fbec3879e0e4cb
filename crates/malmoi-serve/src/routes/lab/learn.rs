//! `/lab/learn`: one text, a few training steps, and what the model thinks of it after each.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use malmoi_infer::Pipeline;
use malmoi_models::{Direction, Labels, Mode, Model, PackedBatch, Pass, VocabularyTargets};
use malmoi_train::optim::{Adam, Optimizer, ParamSlot, Rule};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use utoipa::ToSchema;

use crate::body::Json;
use crate::error::ApiError;
use crate::routes::attention::direction_name;
use crate::routes::fill_mask::hide;
use crate::served::Ability;
use crate::state::App;
use crate::text::{Actual, Candidate, Row, Token, TooLong};

/// Longest text, in tokens.
const MAX_TOKENS: usize = 128;
/// Parameters of a model that is trained for a page; a copy with gradients and moments takes sixteen bytes each.
const MAX_PARAMETERS: u64 = 200_000_000;

/// A text to learn.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// The text.
    text: String,
    /// Tokens to hide, for encoders; by default one in the middle.
    #[serde(default)]
    mask: Vec<usize>,
    /// Training steps, 1 to 64.
    #[serde(default = "eight")]
    #[schema(minimum = 1, maximum = 64)]
    steps: usize,
    /// Step size of AdamW, above 0 and at most 0.1.
    #[serde(default = "rate")]
    #[schema(exclusive_minimum = 0, maximum = 0.1)]
    learning_rate: f64,
    /// Candidates at each place, 1 to 50.
    #[serde(default = "five")]
    #[schema(minimum = 1, maximum = 50)]
    top_k: usize,
    /// Send each step as it is done.
    #[serde(default)]
    stream: bool,
}

fn eight() -> usize {
    8
}

fn five() -> usize {
    5
}

fn rate() -> f64 {
    5e-4
}

/// What is learned.
#[derive(Debug, Serialize, ToSchema)]
pub struct Lesson {
    /// The model.
    model: String,
    /// `encoder` or `decoder`.
    direction: &'static str,
    /// The tokens.
    tokens: Vec<Token>,
    /// Whether the text was cut.
    truncated: bool,
    /// The hidden tokens, for encoders.
    mask: Vec<usize>,
    /// What the model thinks before and after each step; in a stream these come one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Step>,
}

/// What the model thinks after some training.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    /// Steps trained.
    step: usize,
    /// Mean cross-entropy at the places.
    loss: f64,
    /// The places.
    positions: Vec<Position>,
}

/// A place that is predicted.
#[derive(Debug, Serialize, ToSchema)]
pub struct Position {
    /// The predicted token.
    position: usize,
    /// The right token.
    target: Actual,
    /// The most probable ones.
    candidates: Vec<Candidate>,
}

/// What goes in and what should come out.
struct Exercise {
    batch: PackedBatch,
    /// Rows of the logits, the predicted positions and the right ids.
    rows: Vec<u32>,
    positions: Vec<usize>,
    targets: Vec<u32>,
}

/// Trains a copy of a model on one text and tells what it thinks of it after every step. The served model stays as it is.
#[utoipa::path(post, path = "/lab/learn", tag = "lab", request_body = Request, responses((status = 200, description = "The steps; with `stream`, server-sent events ending in [DONE]", content((Lesson = "application/json"), (String = "text/event-stream"))), (status = "4XX", description = "The request cannot be done")))]
pub async fn learn(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Response, ApiError> {
    let served = app.model(request.model.as_deref(), "learning", |m| {
        m.can(Ability::Learn)
    })?;
    let steps = crate::routes::check_range("steps", request.steps, 1..=64)?;
    let top_k = crate::routes::check_range("top_k", request.top_k, 1..=50)?;
    let lr = request.learning_rate;
    if !(lr > 0.0 && lr <= 0.1) {
        return Err(ApiError::invalid(format!(
            "learning_rate is {lr}: expected a number above 0, at most 0.1"
        ))
        .at("learning_rate"));
    }
    let parameters = served.info().parameters;
    if parameters > MAX_PARAMETERS {
        return Err(ApiError::invalid(format!(
            "the model has {parameters} parameters, at most {MAX_PARAMETERS} are trained here: serve a smaller one"
        ))
        .at("model"));
    }
    let pipeline = &served.pipeline;
    let (encoded, tokens) =
        crate::routes::read_text(&app, &served, &request.text, TooLong::CUT, MAX_TOKENS)?;
    let direction = pipeline.model.config().direction();
    let exercise = exercise(pipeline, &encoded.sequence(), &request.mask, &tokens)?;
    let lesson = Lesson {
        model: served.name.clone(),
        direction: direction_name(direction),
        tokens,
        truncated: encoded.truncated,
        mask: match direction {
            Direction::Encoder => exercise.positions.clone(),
            _ => Vec::new(),
        },
        steps: Vec::new(),
    };
    let (sender, mut received) = unbounded_channel::<Result<Step, ApiError>>();
    // One at a time, for the memory of a copy, and beside the model's thread, which goes on with its work.
    let place = app.lessons().acquire_owned().await;
    let place = place.map_err(|_| ApiError::internal())?;
    let pipeline = Arc::clone(pipeline);
    let training = tokio::task::spawn_blocking(move || {
        let _until_the_end = place;
        train(&pipeline, &exercise, steps, lr, top_k, &sender).err()
    });
    if request.stream {
        let first = json!(lesson);
        let stream = futures::stream::unfold(
            (Some(first), received, Some(training), false),
            |(first, mut received, mut training, done)| async move {
                if done {
                    return None;
                }
                let mut end = false;
                let data = match first {
                    Some(first) => first.to_string(),
                    None => match received.recv().await {
                        Some(Ok(step)) => json!(step).to_string(),
                        Some(Err(error)) => error.openai_body().to_string(),
                        None => match training.take() {
                            Some(task) => match task.await {
                                Ok(None) => {
                                    end = true;
                                    "[DONE]".to_owned()
                                }
                                Ok(Some(error)) => error.openai_body().to_string(),
                                Err(_) => ApiError::internal().openai_body().to_string(),
                            },
                            None => {
                                end = true;
                                "[DONE]".to_owned()
                            }
                        },
                    },
                };
                let event = Ok::<Event, Infallible>(Event::default().data(data));
                Some((event, (None::<Value>, received, training, end)))
            },
        );
        let alive = KeepAlive::new().interval(std::time::Duration::from_secs(5));
        return Ok(Sse::new(stream).keep_alive(alive).into_response());
    }
    let mut all = Vec::new();
    while let Some(step) = received.recv().await {
        all.push(step?);
    }
    match training.await {
        Ok(None) => {}
        Ok(Some(error)) => return Err(error),
        Err(_) => return Err(ApiError::internal()),
    }
    Ok(axum::Json(Lesson {
        steps: all,
        ..lesson
    })
    .into_response())
}

fn exercise(
    pipeline: &Pipeline,
    sequence: &crate::worker::Sequence,
    mask: &[usize],
    tokens: &[Token],
) -> Result<Exercise, ApiError> {
    let ids = &sequence.ids;
    if pipeline.model.config().direction() == Direction::Decoder {
        if !mask.is_empty() {
            return Err(ApiError::invalid(
                "a decoder predicts every token from those before it: leave `mask` away",
            )
            .at("mask"));
        }
        if ids.len() < 2 {
            return Err(ApiError::invalid("expected a text of at least two tokens").at("text"));
        }
        return Ok(Exercise {
            batch: PackedBatch::from_sequences(&[ids]),
            rows: (0..ids.len() as u32 - 1).collect(),
            positions: (1..ids.len()).collect(),
            targets: ids[1..].to_vec(),
        });
    }
    let mut hidden = ids.clone();
    let middle: Vec<usize>;
    let mask = match mask {
        [] => {
            let words: Vec<usize> = (0..tokens.len()).filter(|&i| !tokens[i].special).collect();
            middle = words.get(words.len() / 2).copied().into_iter().collect();
            &middle
        }
        given => given,
    };
    if mask.is_empty() {
        return Err(ApiError::invalid("the text has no token to hide").at("text"));
    }
    let mask_id = pipeline.tokenizer.special().mask;
    hide(pipeline, &mut hidden, mask, tokens)?;
    // A mask token that the text had from the start has no right answer.
    let mut positions: Vec<usize> = mask.to_vec();
    positions.retain(|&position| Some(ids[position]) != mask_id);
    positions.sort_unstable();
    positions.dedup();
    if positions.is_empty() {
        return Err(ApiError::invalid("the hidden tokens are mask tokens already").at("mask"));
    }
    let mut batch = PackedBatch::from_sequences(&[&hidden]);
    if sequence.segments.iter().any(|&segment| segment > 0) {
        batch = batch.with_segments(sequence.segments.clone());
    }
    Ok(Exercise {
        batch,
        rows: positions.iter().map(|&position| position as u32).collect(),
        targets: positions.iter().map(|&position| ids[position]).collect(),
        positions,
    })
}

fn train(
    pipeline: &Pipeline,
    exercise: &Exercise,
    steps: usize,
    lr: f64,
    top_k: usize,
    events: &UnboundedSender<Result<Step, ApiError>>,
) -> Result<(), ApiError> {
    let mut model = pipeline.model.clone().into_mode(Mode::Training);
    // No decay: the lesson is what one text does to the weights.
    let rule = Rule::AdamW(Adam {
        weight_decay: 0.0,
        ..Adam::default()
    });
    let mut optimizer =
        Optimizer::new(rule).map_err(|error| ApiError::invalid(error.to_string()))?;
    let labels = Labels::Vocabulary(VocabularyTargets {
        rows: exercise.rows.clone().into(),
        targets: exercise.targets.clone().into(),
        weights: vec![1.0 / exercise.rows.len() as f32; exercise.rows.len()].into(),
    });
    for step in 0..=steps {
        let seen = look(pipeline, &model, exercise, step, top_k)?;
        if events.send(Ok(seen)).is_err() || step == steps {
            // Nobody listens any more, or there is nothing more to do.
            return Ok(());
        }
        let (report, gradients) =
            model.loss_and_gradients(&exercise.batch, &labels, &Pass::inference())?;
        if !report.loss.is_finite() {
            return Err(ApiError::invalid(
                "the loss is no number any more: choose a smaller learning_rate",
            )
            .at("learning_rate"));
        }
        let mut gradients = gradients.into_iter();
        let mut failed = None;
        model = model.update(|info, values| {
            let Some((_, Some(gradient))) = gradients.next() else {
                return;
            };
            let slot = ParamSlot {
                name: &info.name,
                shape: &info.shape,
                values,
                gradient: &gradient,
                decay: false,
            };
            if let Err(error) = optimizer.update(lr, slot) {
                failed = Some(error);
            }
        });
        if let Some(error) = failed {
            tracing::error!(%error, "a training step failed");
            return Err(ApiError::internal());
        }
    }
    Ok(())
}

fn look(
    pipeline: &Pipeline,
    model: &Model,
    exercise: &Exercise,
    step: usize,
    top_k: usize,
) -> Result<Step, ApiError> {
    let logits = model.logits(&exercise.batch, &exercise.rows)?;
    let width = logits.len() / exercise.rows.len();
    let mut loss = 0.0;
    let mut positions = Vec::with_capacity(exercise.rows.len());
    for ((logits, &position), &target) in
        (logits.chunks(width).zip(&exercise.positions)).zip(&exercise.targets)
    {
        let row = Row::new(logits, 1.0);
        loss -= malmoi_infer::generate::log_probability(logits, target);
        positions.push(Position {
            position,
            target: row.actual(pipeline, target)?,
            candidates: row.best(pipeline, top_k)?,
        });
    }
    Ok(Step {
        step,
        loss: loss / exercise.rows.len() as f64,
        positions,
    })
}
