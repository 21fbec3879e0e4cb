//! How a text is to be written: the parameters of requests, checked.

use malmoi_infer::beam::BeamOptions;
use malmoi_infer::constraint::Shape;
use malmoi_infer::sampling::SamplingSettings;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::routes::check_range;
use crate::routes::tokenize::OneOrMany;

/// Stop strings of one request.
const MAX_STOPS: usize = 16;
/// Log-probabilities at one place.
pub const MAX_TOP: usize = 50;
/// Beams of one text.
const MAX_BEAMS: usize = 16;

/// Parameters of OpenAI's interface that change nothing here.
const INERT: [&str; 6] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
];

/// Refuses parameters that nobody would act on.
pub fn check_rest(rest: &Map<String, Value>) -> Result<(), ApiError> {
    let unknown = rest
        .iter()
        .find(|(name, value)| !value.is_null() && !INERT.contains(&name.as_str()));
    match unknown {
        None => Ok(()),
        Some((name, _)) => Err(ApiError::malformed(format!(
            "the parameter `{name}` is not supported: leave it away"
        ))
        .with_code("unknown_parameter")),
    }
}

/// How a text is written.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Settings {
    /// Divisor of the logits; 0 takes the most probable token. Default 1.
    #[schema(minimum = 0, maximum = 100)]
    pub temperature: Option<f64>,
    /// Keep the most probable tokens with this mass.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Keep so many of the most probable tokens.
    #[schema(minimum = 1)]
    pub top_k: Option<usize>,
    /// Keep tokens with this fraction of the largest probability.
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    /// Keep the most typical tokens with this mass.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub typical_p: Option<f64>,
    /// Factor against tokens seen before.
    #[schema(exclusive_minimum = 0)]
    pub repetition_penalty: Option<f64>,
    /// Taken once for every time that a token was generated.
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f64>,
    /// Taken from tokens that were generated.
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f64>,
    /// Length of runs of tokens that must not come twice.
    #[schema(minimum = 1)]
    pub no_repeat_ngram_size: Option<usize>,
    /// Tokens to write before the text may end.
    pub min_tokens: Option<usize>,
    /// Added to the logits of tokens, by id.
    pub logit_bias: Option<std::collections::BTreeMap<String, f64>>,
    /// The same seed gives the same text.
    pub seed: Option<i64>,
    /// Texts for each prompt. Default 1.
    #[schema(minimum = 1)]
    pub n: Option<usize>,
    /// Strings that end a text; they are not part of it.
    pub stop: Option<OneOrMany<String>>,
    /// Hypotheses of a beam search; instead of drawing.
    #[schema(minimum = 1, maximum = 16)]
    pub num_beams: Option<usize>,
    /// Exponent of the length in a beam search.
    pub length_penalty: Option<f64>,
    /// The whole text matches this regular expression.
    pub regex: Option<String>,
    /// The whole text is JSON of this schema.
    #[schema(value_type = Option<Object>)]
    pub json_schema: Option<Value>,
    /// The same in OpenAI's form: `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {"schema": …}}`.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
    /// Guess so many tokens ahead from what stood in the text before, where the most probable token is taken. The text stays the
    /// same.
    #[schema(maximum = 16)]
    pub lookup_tokens: Option<usize>,
    /// Send the text as it is written.
    #[serde(default)]
    pub stream: bool,
    /// What a stream tells at its end.
    pub stream_options: Option<StreamOptions>,
}

/// What a stream tells at its end.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Tokens.
    #[serde(default)]
    pub include_usage: bool,
}

/// The strings that end a text.
///
/// # Errors
/// 422 for too many.
pub fn stops(settings: &Settings) -> Result<Vec<String>, ApiError> {
    let stops = match &settings.stop {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop.clone()],
        Some(OneOrMany::Many(stops)) => stops.clone(),
    };
    check_range("stop", stops.len(), 0..=MAX_STOPS)?;
    Ok(stops)
}

/// The rules of choice.
///
/// # Errors
/// 422 for what is out of range.
pub fn sampling(settings: &Settings) -> Result<SamplingSettings, ApiError> {
    let temperature = settings.temperature.unwrap_or(1.0);
    if !(0.0..=100.0).contains(&temperature) {
        return Err(
            ApiError::invalid(format!("temperature is {temperature}: expected 0 to 100"))
                .at("temperature"),
        );
    }
    let mut logit_bias = Vec::new();
    for (id, bias) in settings.logit_bias.iter().flatten() {
        let id: u32 = id.parse().map_err(|_| {
            ApiError::invalid(format!("logit_bias names {id:?}: expected token ids"))
                .at("logit_bias")
        })?;
        logit_bias.push((id, *bias));
    }
    let draws = temperature > 0.0 && settings.num_beams.is_none_or(|beams| beams == 1);
    let sampling = SamplingSettings {
        do_sample: draws,
        temperature: (draws && temperature != 1.0).then_some(temperature),
        top_k: settings.top_k,
        top_p: settings.top_p,
        min_p: settings.min_p,
        typical_p: settings.typical_p,
        repetition_penalty: settings.repetition_penalty,
        frequency_penalty: settings.frequency_penalty.filter(|p| *p != 0.0),
        presence_penalty: settings.presence_penalty.filter(|p| *p != 0.0),
        no_repeat_ngram_size: settings.no_repeat_ngram_size,
        min_new_tokens: settings.min_tokens,
        logit_bias,
        ..SamplingSettings::default()
    };
    (sampling.validate()).map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok(sampling)
}

/// A beam search that keeps `beams` hypotheses and gives `count` of them.
///
/// # Errors
/// 422 for what is out of range or does not go with it.
pub fn beam_options(
    settings: &Settings,
    with_logprobs: bool,
    beams: usize,
    count: usize,
    max_new_tokens: usize,
    end_ids: &[u32],
) -> Result<BeamOptions, ApiError> {
    check_range("num_beams", beams, 1..=MAX_BEAMS)?;
    let conflict = if settings.stream {
        Some("stream")
    } else if with_logprobs {
        Some("logprobs")
    } else if shape(settings)?.is_some() {
        Some("response_format, regex and json_schema")
    } else if settings.stop.is_some() {
        Some("stop")
    } else {
        None
    };
    if let Some(other) = conflict {
        return Err(ApiError::invalid(format!(
            "a beam search does not go with {other}: leave one of them away"
        ))
        .at("num_beams"));
    }
    Ok(BeamOptions {
        num_beams: beams,
        num_return_sequences: count,
        max_new_tokens,
        length_penalty: settings.length_penalty.unwrap_or(1.0),
        early_stopping: false,
        end_ids: end_ids.to_vec(),
        sampling: SamplingSettings {
            do_sample: false,
            ..sampling(settings)?
        },
    })
}

/// What the text must look like.
///
/// # Errors
/// 422 for a form that is not known, or several.
pub fn shape(settings: &Settings) -> Result<Option<Shape>, ApiError> {
    let format = match &settings.response_format {
        None | Some(Value::Null) => None,
        Some(format) => match format["type"].as_str() {
            Some("text") => None,
            Some("json_object") => Some(Shape::JsonObject),
            Some("json_schema") if format["json_schema"]["schema"].is_object() => Some(
                Shape::JsonSchema(format["json_schema"]["schema"].to_string()),
            ),
            _ => {
                return Err(ApiError::invalid(
                    "response_format: expected the type text, json_object, or json_schema with json_schema.schema",
                )
                .at("response_format"));
            }
        },
    };
    let schema = (settings.json_schema.as_ref())
        .filter(|schema| !schema.is_null())
        .map(|schema| Shape::JsonSchema(schema.to_string()));
    let regex = settings.regex.clone().map(Shape::Regex);
    let mut given = [format, schema, regex].into_iter().flatten();
    let shape = given.next();
    if given.next().is_some() {
        return Err(ApiError::invalid(
            "response_format, json_schema and regex exclude each other: give one of them",
        ));
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn temperature_zero_is_greedy_and_nothing_is_drawn_by_beams() {
        let greedy = Settings {
            temperature: Some(0.0),
            top_p: Some(0.5),
            ..Settings::default()
        };
        assert!(!sampling(&greedy).unwrap().do_sample);
        assert!(sampling(&Settings::default()).unwrap().do_sample);
        let beams = Settings {
            num_beams: Some(3),
            ..Settings::default()
        };
        assert!(!sampling(&beams).unwrap().do_sample);
        let wrong = Settings {
            top_p: Some(1.5),
            ..Settings::default()
        };
        assert!(sampling(&wrong).is_err());
    }

    #[test]
    fn one_shape_at_most() {
        let settings = |format: Value, regex: Option<&str>| Settings {
            response_format: Some(format),
            regex: regex.map(str::to_owned),
            ..Settings::default()
        };
        let schema = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}});
        assert_eq!(
            shape(&settings(schema.clone(), None)).unwrap(),
            Some(Shape::JsonSchema(r#"{"type":"object"}"#.into()))
        );
        assert!(shape(&settings(schema, Some("a"))).is_err());
        assert_eq!(
            shape(&settings(json!({"type": "text"}), Some("a"))).unwrap(),
            Some(Shape::Regex("a".into()))
        );
        assert!(shape(&settings(json!({"type": "xml"}), None)).is_err());
    }

    #[test]
    fn unknown_parameters_are_named() {
        let rest = |value: Value| value.as_object().cloned().unwrap();
        assert!(check_rest(&rest(json!({"user": "a", "tools": null}))).is_ok());
        let error = check_rest(&rest(json!({"tools": []}))).unwrap_err();
        assert!(error.message.contains("`tools`"));
    }
}
