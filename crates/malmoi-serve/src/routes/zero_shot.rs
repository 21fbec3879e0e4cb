//! `/zero-shot`: classes that were never trained.

use axum::extract::State;
use malmoi_infer::generate::log_probability;
use malmoi_models::PackedBatch;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::predict::{self, softmax};
use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::{Ability, Served};
use crate::state::App;
use crate::text::{self, TooLong};

/// Labels of one request.
const MAX_LABELS: usize = 64;

/// A text and its possible labels.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// The text.
    text: String,
    /// The labels.
    labels: Vec<String>,
    /// What is said about the text; `{}` stands for the label.
    #[serde(default = "default_template")]
    template: String,
    /// Each label on its own instead of all against each other.
    #[serde(default)]
    multi_label: bool,
}

fn default_template() -> String {
    "이 글은 {}에 관한 글이다.".into()
}

/// Labels with their scores, best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Response {
    /// The model.
    model: String,
    /// `entailment` (a classifier that says whether a statement follows) or `likelihood` (a decoder).
    method: &'static str,
    /// The labels.
    labels: Vec<String>,
    /// Their scores.
    scores: Vec<f64>,
    /// Tokens that went through the model.
    token_count: usize,
    /// Whether the text was cut.
    truncated: bool,
}

/// Scores of labels that the model was not trained for.
#[utoipa::path(post, path = "/zero-shot", tag = "tasks", request_body = Request, responses((status = 200, body = Response), (status = "4XX", description = "The request cannot be done")))]
pub async fn zero_shot(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Answer<Response>, ApiError> {
    let fits = |m: &Served| m.can(Ability::ZeroShot);
    let by_entailment = |m: &Served| fits(m) && m.entailment().is_some();
    let name = request.model.as_deref();
    let served = match app.model(name, "zero-shot classes", by_entailment) {
        Ok(served) => served,
        Err(_) => app.model(name, "zero-shot classes", fits)?,
    };
    super::check_text(&app, &request.text)?;
    super::check_range("labels", request.labels.len(), 1..=MAX_LABELS)?;
    if !request.template.contains("{}") {
        return Err(ApiError::invalid("the template has no {} for the label").at("template"));
    }
    let statement = |label: &String| request.template.replace("{}", label);
    let statements: Vec<String> = request.labels.iter().map(statement).collect();
    for statement in &statements {
        super::check_text(&app, statement)?;
    }
    let (method, scores, usage) = match served.entailment() {
        Some(places) => {
            let (scores, usage) = entailment(&app, &served, &request, statements, places).await?;
            ("entailment", scores, usage)
        }
        None => {
            let (scores, usage) = likelihood(&served, &request, &statements).await?;
            ("likelihood", scores, usage)
        }
    };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let response = Response {
        model: served.name.clone(),
        method,
        labels: order.iter().map(|&i| request.labels[i].clone()).collect(),
        scores: order.iter().map(|&i| scores[i]).collect(),
        token_count: usage.tokens,
        truncated: usage.truncated,
    };
    Ok(Answer(response, usage))
}

/// How surely each statement follows from the text.
async fn entailment(
    app: &App,
    served: &Served,
    request: &Request,
    statements: Vec<String>,
    (yes, no): (usize, Option<usize>),
) -> Result<(Vec<f64>, Usage), ApiError> {
    let pair = |statement| (request.text.clone(), Some(statement));
    let pairs: Vec<predict::Pair> = statements.into_iter().map(pair).collect();
    let (rows, usage) = predict::logits(app, served, &pairs, TooLong::CUT).await?;
    let scores = match (request.multi_label, no) {
        (true, Some(no)) => (rows.iter())
            .map(|row| softmax(&[row[no], row[yes]])[1])
            .collect(),
        (true, None) => rows.iter().map(|row| softmax(row)[yes]).collect(),
        (false, _) => softmax(&rows.iter().map(|row| row[yes]).collect::<Vec<_>>()),
    };
    Ok((scores, usage))
}

/// The mean log-probability of each statement's tokens behind the text, as shares (or, each on its own, as mean probabilities).
async fn likelihood(
    served: &Served,
    request: &Request,
    statements: &[String],
) -> Result<(Vec<f64>, Usage), ApiError> {
    let pipeline = &served.pipeline;
    let longest = (statements.iter())
        .map(|statement| Ok(pipeline.tokenizer.encode_ids(statement, false)?.len() + 1))
        .collect::<Result<Vec<usize>, ApiError>>()?;
    let longest = longest.into_iter().max().unwrap_or(0);
    let room = text::max_tokens(pipeline).saturating_sub(longest);
    if room == 0 {
        return Err(
            ApiError::invalid("the labels leave no room for the text: shorten them").at("labels"),
        );
    }
    let encoded = text::encode(pipeline, &request.text, None, TooLong::CUT, room)?;
    let mut usage = Usage {
        tokens: 0,
        truncated: encoded.truncated,
    };
    let mut sequences = Vec::with_capacity(statements.len());
    for statement in statements {
        let mut ids = encoded.encoding.ids.clone();
        ids.extend(
            pipeline
                .tokenizer
                .encode_ids(&format!("\n{statement}"), false)?,
        );
        usage.tokens += ids.len();
        sequences.push(ids);
    }
    let (before, most) = (encoded.encoding.len(), text::max_tokens(pipeline));
    if let Some(long) = sequences.iter().find(|ids| ids.len() > most) {
        return Err(ApiError::invalid(format!(
            "text and label have {} tokens, but {most} fit: shorten them",
            long.len()
        )));
    }
    let means = served
        .worker
        .call(move |pipeline| {
            let mut means = Vec::with_capacity(sequences.len());
            for ids in &sequences {
                let batch = PackedBatch::from_sequences(&[ids]);
                let rows: Vec<u32> = (before as u32 - 1..ids.len() as u32 - 1).collect();
                let logits = pipeline.model.logits(&batch, &rows)?;
                let width = logits.len() / rows.len().max(1);
                let scored = logits.chunks(width.max(1)).zip(&ids[before..]);
                let sum: f64 = scored.map(|(row, &id)| log_probability(row, id)).sum();
                means.push(sum / rows.len().max(1) as f64);
            }
            Ok(means)
        })
        .await?;
    let scores = match request.multi_label {
        true => means.into_iter().map(f64::exp).collect(),
        false => malmoi_infer::sampling::softmax(&means),
    };
    Ok((scores, usage))
}
