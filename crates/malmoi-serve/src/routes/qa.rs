//! `/qa`: answers in a text.

use axum::extract::State;
use malmoi_text::{EncodeOptions, Encoding, Side, Truncation, TruncationStrategy};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::predict::softmax;
use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::Ability;
use crate::state::App;
use crate::text;
use crate::worker::{Sequence, Want};

/// Longest answer, in tokens.
const MAX_ANSWER: usize = 30;
/// Tokens that neighbouring pieces of a long text share.
const STRIDE: usize = 64;

/// A question about a text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// The question.
    question: String,
    /// The text that holds the answer. Longer ones than the model reads go through it in pieces that overlap.
    context: String,
    /// Answers, 1 to 20.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 20)]
    top_k: usize,
}

fn one() -> usize {
    1
}

/// Answers, best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Response {
    /// The model.
    model: String,
    /// The answers.
    answers: Vec<Span>,
    /// Tokens that went through the model.
    token_count: usize,
    /// Whether the context was cut; always false, long ones go in pieces.
    truncated: bool,
}

/// A piece of the context.
#[derive(Debug, Clone, Serialize, ToSchema, PartialEq)]
pub struct Span {
    /// Its words.
    text: String,
    /// Probability of its first token times that of its last.
    score: f64,
    /// First character of the context.
    start: usize,
    /// Character behind it.
    end: usize,
    /// First byte of the context.
    byte_start: usize,
    /// Byte behind it.
    byte_end: usize,
}

/// The pieces of the context that answer the question best.
#[utoipa::path(post, path = "/qa", tag = "tasks", request_body = Request, responses((status = 200, body = Response), (status = "4XX", description = "The request cannot be done")))]
pub async fn qa(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Answer<Response>, ApiError> {
    let served = app.model(request.model.as_deref(), "answers", |m| m.can(Ability::Qa))?;
    super::check_text(&app, &request.question)?;
    super::check_text(&app, &request.context)?;
    let top_k = super::check_range("top_k", request.top_k, 1..=20)?;
    let pipeline = &served.pipeline;
    let most = text::max_tokens(pipeline);
    let question = pipeline
        .tokenizer
        .encode_ids(&request.question, false)?
        .len();
    let room = most.saturating_sub(question + pipeline.tokenizer.added_tokens(true));
    if room == 0 {
        return Err(ApiError::invalid(format!(
            "the question has {question} tokens and leaves no room for the context in {most}: shorten it"
        ))
        .at("question"));
    }
    let options = EncodeOptions {
        truncation: Some(Truncation {
            max_length: most,
            strategy: TruncationStrategy::OnlySecond,
            stride: STRIDE.min(room / 2),
            direction: Side::Right,
        }),
        ..EncodeOptions::default()
    };
    let context = Some(request.context.as_str());
    let mut encoding = pipeline
        .tokenizer
        .encode(&request.question, context, &options)?;
    encoding.cover_whole_characters(&request.question, context);
    let rest = std::mem::take(&mut encoding.overflowing);
    let pieces: Vec<Encoding> = std::iter::once(encoding).chain(rest).collect();
    super::check_batch(&app, pieces.len())?;
    let sequences: Vec<Sequence> = (pieces.iter())
        .map(|piece| Sequence {
            ids: piece.ids.clone(),
            segments: piece.type_ids.clone(),
        })
        .collect();
    let outputs = served
        .worker
        .encode(pipeline, sequences, Want::Outputs)
        .await?;
    let mut spans = Vec::new();
    let mut logits = outputs.as_slice();
    for piece in &pieces {
        let (own, others) = logits.split_at(2 * piece.len());
        spans.extend(best(piece, own, &request.context, top_k));
        logits = others;
    }
    let usage = Usage {
        tokens: pieces.iter().map(Encoding::len).sum(),
        truncated: false,
    };
    let response = Response {
        model: served.name.clone(),
        answers: leaders(spans, top_k),
        token_count: usage.tokens,
        truncated: false,
    };
    Ok(Answer(response, usage))
}

/// The best spans of one piece; `logits` are start and end of each token.
fn best(piece: &Encoding, logits: &[f32], context: &str, top_k: usize) -> Vec<Span> {
    let open: Vec<usize> = (0..piece.len())
        .filter(|&i| piece.sequence_ids[i] == Some(1) && piece.offsets[i].1 > piece.offsets[i].0)
        .collect();
    let column = |column: usize| {
        let chosen: Vec<f32> = open.iter().map(|&i| logits[2 * i + column]).collect();
        softmax(&chosen)
    };
    let (starts, ends) = (column(0), column(1));
    let mut spans = Vec::new();
    for (a, start) in starts.iter().enumerate() {
        for (b, end) in ends.iter().enumerate().skip(a).take(MAX_ANSWER) {
            let (first, last) = (open[a], open[b]);
            let (byte_start, byte_end) = (piece.byte_offsets[first].0, piece.byte_offsets[last].1);
            spans.push(Span {
                text: String::new(),
                score: start * end,
                start: piece.offsets[first].0,
                end: piece.offsets[last].1,
                byte_start,
                byte_end,
            });
        }
    }
    spans.sort_by(|a, b| b.score.total_cmp(&a.score));
    spans.truncate(top_k);
    for span in &mut spans {
        let words = context.get(span.byte_start..span.byte_end);
        span.text = words.unwrap_or_default().to_owned();
    }
    spans
}

/// The best of all pieces, each span once.
fn leaders(mut spans: Vec<Span>, top_k: usize) -> Vec<Span> {
    spans.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Span> = Vec::new();
    for span in spans {
        let known = (kept.iter()).any(|k| (k.start, k.end) == (span.start, span.end));
        if !known && kept.len() < top_k {
            kept.push(span);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_span_lies_in_the_context_and_is_not_backwards() {
        let piece = Encoding {
            ids: vec![0; 4],
            sequence_ids: vec![Some(0), Some(1), Some(1), Some(1)],
            offsets: vec![(0, 1), (0, 1), (1, 2), (2, 3)],
            byte_offsets: vec![(0, 3), (0, 3), (3, 6), (6, 9)],
            ..Encoding::default()
        };
        // The question's token and the pair (2, 1) would have the highest scores.
        let logits = [9.0, 9.0, 0.0, 5.0, 5.0, 0.0, 0.0, 4.0];
        let spans = best(&piece, &logits, "가나다", 2);
        assert_eq!((spans[0].text.as_str(), spans[0].start), ("나다", 1));
        let twice = [spans.clone(), spans].concat();
        assert_eq!(leaders(twice, 5).len(), 2);
    }
}
