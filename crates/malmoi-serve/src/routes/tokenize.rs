//! `/tokenize` and `/decode`.

use axum::extract::State;
use malmoi_text::EncodeOptions;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ModelQuery;
use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::state::App;
use crate::text::{Encoded, aside};

/// One or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Several.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// As a list.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Texts to cut into tokens.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// A served model.
    model: Option<String>,
    /// A text or several.
    inputs: OneOrMany<String>,
    /// Whether the tokens that the model wants around a text are added.
    #[serde(default = "yes")]
    add_special_tokens: bool,
}

fn yes() -> bool {
    true
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub struct SimpleToken {
    /// Its id.
    id: u32,
    /// The piece as it reads.
    text: String,
    /// Whether it stands for no text.
    special: bool,
    /// First character; null for special tokens.
    start: Option<usize>,
    /// Character behind it.
    stop: Option<usize>,
    /// The entry of the vocabulary.
    token: String,
    /// First byte of the text's UTF-8.
    byte_start: Option<usize>,
    /// Byte behind it.
    byte_stop: Option<usize>,
    /// The word that it belongs to.
    word: Option<u32>,
}

/// Texts as tokens.
#[utoipa::path(post, path = "/tokenize", tag = "tokens", params(ModelQuery), request_body = TokenizeRequest, responses((status = 200, body = Vec<Vec<SimpleToken>>), (status = "4XX", description = "The request cannot be done")))]
pub async fn tokenize(
    State(app): State<App>,
    query: ModelQuery,
    Json(request): Json<TokenizeRequest>,
) -> Result<Answer<Vec<Vec<SimpleToken>>>, ApiError> {
    let name = request.model.or(query.model);
    let served = app.model(name.as_deref(), "tokens", |_| true)?;
    let texts = request.inputs.into_vec();
    super::check_batch(&app, texts.len())?;
    let options = EncodeOptions {
        add_special: request.add_special_tokens,
        ..EncodeOptions::default()
    };
    let mut tokens = 0;
    let mut all = Vec::with_capacity(texts.len());
    for text in &texts {
        super::check_text(&app, text)?;
        let encode = || served.pipeline.tokenizer.encode(text, None, &options);
        let mut encoding = aside(text.len(), encode)?;
        encoding.cover_whole_characters(text, None);
        tokens += encoding.len();
        let encoded = Encoded {
            encoding,
            truncated: false,
        };
        let list = encoded.tokens(&served.pipeline, text, None)?;
        let simple = list.into_iter().map(|token| {
            let stands = !token.special || token.end > token.start;
            SimpleToken {
                id: token.id,
                text: token.text,
                special: token.special,
                start: stands.then_some(token.start),
                stop: stands.then_some(token.end),
                token: token.token,
                byte_start: stands.then_some(token.byte_start),
                byte_stop: stands.then_some(token.byte_end),
                word: token.word,
            }
        });
        all.push(simple.collect());
    }
    let usage = Usage {
        tokens,
        truncated: false,
    };
    Ok(Answer(all, usage))
}

/// Ids to turn into text.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DecodeRequest {
    /// A served model.
    model: Option<String>,
    /// Ids, or several lists of them.
    ids: Ids,
    /// Whether tokens that stand for no text are left out.
    #[serde(default = "yes")]
    skip_special_tokens: bool,
}

/// Ids, or several lists of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Ids {
    /// One list.
    One(Vec<u32>),
    /// Several.
    Many(Vec<Vec<u32>>),
}

/// Ids as texts.
#[utoipa::path(post, path = "/decode", tag = "tokens", params(ModelQuery), request_body = DecodeRequest, responses((status = 200, body = Vec<String>), (status = "4XX", description = "The request cannot be done")))]
pub async fn decode(
    State(app): State<App>,
    query: ModelQuery,
    Json(request): Json<DecodeRequest>,
) -> Result<axum::Json<Vec<String>>, ApiError> {
    let name = request.model.or(query.model);
    let served = app.model(name.as_deref(), "tokens", |_| true)?;
    let lists = match request.ids {
        Ids::One(ids) => vec![ids],
        Ids::Many(lists) => lists,
    };
    super::check_batch(&app, lists.len())?;
    let tokenizer = &served.pipeline.tokenizer;
    let mut texts = Vec::with_capacity(lists.len());
    for ids in lists {
        if let Some(id) = ids.iter().find(|id| tokenizer.id_to_token(**id).is_none()) {
            return Err(ApiError::invalid(format!(
                "id {id} is not in the vocabulary of {} tokens",
                tokenizer.vocab_size()
            ))
            .at("ids"));
        }
        texts.push(tokenizer.decode(&ids, request.skip_special_tokens)?);
    }
    Ok(axum::Json(texts))
}
