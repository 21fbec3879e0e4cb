//! `/v1/completions`: texts that go on.

use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::unbounded_channel;
use utoipa::ToSchema;

use super::settings::{MAX_TOP, Settings, check_rest};
use super::writing::{self, Job, Text, TokenUsage, Written};
use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::{Ability, Served};
use crate::state::App;
use crate::text::aside;

/// What to continue.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Token ids.
    Ids(Vec<u32>),
    /// Several of them.
    ManyIds(Vec<Vec<u32>>),
}

/// A text to continue.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// What to continue.
    prompt: Prompt,
    /// Tokens at most. Default 16.
    #[schema(minimum = 1)]
    max_tokens: Option<usize>,
    /// Texts that are written for each prompt, of which the best `n` are given.
    #[schema(minimum = 1)]
    best_of: Option<usize>,
    /// Log-probabilities of the tokens, and of so many alternatives.
    #[schema(maximum = 50)]
    logprobs: Option<usize>,
    /// Give the prompt as part of the text.
    #[serde(default)]
    echo: bool,
    /// Tell the ids of the prompt.
    #[serde(default)]
    return_token_ids: bool,
    /// How.
    #[serde(flatten)]
    settings: Settings,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Map<String, Value>,
}

/// Log-probabilities of tokens.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct LogProbs {
    /// Their pieces of text.
    tokens: Vec<String>,
    /// Natural logarithms of their probabilities.
    token_logprobs: Vec<f64>,
    /// The most probable at each place, by their text.
    #[schema(value_type = Vec<Object>)]
    top_logprobs: Vec<Map<String, Value>>,
    /// Characters of the text before each.
    text_offset: Vec<usize>,
    /// Their ids.
    token_ids: Vec<u32>,
    /// The most probable at each place, by their ids.
    alternatives: Vec<Vec<Alternative>>,
}

/// A token that could have stood there.
#[derive(Debug, Serialize, ToSchema)]
pub struct Alternative {
    /// Its id.
    id: u32,
    /// Its piece of text.
    text: String,
    /// Natural logarithm of its probability.
    logprob: f64,
}

/// A text, or a piece of one.
#[derive(Debug, Serialize, ToSchema)]
pub struct Choice {
    /// Which text, from 0.
    index: usize,
    /// The text.
    text: String,
    /// Log-probabilities, when asked for.
    logprobs: Option<LogProbs>,
    /// `stop` or `length`; null within a stream.
    finish_reason: Option<&'static str>,
}

/// Texts that go on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Completion {
    /// A name for this answer.
    id: String,
    /// `text_completion`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    /// The model.
    model: String,
    /// The texts.
    choices: Vec<Choice>,
    /// Tokens; in a stream only where asked for, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<TokenUsage>,
    /// Ids of the prompts, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<Vec<u32>>>,
}

/// Continues texts.
#[utoipa::path(post, path = "/v1/completions", tag = "openai", request_body = Request, responses((status = 200, description = "Texts; with `stream`, server-sent events ending in [DONE]", content((Completion = "application/json"), (String = "text/event-stream"))), (status = "4XX", description = "The request cannot be done")))]
pub async fn create(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Response, ApiError> {
    check_rest(&request.rest)?;
    let served = app.model(request.model.as_deref(), "completions", |m| {
        m.can(Ability::Generate)
    })?;
    let prompts = prompts(&app, &served, &request.prompt)?;
    let top = request.logprobs;
    if let Some(top) = top {
        crate::routes::check_range("logprobs", top, 0..=MAX_TOP)?;
    }
    let stream = request.settings.stream;
    let with_usage = (request.settings.stream_options.as_ref()).is_some_and(|o| o.include_usage);
    if stream
        && request
            .best_of
            .is_some_and(|best| best > request.settings.n.unwrap_or(1))
    {
        return Err(ApiError::invalid(
            "best_of does not go with stream: the best is known at the end",
        )
        .at("best_of"));
    }
    if stream && request.echo {
        return Err(ApiError::invalid("echo does not go with stream").at("echo"));
    }
    let echoes = match request.echo {
        true => Some(
            (prompts.iter())
                .map(|ids| Ok(served.pipeline.tokenizer.decode(ids, true)?))
                .collect::<Result<Vec<String>, ApiError>>()?,
        ),
        false => None,
    };
    let job = Job {
        prompts,
        settings: request.settings,
        max_tokens: Some(request.max_tokens.unwrap_or(16)),
        best_of: request.best_of,
        top,
    };
    let running = writing::start(&app, &served, job)?;
    let prompt_tokens = running.prompt_tokens();
    let template = Template {
        id: format!("cmpl-{:x}", unique()),
        created: writing::now(),
        model: served.name.clone(),
    };
    let ids = request.return_token_ids.then(|| running.prompts().to_vec());
    if !stream {
        let texts = running.follow(|_| true).await?;
        let written = texts.iter().map(|text| text.count).sum();
        let choices = texts.into_iter().enumerate();
        let choices =
            choices.map(|(index, text)| choice(index, text, echoes.as_deref(), top.is_some()));
        let usage = TokenUsage::new(prompt_tokens, written);
        let completion = Completion {
            prompt_token_ids: ids,
            usage: Some(usage),
            ..template.completion(choices.collect())
        };
        let usage = Usage {
            tokens: usage.total_tokens,
            truncated: false,
        };
        return Ok(Answer(completion, usage).into_response());
    }
    let mut first = ids;
    let on_step = move |step: writing::Step, template: &Template| {
        let choice = Choice {
            index: step.index,
            text: step.text,
            logprobs: top.map(|_| log_probs(&step.tokens)),
            finish_reason: step.finish,
        };
        let completion = Completion {
            prompt_token_ids: first.take(),
            ..template.completion(vec![choice])
        };
        vec![json!(completion)]
    };
    let last = move |texts: &[Text], template: &Template| {
        let written = texts.iter().map(|text| text.count).sum();
        let completion = Completion {
            usage: Some(TokenUsage::new(prompt_tokens, written)),
            ..template.completion(Vec::new())
        };
        with_usage.then(|| json!(completion))
    };
    streamed(running, template, on_step, last).await
}

/// What all parts of an answer have in common.
#[derive(Debug, Clone)]
pub struct Template {
    /// A name for the answer.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model.
    pub model: String,
}

impl Template {
    fn completion(&self, choices: Vec<Choice>) -> Completion {
        Completion {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: None,
            prompt_token_ids: None,
        }
    }
}

/// A number that no other answer of this server has.
pub fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    writing::now() << 24 | NUMBER.fetch_add(1, Ordering::Relaxed) & 0xff_ffff
}

/// Sends texts as server-sent events while they are written. What fails before the first piece is an ordinary error.
pub async fn streamed(
    running: writing::Running,
    template: Template,
    mut on_step: impl FnMut(writing::Step, &Template) -> Vec<Value> + Send + 'static,
    last: impl FnOnce(&[Text], &Template) -> Option<Value> + Send + 'static,
) -> Result<Response, ApiError> {
    let (events, mut received) = unbounded_channel::<Result<Value, ApiError>>();
    // The texts are followed beside the connection, and given up with it.
    tokio::spawn(async move {
        let send = |value| events.send(Ok(value)).is_ok();
        let outcome = tokio::select! {
            outcome = running.follow(|step| {
                let values = on_step(step, &template);
                values.into_iter().all(send)
            }) => outcome,
            () = events.closed() => return,
        };
        match outcome {
            Ok(texts) => {
                if let Some(value) = last(&texts, &template) {
                    send(value);
                }
            }
            Err(error) => {
                let _gone = events.send(Err(error));
            }
        }
    });
    let first = match received.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(error),
        None => return Err(ApiError::internal()),
    };
    let stream = futures::stream::unfold(
        (Some(first), received, false),
        |(first, mut received, done)| async move {
            if done {
                return None;
            }
            let next = match first {
                Some(first) => Some(Ok(first)),
                None => received.recv().await,
            };
            let (data, done) = match next {
                Some(Ok(value)) => (value.to_string(), false),
                Some(Err(error)) => (error.openai_body().to_string(), false),
                None => ("[DONE]".to_owned(), true),
            };
            let event = Ok::<Event, Infallible>(Event::default().data(data));
            Some((event, (None, received, done)))
        },
    );
    // A comment now and then keeps the connection, and finds out that the client is gone.
    let alive = KeepAlive::new().interval(std::time::Duration::from_secs(5));
    Ok(Sse::new(stream).keep_alive(alive).into_response())
}

/// Ids of the prompts.
fn prompts(app: &App, served: &Served, prompt: &Prompt) -> Result<Vec<Vec<u32>>, ApiError> {
    let pipeline = &served.pipeline;
    let from_text = |(row, text): (usize, &String)| {
        crate::routes::check_text(app, text)?;
        Ok(aside(text.len(), || pipeline.prompt_ids(text, row))?)
    };
    let vocab_size = pipeline.model.config().vocab_size();
    let checked = |ids: &Vec<u32>| match ids.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(ApiError::invalid(format!(
            "id {id} is outside the vocabulary of {vocab_size}"
        ))
        .at("prompt")),
        None => Ok(ids.clone()),
    };
    match prompt {
        Prompt::Text(text) => Ok(vec![from_text((0, text))?]),
        Prompt::Texts(texts) => texts.iter().enumerate().map(from_text).collect(),
        Prompt::Ids(ids) => Ok(vec![checked(ids)?]),
        Prompt::ManyIds(lists) => lists.iter().map(checked).collect(),
    }
}

fn choice(index: usize, text: Text, echoes: Option<&[String]>, with_logprobs: bool) -> Choice {
    let mut whole = text.text;
    if let Some(echo) = echoes.and_then(|echoes| echoes.get(text.prompt)) {
        whole.insert_str(0, echo);
    }
    Choice {
        index,
        text: whole,
        logprobs: with_logprobs.then(|| log_probs(&text.tokens)),
        finish_reason: Some(text.finish),
    }
}

fn log_probs(tokens: &[Written]) -> LogProbs {
    let mut all = LogProbs::default();
    for token in tokens {
        all.tokens.push(token.text.clone());
        all.token_logprobs.push(token.log_probability);
        all.text_offset.push(token.offset);
        all.token_ids.push(token.id);
        let mut by_text = Map::new();
        for (_, text, logprob) in &token.top {
            // Pieces of characters may look alike; the better stays.
            by_text
                .entry(text.clone())
                .or_insert_with(|| json!(logprob));
        }
        all.top_logprobs.push(by_text);
        let alternative = |(id, text, logprob): &(u32, String, f64)| Alternative {
            id: *id,
            text: text.clone(),
            logprob: *logprob,
        };
        all.alternatives
            .push(token.top.iter().map(alternative).collect());
    }
    all
}
