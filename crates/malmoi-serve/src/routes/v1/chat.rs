//! `/v1/chat/completions`: conversations that go on.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::completions::{Template, streamed, unique};
use super::settings::{MAX_TOP, Settings, check_rest};
use super::writing::{self, Job, Text, TokenUsage, Written};
use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::Ability;
use crate::state::App;
use crate::text::aside;

/// What a message says: a text, or parts of it.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct Part {
    /// `text`.
    r#type: String,
    /// The text.
    text: Option<String>,
}

/// A message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what the template knows.
    role: String,
    /// What it says.
    content: Content,
    /// Who says it.
    name: Option<String>,
}

/// A conversation to continue.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// The conversation.
    messages: Vec<Message>,
    /// Tokens at most; by default as many as fit.
    #[schema(minimum = 1)]
    max_tokens: Option<usize>,
    /// The same.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<usize>,
    /// Tell log-probabilities.
    logprobs: Option<bool>,
    /// Of so many alternatives at each place.
    #[schema(maximum = 50)]
    top_logprobs: Option<usize>,
    /// How.
    #[serde(flatten)]
    settings: Settings,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Map<String, Value>,
}

/// The model's message.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reply {
    /// `assistant`.
    role: &'static str,
    /// What it says.
    content: String,
    /// Always null.
    refusal: Option<String>,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Choice {
    /// Which, from 0.
    index: usize,
    /// The message.
    message: Reply,
    /// Log-probabilities, when asked for.
    #[schema(value_type = Option<Object>)]
    logprobs: Option<Value>,
    /// `stop` or `length`.
    finish_reason: &'static str,
}

/// Answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    /// A name for this answer.
    id: String,
    /// `chat.completion`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    /// The model.
    model: String,
    /// The answers.
    choices: Vec<Choice>,
    /// Tokens.
    usage: TokenUsage,
}

/// Continues a conversation, by the chat template of the model's tokenizer.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", request_body = Request, responses((status = 200, description = "Answers; with `stream`, server-sent events ending in [DONE]", content((ChatCompletion = "application/json"), (String = "text/event-stream"))), (status = "4XX", description = "The request cannot be done")))]
pub async fn create(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Response, ApiError> {
    check_rest(&request.rest)?;
    let served = app.model(
        request.model.as_deref(),
        "a conversation (a chat template beside the tokenizer)",
        |m| m.can(Ability::Chat),
    )?;
    let messages = messages(&app, &request.messages)?;
    let template = served.chat.as_ref().ok_or_else(ApiError::internal)?;
    // How long that takes, only the template knows.
    let rendered = aside(usize::MAX, || template.render(&messages));
    let text = rendered.map_err(|error| {
        ApiError::invalid(format!("the chat template says: {error}")).at("messages")
    })?;
    crate::routes::check_text(&app, &text)?;
    // The template writes the special tokens itself.
    let pipeline = &served.pipeline;
    let encode = || pipeline.tokenizer.encode_ids(&text, pipeline.transforms());
    let prompt = aside(text.len(), encode)?;
    let top = match (request.logprobs.unwrap_or(false), request.top_logprobs) {
        (true, top) => Some(crate::routes::check_range(
            "top_logprobs",
            top.unwrap_or(0),
            0..=MAX_TOP,
        )?),
        (false, None | Some(0)) => None,
        (false, Some(_)) => {
            return Err(ApiError::invalid("top_logprobs needs logprobs: true").at("top_logprobs"));
        }
    };
    let stream = request.settings.stream;
    let with_usage = (request.settings.stream_options.as_ref()).is_some_and(|o| o.include_usage);
    let job = Job {
        prompts: vec![prompt],
        settings: request.settings,
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        best_of: None,
        top,
    };
    let running = writing::start(&app, &served, job)?;
    let prompt_tokens = running.prompt_tokens();
    let count = running.count();
    let template = Template {
        id: format!("chatcmpl-{:x}", unique()),
        created: writing::now(),
        model: served.name.clone(),
    };
    if !stream {
        let texts = running.follow(|_| true).await?;
        let written = texts.iter().map(|text| text.count).sum();
        let choices = texts.into_iter().enumerate().map(|(index, text)| Choice {
            index,
            logprobs: top.map(|_| log_probs(&text.tokens)),
            message: Reply {
                role: "assistant",
                content: text.text,
                refusal: None,
            },
            finish_reason: text.finish,
        });
        let usage = TokenUsage::new(prompt_tokens, written);
        let completion = ChatCompletion {
            id: template.id,
            object: "chat.completion",
            created: template.created,
            model: template.model,
            choices: choices.collect(),
            usage,
        };
        let usage = Usage {
            tokens: usage.total_tokens,
            truncated: false,
        };
        return Ok(Answer(completion, usage).into_response());
    }
    let mut begun = vec![false; count];
    let on_step = move |step: writing::Step, template: &Template| {
        let mut chunks = Vec::new();
        if !std::mem::replace(&mut begun[step.index], true) {
            let delta = json!({"role": "assistant", "content": ""});
            chunks.push(chunk(template, step.index, delta, None, None));
        }
        if !step.text.is_empty() {
            let logprobs = top.map(|_| log_probs(&step.tokens));
            let delta = json!({"content": step.text});
            chunks.push(chunk(template, step.index, delta, logprobs, None));
        }
        if let Some(finish) = step.finish {
            chunks.push(chunk(template, step.index, json!({}), None, Some(finish)));
        }
        chunks
    };
    let last = move |texts: &[Text], template: &Template| {
        let written = texts.iter().map(|text| text.count).sum();
        let mut value = chunk(template, 0, json!({}), None, None);
        value["choices"] = json!([]);
        value["usage"] = json!(TokenUsage::new(prompt_tokens, written));
        with_usage.then_some(value)
    };
    streamed(running, template, on_step, last).await
}

fn chunk(
    template: &Template,
    index: usize,
    delta: Value,
    logprobs: Option<Value>,
    finish: Option<&str>,
) -> Value {
    json!({
        "id": template.id,
        "object": "chat.completion.chunk",
        "created": template.created,
        "model": template.model,
        "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}],
    })
}

/// The messages as templates expect them: contents as texts.
fn messages(app: &App, messages: &[Message]) -> Result<Value, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("no message: expected at least one").at("messages"));
    }
    crate::routes::check_batch(app, messages.len())?;
    let mut all = Vec::with_capacity(messages.len());
    for message in messages {
        let text = match &message.content {
            Content::Text(text) => text.clone(),
            Content::Parts(parts) => {
                let mut text = String::new();
                for part in parts {
                    match (&*part.r#type, &part.text) {
                        ("text", Some(piece)) => text.push_str(piece),
                        (kind, _) => {
                            return Err(ApiError::invalid(format!(
                                "a message has a part of type {kind:?}: only text is read"
                            ))
                            .at("messages"));
                        }
                    }
                }
                text
            }
        };
        crate::routes::check_text(app, &text)?;
        let mut value = json!({"role": message.role, "content": text});
        if let Some(name) = &message.name {
            value["name"] = json!(name);
        }
        all.push(value);
    }
    Ok(Value::Array(all))
}

fn log_probs(tokens: &[Written]) -> Value {
    let one = |text: &str, logprob: f64| json!({"token": text, "logprob": logprob, "bytes": text.as_bytes()});
    let content = tokens.iter().map(|token| {
        let mut value = one(&token.text, token.log_probability);
        let top = token
            .top
            .iter()
            .map(|(_, text, logprob)| one(text, *logprob));
        value["top_logprobs"] = Value::Array(top.collect());
        value
    });
    json!({"content": content.collect::<Vec<_>>()})
}
