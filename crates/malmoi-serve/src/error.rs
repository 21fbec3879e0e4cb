//! Errors as clients see them, in the shape of the interface that they called.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use malmoi_infer::InferError;
use malmoi_infer::sampling::SamplingError;
use malmoi_models::{BatchError, ModelError};
use malmoi_text::TextError;
use serde_json::json;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be understood or done.
    Validation,
    /// No key, or a wrong one.
    Authentication,
    /// An address or origin that may not ask.
    Permission,
    /// No such route or model.
    NotFound,
    /// Too much at once.
    Overloaded,
    /// Not ready, or going away.
    Unavailable,
    /// Too slow.
    Timeout,
    /// A fault of the server.
    Internal,
}

impl Kind {
    fn openai(self) -> &'static str {
        match self {
            Self::Validation | Self::NotFound => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::Overloaded => "rate_limit_error",
            Self::Unavailable | Self::Timeout | Self::Internal => "server_error",
        }
    }

    fn own(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Authentication => "authentication",
            Self::Permission => "permission",
            Self::NotFound => "not_found",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

/// An error on its way to a client.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Its kind.
    pub kind: Kind,
    /// What was expected, what was found, what to change.
    pub message: String,
    /// The field at fault.
    pub param: Option<&'static str>,
    /// A word for programs.
    pub code: Option<&'static str>,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error of a kind.
    pub fn new(status: StatusCode, kind: Kind, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
        }
    }

    /// 400: cannot be understood.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Kind::Validation, message)
    }

    /// 422: understood, but not possible.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::Validation, message)
    }

    /// 404 for a model.
    pub fn no_model(name: &str, known: &[String]) -> Self {
        let message = format!(
            "no model is called {name:?}: expected one of {}",
            known.join(", ")
        );
        Self::new(StatusCode::NOT_FOUND, Kind::NotFound, message)
            .with_code("model_not_found")
            .at("model")
    }

    /// 429 with a time to wait.
    pub fn busy(message: impl Into<String>, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, Kind::Overloaded, message)
        }
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Unavailable, message)
        }
    }

    /// 500. What happened is logged, not told.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Internal,
            "the server failed at this request; the fault is in its log under this request's id",
        )
    }

    /// The same error naming the field at fault.
    #[must_use]
    pub fn at(self, param: &'static str) -> Self {
        Self {
            param: Some(param),
            ..self
        }
    }

    /// The same error with a word for programs.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// The error in the shape of OpenAI's interface.
    pub fn openai_body(&self) -> serde_json::Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind.openai(),
            "param": self.param,
            "code": self.code,
        }})
    }

    /// The answer for a path.
    pub fn response(&self, path: &str) -> Response {
        let body = if path == "/v1" || path.starts_with("/v1/") {
            self.openai_body()
        } else {
            json!({"error": self.message, "error_type": self.kind.own()})
        };
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == Kind::Authentication {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    /// In our own shape; the outermost layer writes it again where another one was called.
    fn into_response(self) -> Response {
        let mut response = self.response("");
        response.extensions_mut().insert(self);
        response
    }
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<InferError> for ApiError {
    fn from(error: InferError) -> Self {
        match error {
            InferError::Sampling(SamplingError::NotFinite { .. }) => {
                tracing::error!(%error, "damaged model");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    Kind::Internal,
                    error.to_string(),
                )
            }
            error => Self::invalid(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_follows_the_path() {
        let error = ApiError::invalid("no").at("prompt");
        assert_eq!(
            error.openai_body(),
            json!({"error": {"message": "no", "type": "invalid_request_error", "param": "prompt", "code": null}})
        );
        let busy = ApiError::busy("later", 0).response("/embed");
        assert_eq!(busy.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(busy.headers()[header::RETRY_AFTER], "1");
    }
}
