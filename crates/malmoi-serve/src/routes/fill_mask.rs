//! `/fill-mask`: words for blanks.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::Ability;
use crate::state::App;
use crate::text::{self, Actual, Row, Token, TooLong};
use crate::worker::Want;

/// Blanks in one text.
const MAX_BLANKS: usize = 64;

/// A text with blanks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// The text, perhaps with the model's mask token.
    text: String,
    /// Tokens to hide, as indices into its tokens.
    #[serde(default)]
    mask: Vec<usize>,
    /// Candidates for each blank, 1 to 100.
    #[serde(default = "five")]
    #[schema(minimum = 1, maximum = 100)]
    top_k: usize,
}

fn five() -> usize {
    5
}

/// Words for the blanks.
#[derive(Debug, Serialize, ToSchema)]
pub struct Response {
    /// The model.
    model: String,
    /// The tokens of the text as it was sent.
    tokens: Vec<Token>,
    /// Whether the text was cut.
    truncated: bool,
    /// The blanks in their order.
    blanks: Vec<Blank>,
}

/// A blank.
#[derive(Debug, Serialize, ToSchema)]
pub struct Blank {
    /// Index of its token.
    position: usize,
    /// First character of the text sent.
    start: usize,
    /// Character behind it.
    end: usize,
    /// First byte.
    byte_start: usize,
    /// Byte behind it.
    byte_end: usize,
    /// The hidden token; null where the text itself had the mask token.
    original: Option<Actual>,
    /// The most probable tokens, special ones left out.
    candidates: Vec<Word>,
}

/// A word for a blank.
#[derive(Debug, Serialize, ToSchema)]
pub struct Word {
    /// Its id.
    id: u32,
    /// The entry of the vocabulary.
    token: String,
    /// The piece as it reads.
    text: String,
    /// The whole word that results.
    word: String,
    /// The text with this blank filled.
    filled: String,
    /// Its probability.
    probability: f64,
}

/// The most probable words at the blanks of a text, each blank on its own.
#[utoipa::path(post, path = "/fill-mask", tag = "introspection", request_body = Request, responses((status = 200, body = Response), (status = "4XX", description = "The request cannot be done")))]
pub async fn fill_mask(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Answer<Response>, ApiError> {
    let served = app.model(request.model.as_deref(), "filling blanks", |m| {
        m.can(Ability::FillMask)
    })?;
    let top_k = super::check_range("top_k", request.top_k, 1..=100)?;
    let pipeline = &served.pipeline;
    let (encoded, tokens) =
        super::read_text(&app, &served, &request.text, TooLong::CUT, usize::MAX)?;
    let mut sequence = encoded.sequence();
    let blanks = hide(pipeline, &mut sequence.ids, &request.mask, &tokens)?;
    let rows = blanks.iter().map(|&position| position as u32).collect();
    let logits = served
        .worker
        .encode(pipeline, vec![sequence], Want::Logits(rows))
        .await?;
    let width = logits.len() / blanks.len();
    let mask = pipeline.tokenizer.special().mask;
    let mut answer = Vec::with_capacity(blanks.len());
    for (&position, logits) in blanks.iter().zip(logits.chunks(width)) {
        let token = &tokens[position];
        let row = Row::new(logits, 1.0);
        let best = malmoi_infer::fill_mask::top(logits, top_k, pipeline.tokenizer.special().ids());
        let place = (token.byte_start, token.byte_end);
        let candidates = best.into_iter().map(|candidate| {
            let filling =
                pipeline.fill(&request.text, place, candidate.id, candidate.probability)?;
            Ok(Word {
                id: filling.id,
                token: filling.token,
                text: pipeline.piece(candidate.id)?,
                word: filling.word,
                filled: filling.text,
                probability: filling.probability,
            })
        });
        answer.push(Blank {
            position,
            start: token.start,
            end: token.end,
            byte_start: token.byte_start,
            byte_end: token.byte_end,
            original: match Some(token.id) == mask {
                true => None,
                false => Some(row.actual(pipeline, token.id)?),
            },
            candidates: candidates.collect::<Result<_, ApiError>>()?,
        });
    }
    let usage = Usage {
        tokens: tokens.len(),
        truncated: encoded.truncated,
    };
    let response = Response {
        model: served.name.clone(),
        tokens,
        truncated: encoded.truncated,
        blanks: answer,
    };
    Ok(Answer(response, usage))
}

/// Hides the tokens `mask`; returns the positions of all blanks.
pub fn hide(
    pipeline: &malmoi_infer::Pipeline,
    ids: &mut [u32],
    mask: &[usize],
    tokens: &[Token],
) -> Result<Vec<usize>, ApiError> {
    let special = pipeline.tokenizer.special();
    let mask_id = special
        .mask
        .ok_or_else(|| ApiError::invalid("this tokenizer has no mask token"))?;
    for &position in mask {
        match tokens.get(position) {
            None => {
                return Err(ApiError::invalid(format!(
                    "the text has {} tokens, counted from 0, but {position} is to be hidden",
                    tokens.len()
                ))
                .at("mask"));
            }
            Some(token) if token.special && token.id != mask_id => {
                return Err(ApiError::invalid(format!(
                    "token {position} ({}) stands for no text and cannot be hidden",
                    token.token
                ))
                .at("mask"));
            }
            Some(_) => ids[position] = mask_id,
        }
    }
    let blanks: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == mask_id).collect();
    if blanks.is_empty() {
        let name = text::name(pipeline, mask_id);
        return Err(ApiError::invalid(format!(
            "nothing to fill: write {name} into the text, or list tokens to hide in `mask`"
        ))
        .at("text"));
    }
    if blanks.len() > MAX_BLANKS {
        return Err(ApiError::invalid(format!(
            "{} blanks in one text, at most {MAX_BLANKS} are filled",
            blanks.len()
        )));
    }
    Ok(blanks)
}
