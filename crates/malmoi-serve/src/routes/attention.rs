//! `/attention`: who looks at whom.

use axum::extract::State;
use malmoi_models::{Direction, PackedBatch};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::Ability;
use crate::state::App;
use crate::text::{self, Token, TooLong};

/// Longest text, in tokens.
const MAX_TOKENS: usize = 512;
/// Probabilities in one answer.
const MAX_NUMBERS: usize = 3_000_000;

/// A text to look into.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// The text; the source of an encoder-decoder.
    text: String,
    /// A second text, for encoders.
    pair: Option<String>,
    /// What the decoder of an encoder-decoder has written.
    target: Option<String>,
    /// Layers to show, from 0; by default all.
    layers: Option<Vec<usize>>,
    /// Heads to show, from 0; by default all.
    heads: Option<Vec<usize>>,
}

/// `[layer][head][query][key]`.
type Probabilities = Vec<Vec<Vec<Vec<f64>>>>;

/// Attention probabilities.
#[derive(Debug, Serialize, ToSchema)]
pub struct Response {
    /// The model.
    model: String,
    /// `encoder`, `decoder` or `encoder-decoder`.
    direction: &'static str,
    /// Layers of the model.
    n_layers: usize,
    /// Heads of a layer.
    n_heads: usize,
    /// The layers shown.
    layers: Vec<usize>,
    /// The heads shown.
    heads: Vec<usize>,
    /// The tokens.
    tokens: Vec<Token>,
    /// Whether the text was cut.
    truncated: bool,
    /// `[layer][head][query][key]`: each row sums to 1.
    #[schema(value_type = Vec<Vec<Vec<Vec<f64>>>>)]
    attention: Probabilities,
    /// The decoder's tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_tokens: Option<Vec<Token>>,
    /// Of the decoder among its own tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Vec<Vec<Vec<f64>>>>>)]
    target_attention: Option<Probabilities>,
    /// Of the decoder to the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Vec<Vec<Vec<f64>>>>>)]
    cross_attention: Option<Probabilities>,
}

/// How a direction is called.
pub fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Encoder => "encoder",
        Direction::Decoder => "decoder",
        Direction::EncoderDecoder => "encoder-decoder",
    }
}

/// Attention probabilities of every layer and head.
#[utoipa::path(post, path = "/attention", tag = "introspection", request_body = Request, responses((status = 200, body = Response), (status = "4XX", description = "The request cannot be done")))]
pub async fn attention(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Answer<Response>, ApiError> {
    let served = app.model(request.model.as_deref(), "attention", |m| {
        m.can(Ability::Attention)
    })?;
    super::check_text(&app, &request.text)?;
    let pipeline = &served.pipeline;
    let config = pipeline.model.config();
    let (text, pair) = (request.text, request.pair);
    let source = text::encode(pipeline, &text, pair.as_deref(), TooLong::CUT, MAX_TOKENS)?;
    let layers = chosen("layers", request.layers, config.n_layers())?;
    let heads = chosen("heads", request.heads, config.n_heads())?;
    let target = match (&request.target, config.decoder_start()) {
        (Some(target), Some(start)) => {
            super::check_text(&app, target)?;
            // The token in front takes one place.
            let most = MAX_TOKENS.min(text::max_tokens(pipeline)) - 1;
            Some(text::decoder_input(pipeline, target, start, most)?)
        }
        (None, Some(_)) => {
            return Err(ApiError::invalid(
                "an encoder-decoder looks from what it writes to what it reads: give a `target`",
            )
            .at("target"));
        }
        (Some(_), None) => {
            return Err(ApiError::invalid("only an encoder-decoder has a `target`").at("target"));
        }
        (None, None) => None,
    };
    let tokens = source.tokens(pipeline, &text, pair.as_deref())?;
    let target_tokens = match (&target, &request.target) {
        (Some(encoded), Some(text)) => Some(encoded.tokens(pipeline, text, None)?),
        _ => None,
    };
    let n = tokens.len();
    let m = target_tokens.as_ref().map_or(0, Vec::len);
    let shown = layers.len() * heads.len() * (n * n + m * m + m * n);
    if shown > MAX_NUMBERS {
        return Err(ApiError::invalid(format!(
            "this would be {shown} numbers, at most {MAX_NUMBERS} fit: choose fewer layers or heads, or a shorter text"
        )));
    }
    let segments = source.encoding.type_ids.clone();
    let ids = source.encoding.ids.clone();
    let target_ids = target.map(|target| target.encoding.ids);
    let (kept_layers, kept_heads) = (layers.clone(), heads.clone());
    let found = served
        .worker
        .call(move |pipeline| {
            let model = &pipeline.model;
            let mut batch = PackedBatch::from_sequences(&[&ids]);
            if segments.iter().any(|&segment| segment > 0) {
                batch = batch.with_segments(segments);
            }
            let n_heads = model.config().n_heads();
            let cut = |all: &[Vec<f32>], q: usize, k: usize| {
                select(all, (q, k), n_heads, &kept_layers, &kept_heads)
            };
            let Some(target) = target_ids else {
                let own = model.attention_probabilities(&batch)?;
                return Ok((cut(&own, n, n), None, None));
            };
            let own = model.source_attention_probabilities(&batch)?;
            let both = PackedBatch::from_sequences(&[&target]).with_source(batch);
            let written = model.attention_probabilities(&both)?;
            let cross = model.cross_attention_probabilities(&both)?;
            let (written, cross) = (cut(&written, m, m), cut(&cross, m, n));
            Ok((cut(&own, n, n), Some(written), Some(cross)))
        })
        .await?;
    let usage = Usage {
        tokens: n + m,
        truncated: source.truncated,
    };
    let response = Response {
        model: served.name.clone(),
        direction: direction_name(config.direction()),
        n_layers: config.n_layers(),
        n_heads: config.n_heads(),
        layers,
        heads,
        tokens,
        truncated: source.truncated,
        attention: found.0,
        target_tokens,
        target_attention: found.1,
        cross_attention: found.2,
    };
    Ok(Answer(response, usage))
}

fn chosen(
    what: &'static str,
    given: Option<Vec<usize>>,
    count: usize,
) -> Result<Vec<usize>, ApiError> {
    let given = given.unwrap_or_else(|| (0..count).collect());
    let mut seen = given.clone();
    seen.sort_unstable();
    seen.dedup();
    let outside = given.iter().find(|&&index| index >= count);
    if let Some(index) = outside {
        return Err(ApiError::invalid(format!(
            "there are {count} {what}, counted from 0, but {index} was asked for"
        ))
        .at(what));
    }
    if given.is_empty() || seen.len() < given.len() {
        return Err(
            ApiError::invalid(format!("{what}: expected each once, and at least one")).at(what),
        );
    }
    Ok(given)
}

/// Values of chosen layers and heads, to six digits. Layers beyond those that a stack has are left out.
fn select(
    all: &[Vec<f32>],
    (queries, keys): (usize, usize),
    n_heads: usize,
    layers: &[usize],
    heads: &[usize],
) -> Probabilities {
    let of_layer = |layer: &Vec<f32>| {
        let size = layer.len() / n_heads;
        let of_head = |&head: &usize| {
            let values = &layer[head * size..(head + 1) * size];
            let rows = values.chunks(keys).take(queries);
            rows.map(|row| row.iter().map(|&p| rounded(p)).collect())
                .collect()
        };
        heads.iter().map(of_head).collect()
    };
    let chosen = layers.iter().filter_map(|&layer| all.get(layer));
    chosen.map(of_layer).collect()
}

fn rounded(p: f32) -> f64 {
    (f64::from(p) * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_heads_are_cut_out() {
        // Two layers, two heads, one query, two keys.
        let all = vec![vec![0.1, 0.9, 0.2, 0.8], vec![0.3, 0.7, 0.4, 0.6]];
        assert_eq!(
            select(&all, (1, 2), 2, &[1], &[1, 0]),
            [[[[0.4, 0.6]], [[0.3, 0.7]]]]
        );
        assert!(chosen("heads", Some(vec![2]), 2).is_err());
        assert!(chosen("heads", Some(vec![0, 0]), 2).is_err());
        assert_eq!(chosen("heads", None, 2).unwrap(), [0, 1]);
    }
}
