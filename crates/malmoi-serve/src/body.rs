//! JSON in and out, with bounds.

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Kind};
use crate::state::App;

/// A JSON body.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let is_json = kind
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| {
                let kind = kind.split(';').next().unwrap_or_default().trim();
                kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json")
            });
        if !is_json {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Kind::Validation,
                "the body has no JSON content type: send `content-type: application/json`",
            ));
        }
        let bytes = read(request, app).await?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            ApiError::malformed(format!(
                "the body is not UTF-8 from byte {} on: encode it as UTF-8",
                error.valid_up_to()
            ))
        })?;
        serde_json::from_str(text).map(Self).map_err(|error| {
            let message = format!("the body does not fit: {error}");
            match error.classify() {
                serde_json::error::Category::Data => ApiError::invalid(message),
                _ => ApiError::malformed(message),
            }
        })
    }
}

async fn read(request: Request, app: &App) -> Result<axum::body::Bytes, ApiError> {
    let limits = &app.config().limits;
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Validation,
            format!(
                "the body is larger than {} bytes: send less at once",
                limits.body_bytes
            ),
        )
    };
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limits.body_bytes as u64) {
        return Err(too_large());
    }
    let reading = to_bytes(request.into_body(), limits.body_bytes);
    match tokio::time::timeout(limits.body_time, reading).await {
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            Kind::Timeout,
            format!(
                "the body did not arrive within {} seconds",
                limits.body_time.as_secs()
            ),
        )),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                if error.to_string().contains("length limit") {
                    return Err(too_large());
                }
                cause = error.source();
            }
            Err(ApiError::malformed("the body broke off"))
        }
    }
}

/// What went through the model for an answer; told in headers, because the bodies of borrowed interfaces have no room for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Tokens.
    pub tokens: usize,
    /// Whether a text was cut.
    pub truncated: bool,
}

/// An answer with its usage.
#[derive(Debug)]
pub struct Answer<T>(pub T, pub Usage);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.0).into_response();
        let headers = response.headers_mut();
        headers.insert("x-compute-tokens", self.1.tokens.into());
        let truncated = if self.1.truncated { "true" } else { "false" };
        headers.insert("x-truncated", HeaderValue::from_static(truncated));
        response
    }
}
