//! The routes: one file a noun.

mod attention;
mod embed;
mod fill_mask;
mod info;
mod lab;
mod ner;
mod next_token;
mod operation;
mod page;
mod predict;
mod qa;
mod rerank;
mod tokenize;
mod v1;
mod zero_shot;

use axum::Router;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::middleware;
use axum::routing::get;
use serde::Deserialize;
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::guard;
use crate::served::Served;
use crate::state::App;
use crate::text::{self, Encoded, Token, TooLong};

/// The model that a query names.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ModelQuery {
    /// A served model; by default the first that can do the work.
    pub model: Option<String>,
}

impl FromRequestParts<App> for ModelQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        query(parts, app).await
    }
}

/// Reads the query string.
async fn query<T: serde::de::DeserializeOwned>(
    parts: &mut Parts,
    app: &App,
) -> Result<T, ApiError> {
    let query = Query::<T>::from_request_parts(parts, app).await;
    query
        .map(|Query(query)| query)
        .map_err(|error| ApiError::invalid(error.body_text()))
}

/// Bounds the length of a text before anything is done with it.
fn check_text(app: &App, text: &str) -> Result<(), ApiError> {
    let most = app.config().limits.text_chars;
    // Bytes first: they bound the characters and cost nothing to count.
    if text.len() > most && text.chars().count() > most {
        return Err(ApiError::invalid(format!(
            "a text has more than {most} characters: send it in parts"
        )));
    }
    Ok(())
}

/// Checks a text and cuts it into tokens: what goes through the model, and what the client sees.
fn read_text(
    app: &App,
    served: &Served,
    text: &str,
    too_long: TooLong,
    most: usize,
) -> Result<(Encoded, Vec<Token>), ApiError> {
    check_text(app, text)?;
    let encoded = text::encode(&served.pipeline, text, None, too_long, most)?;
    let tokens = encoded.tokens(&served.pipeline, text, None)?;
    Ok((encoded, tokens))
}

/// Bounds the number of texts in a request.
fn check_batch(app: &App, count: usize) -> Result<(), ApiError> {
    let most = app.config().limits.batch;
    if count > most {
        return Err(ApiError::invalid(format!(
            "{count} texts at once, at most {most} are taken: send them in several requests"
        )));
    }
    Ok(())
}

/// Checks that a number lies in a range.
fn check_range(
    name: &'static str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, ApiError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (from, to) = (range.start(), range.end());
    Err(ApiError::invalid(format!("{name} is {value}: expected {from} to {to}")).at(name))
}

fn documented() -> OpenApiRouter<App> {
    let info = InfoBuilder::new()
        .title("malmoi")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("BERT and GPT models over HTTP"))
        .license(Some(
            LicenseBuilder::new().name("MIT OR Apache-2.0").build(),
        ));
    let document = OpenApiBuilder::new().info(info.build()).build();
    OpenApiRouter::with_openapi(document)
        .routes(routes!(operation::health))
        .routes(routes!(operation::ready))
        .routes(routes!(operation::metrics))
        .routes(routes!(v1::models::list))
        .routes(routes!(v1::models::retrieve))
        .routes(routes!(v1::completions::create))
        .routes(routes!(v1::chat::create))
        .routes(routes!(v1::embeddings::create))
        .routes(routes!(embed::embed))
        .routes(routes!(embed::embed_all))
        .routes(routes!(embed::similarity))
        .routes(routes!(predict::predict))
        .routes(routes!(rerank::rerank))
        .routes(routes!(tokenize::tokenize))
        .routes(routes!(tokenize::decode))
        .routes(routes!(info::info))
        .routes(routes!(fill_mask::fill_mask))
        .routes(routes!(next_token::next_token))
        .routes(routes!(attention::attention))
        .routes(routes!(ner::ner))
        .routes(routes!(qa::qa))
        .routes(routes!(zero_shot::zero_shot))
        .routes(routes!(lab::models::models))
        .routes(routes!(lab::live::live))
        .routes(routes!(lab::learn::learn))
        .routes(routes!(lab::runs::list))
        .routes(routes!(lab::runs::retrieve))
        .routes(routes!(lab::machine::machine))
        .routes(routes!(lab::machine::roofline))
}

/// The OpenAPI document.
pub fn openapi() -> OpenApi {
    documented().into_openapi()
}

/// Everything that the server answers.
pub fn router(app: App) -> Router {
    let (router, document) = documented().split_for_parts();
    let document = document.to_json().unwrap_or_default();
    let json = [("content-type", "application/json")];
    router
        .route(
            "/openapi.json",
            get(move || async move { (json, document) }),
        )
        .route("/", get(page::index))
        .route("/assets/{*path}", get(page::asset))
        .fallback(guard::not_found)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
