//! `/ner`: named entities.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::predict::softmax;
use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::Ability;
use crate::state::App;
use crate::text::{Token, TooLong, TruncationDirection};
use crate::worker::Want;

/// A text to search.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// The text.
    text: String,
    /// Cut a text that is too long instead of refusing it.
    #[serde(default = "yes")]
    truncate: bool,
}

fn yes() -> bool {
    true
}

/// Entities of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Response {
    /// The model.
    model: String,
    /// The entities in their order.
    entities: Vec<Entity>,
    /// The tokens with their labels.
    tokens: Vec<Labelled>,
    /// Tokens that went through the model.
    token_count: usize,
    /// Whether the text was cut.
    truncated: bool,
}

/// An entity.
#[derive(Debug, Clone, Serialize, ToSchema, PartialEq)]
pub struct Entity {
    /// Its kind.
    label: String,
    /// Its words.
    text: String,
    /// Mean probability of its tokens' labels.
    score: f64,
    /// First character.
    start: usize,
    /// Character behind it.
    end: usize,
    /// First byte.
    byte_start: usize,
    /// Byte behind it.
    byte_end: usize,
}

/// A token with its label.
#[derive(Debug, Serialize, ToSchema)]
pub struct Labelled {
    /// The token.
    #[serde(flatten)]
    token: Token,
    /// Its most probable label.
    label: String,
    /// The label's probability.
    score: f64,
}

/// Named entities of a text.
#[utoipa::path(post, path = "/ner", tag = "tasks", request_body = Request, responses((status = 200, body = Response), (status = "4XX", description = "The request cannot be done")))]
pub async fn ner(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Answer<Response>, ApiError> {
    let served = app.model(request.model.as_deref(), "named entities", |m| {
        m.can(Ability::Ner)
    })?;
    let pipeline = &served.pipeline;
    let too_long = TooLong::new(request.truncate, TruncationDirection::Right);
    let (encoded, tokens) = super::read_text(&app, &served, &request.text, too_long, usize::MAX)?;
    let sequence = vec![encoded.sequence()];
    let outputs = served
        .worker
        .encode(pipeline, sequence, Want::Outputs)
        .await?;
    let width = outputs.len() / tokens.len();
    let labels = served.labels(width);
    let labelled: Vec<Labelled> = (tokens.into_iter().zip(outputs.chunks(width)))
        .map(|(token, logits)| {
            let probabilities = softmax(logits);
            let best = malmoi_infer::sampling::argmax(&probabilities).unwrap_or(0);
            Labelled {
                token,
                label: labels[best].clone(),
                score: probabilities[best],
            }
        })
        .collect();
    let usage = Usage {
        tokens: labelled.len(),
        truncated: encoded.truncated,
    };
    let response = Response {
        model: served.name.clone(),
        entities: entities(&request.text, &labelled),
        token_count: usage.tokens,
        tokens: labelled,
        truncated: usage.truncated,
    };
    Ok(Answer(response, usage))
}

/// Runs of tokens of one kind. `B-` begins an entity, `I-` and labels without a mark go on with one of the same kind, `O` is none.
fn entities(text: &str, tokens: &[Labelled]) -> Vec<Entity> {
    let mut found: Vec<(Entity, usize)> = Vec::new();
    let mut open = false;
    for labelled in tokens.iter().filter(|labelled| !labelled.token.special) {
        let token = &labelled.token;
        let (mark, kind) = match labelled.label.split_once('-') {
            Some((mark @ ("B" | "I" | "E" | "S" | "L" | "U"), kind)) => (mark, kind),
            _ => ("", labelled.label.as_str()),
        };
        if kind == "O" {
            open = false;
            continue;
        }
        let begins = matches!(mark, "B" | "S" | "U");
        match found.last_mut() {
            Some((entity, count)) if open && !begins && entity.label == kind => {
                entity.end = token.end;
                entity.byte_end = token.byte_end;
                entity.score += labelled.score;
                *count += 1;
            }
            _ => found.push((
                Entity {
                    label: kind.to_owned(),
                    text: String::new(),
                    score: labelled.score,
                    start: token.start,
                    end: token.end,
                    byte_start: token.byte_start,
                    byte_end: token.byte_end,
                },
                1,
            )),
        }
        open = !matches!(mark, "E" | "S" | "L" | "U");
    }
    let finish = |(mut entity, count): (Entity, usize)| {
        entity.score /= count as f64;
        let words = text.get(entity.byte_start..entity.byte_end);
        entity.text = words.unwrap_or_default().to_owned();
        entity
    };
    found.into_iter().map(finish).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(labels: &[&str]) -> Vec<Labelled> {
        let token = |(i, label): (usize, &&str)| Labelled {
            token: Token {
                id: 0,
                token: String::new(),
                text: String::new(),
                special: false,
                word: None,
                start: i,
                end: i + 1,
                byte_start: 3 * i,
                byte_end: 3 * i + 3,
            },
            label: label.to_string(),
            score: 0.5 + 0.1 * i as f64,
        };
        labels.iter().enumerate().map(token).collect()
    }

    #[test]
    fn runs_of_labels_become_entities() {
        let text = "가나다라마바사";
        let found = entities(
            text,
            &tokens(&["B-PS", "I-PS", "O", "B-LC", "B-LC", "I-OG", "I-OG"]),
        );
        let short: Vec<(&str, &str)> = (found.iter())
            .map(|e| (e.label.as_str(), e.text.as_str()))
            .collect();
        assert_eq!(
            short,
            [("PS", "가나"), ("LC", "라"), ("LC", "마"), ("OG", "바사")]
        );
        assert!((found[0].score - 0.55).abs() < 1e-9);
        assert_eq!((found[3].start, found[3].byte_end), (5, 21));
    }
}
