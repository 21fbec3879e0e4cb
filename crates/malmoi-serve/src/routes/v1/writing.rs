//! What completions and conversations share: settings of generation, and texts on their way from the engine to a client.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use malmoi_infer::beam::BeamOptions;
use malmoi_infer::constraint::Shape;
use malmoi_infer::engine::{self, Drafting, Event, Sink, Writing};
use malmoi_infer::generate::{FinishReason, Flow};
use malmoi_infer::sampling::SamplingSettings;
use malmoi_infer::text_stream::TextStream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::metrics::OfModel;
use crate::routes::tokenize::OneOrMany;
use crate::served::Served;
use crate::state::App;

/// Texts of one request, prompts times choices.
const MAX_TEXTS: usize = 64;
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

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct TokenUsage {
    /// Tokens read.
    pub prompt_tokens: usize,
    /// Tokens written.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

impl TokenUsage {
    /// Both numbers and their sum.
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
        }
    }
}

/// A token as it was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The token.
    pub id: u32,
    /// Its piece of text.
    pub text: String,
    /// Natural logarithm of its probability.
    pub log_probability: f64,
    /// The most probable at its place, with their pieces.
    pub top: Vec<(u32, String, f64)>,
    /// Characters of the text before it.
    pub offset: usize,
}

/// A finished text.
#[derive(Debug, Clone)]
pub struct Text {
    /// Which prompt.
    pub prompt: usize,
    /// The text.
    pub text: String,
    /// Its tokens; with their log-probabilities where those were asked for.
    pub tokens: Vec<Written>,
    /// Tokens written, also those of a stop string.
    pub count: usize,
    /// `stop` or `length`.
    pub finish: &'static str,
}

/// A step of a stream.
#[derive(Debug)]
pub struct Step {
    /// Which text of the request.
    pub index: usize,
    /// Text that became final.
    pub text: String,
    /// The tokens that it came from.
    pub tokens: Vec<Written>,
    /// Why it ended, if it did.
    pub finish: Option<&'static str>,
}

/// What to write.
#[derive(Debug)]
pub struct Job {
    /// Ids of each prompt.
    pub prompts: Vec<Vec<u32>>,
    /// How.
    pub settings: Settings,
    /// Tokens at most.
    pub max_tokens: Option<usize>,
    /// Texts written for each prompt, of which the best `n` are given.
    pub best_of: Option<usize>,
    /// Log-probabilities of each token, and of so many at its place.
    pub top: Option<usize>,
}

/// Texts at work.
#[derive(Debug)]
pub struct Running {
    served: std::sync::Arc<Served>,
    events: UnboundedReceiver<(usize, Event)>,
    prompts: Vec<Vec<u32>>,
    stops: Vec<String>,
    per_prompt: usize,
    n: usize,
    top: bool,
}

#[derive(Debug)]
struct ChannelSink {
    index: usize,
    events: UnboundedSender<(usize, Event)>,
    metrics: std::sync::Arc<crate::metrics::Metrics>,
    model: OfModel,
    since: Instant,
    first: Option<Instant>,
    count: usize,
}

impl Sink for ChannelSink {
    fn event(&mut self, event: Event) -> Flow {
        match &event {
            Event::Token(_) => {
                self.count += 1;
                if self.first.is_none() {
                    self.first = Some(Instant::now());
                    let waited = self.since.elapsed().as_secs_f64();
                    (self.metrics.first_token.get_or_create(&self.model)).observe(waited);
                }
            }
            Event::Finished(_) => {
                if let Some(first) = self.first.filter(|_| self.count > 1) {
                    let seconds = first.elapsed().as_secs_f64().max(1e-6);
                    let rate = (self.count - 1) as f64 / seconds;
                    (self.metrics.token_rate.get_or_create(&self.model)).observe(rate);
                }
            }
            _ => {}
        }
        match self.events.send((self.index, event)) {
            Ok(()) => Flow::Continue,
            Err(_) => Flow::Cancel,
        }
    }

    fn is_wanted(&self) -> bool {
        !self.events.is_closed()
    }
}

/// Hands a job to the model's thread.
///
/// # Errors
/// 422 for settings that do not fit, 429 when the queue is full.
pub fn start(app: &App, served: &std::sync::Arc<Served>, job: Job) -> Result<Running, ApiError> {
    let settings = &job.settings;
    let n = crate::routes::check_range("n", settings.n.unwrap_or(1), 1..=MAX_TEXTS)?;
    let per_prompt = job.best_of.unwrap_or(n);
    if per_prompt < n {
        return Err(ApiError::invalid(format!(
            "best_of is {per_prompt}, but n is {n}: best_of counts the texts that are written, n those that are given"
        ))
        .at("best_of"));
    }
    let texts = job.prompts.len() * per_prompt;
    if job.prompts.is_empty() || texts > MAX_TEXTS {
        return Err(ApiError::invalid(format!(
            "{} prompts of {per_prompt} texts: expected 1 to {MAX_TEXTS} texts in all",
            job.prompts.len()
        ))
        .at("prompt"));
    }
    let stops = match &settings.stop {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop.clone()],
        Some(OneOrMany::Many(stops)) => stops.clone(),
    };
    crate::routes::check_range("stop", stops.len(), 0..=MAX_STOPS)?;
    let end_ids = served.pipeline.end_ids().to_vec();
    let shape = shape(settings)?;
    let sampling = sampling(settings)?;
    // A text without a seed is drawn from the clock.
    let seed = settings.seed.map_or_else(clock, |seed| seed as u64);
    let metrics = std::sync::Arc::clone(app.metrics());
    let (sender, events) = unbounded_channel();
    let mut requests = Vec::with_capacity(texts);
    for (at, prompt) in job.prompts.iter().enumerate() {
        let config = served.pipeline.model.config();
        let used = if config.decoder_start().is_some() {
            1
        } else {
            prompt.len()
        };
        let left = config.position_limit().saturating_sub(used).max(1);
        let most = job
            .max_tokens
            .unwrap_or(left)
            .min(app.config().limits.new_tokens);
        if most == 0 {
            return Err(ApiError::invalid("max_tokens is 0: expected 1 or more").at("max_tokens"));
        }
        let beams = match settings.num_beams {
            None | Some(1) => None,
            Some(beams) => Some(beam_options(
                settings, &job, beams, per_prompt, most, &end_ids,
            )?),
        };
        let rows = if beams.is_some() { 1 } else { per_prompt };
        for stream in 0..rows {
            let constraint = match &shape {
                Some(shape) => Some(served.grammars()?.constraint(shape)?),
                None => None,
            };
            requests.push(engine::Request {
                prompt: prompt.clone(),
                max_new_tokens: most,
                end_ids: end_ids.clone(),
                writing: match &beams {
                    Some(options) => Writing::Beams(options.clone()),
                    None => Writing::Tokens(sampling.clone()),
                },
                seed,
                stream: (at * per_prompt + stream) as u64,
                // Of several texts the better are told by their probabilities.
                top: job.top.or((per_prompt > n).then_some(0)),
                drafting: match settings.lookup_tokens {
                    Some(tokens) => Drafting::LookUp {
                        tokens: crate::routes::check_range("lookup_tokens", tokens, 0..=16)?,
                    },
                    None if served.has_draft => Drafting::Model { tokens: 4 },
                    None => Drafting::Off,
                },
                constraint,
                sink: Box::new(ChannelSink {
                    index: at * per_prompt + stream,
                    events: sender.clone(),
                    metrics: std::sync::Arc::clone(&metrics),
                    model: OfModel {
                        model: served.name.clone(),
                    },
                    since: Instant::now(),
                    first: None,
                    count: 0,
                }),
            });
        }
    }
    for request in requests {
        served.worker.generate(request)?;
    }
    Ok(Running {
        served: std::sync::Arc::clone(served),
        events,
        prompts: job.prompts,
        stops,
        per_prompt,
        n,
        top: job.top.is_some(),
    })
}

fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

fn sampling(settings: &Settings) -> Result<SamplingSettings, ApiError> {
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

fn beam_options(
    settings: &Settings,
    job: &Job,
    beams: usize,
    count: usize,
    max_new_tokens: usize,
    end_ids: &[u32],
) -> Result<BeamOptions, ApiError> {
    crate::routes::check_range("num_beams", beams, 1..=MAX_BEAMS)?;
    let conflict = if settings.stream {
        Some("stream")
    } else if job.top.is_some() {
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
fn shape(settings: &Settings) -> Result<Option<Shape>, ApiError> {
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

/// A text between its events.
struct Half<'a> {
    stream: Option<TextStream<'a>>,
    pending: Vec<Written>,
    text: String,
    tokens: Vec<Written>,
    chars: usize,
    count: usize,
    done: bool,
}

impl Running {
    /// Tokens of all prompts.
    pub fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(Vec::len).sum()
    }

    /// The prompts.
    pub fn prompts(&self) -> &[Vec<u32>] {
        &self.prompts
    }

    /// Texts given.
    pub fn count(&self) -> usize {
        self.prompts.len() * self.n
    }

    /// Follows the texts until all have ended. `on_step` hears of every piece (its answer says whether to go on).
    ///
    /// # Errors
    /// What went wrong with one of them.
    pub async fn follow(
        mut self,
        mut on_step: impl FnMut(Step) -> bool,
    ) -> Result<Vec<Text>, ApiError> {
        let served = std::sync::Arc::clone(&self.served);
        let pipeline = &served.pipeline;
        let stops = std::mem::take(&mut self.stops);
        let total = self.prompts.len() * self.per_prompt;
        let mut halves = Vec::with_capacity(total);
        for index in 0..total {
            let prompt = &self.prompts[index / self.per_prompt];
            halves.push(Half {
                stream: Some(TextStream::new(pipeline, prompt, &stops)?),
                pending: Vec::new(),
                text: String::new(),
                tokens: Vec::new(),
                chars: 0,
                count: 0,
                done: false,
            });
        }
        let mut texts: Vec<Option<Text>> = vec![None; total];
        let mut open = total;
        while open > 0 {
            let Some((index, event)) = self.events.recv().await else {
                return Err(ApiError::internal());
            };
            let prompt = index / self.per_prompt;
            let half = &mut halves[index];
            if half.done {
                continue;
            }
            let (text, finish) = match event {
                Event::Lost => return Err(ApiError::internal()),
                Event::Failed(error) => return Err(error.into()),
                Event::Found(hypotheses) => {
                    for (at, hypothesis) in hypotheses.into_iter().enumerate() {
                        let mut stream = TextStream::new(pipeline, &self.prompts[prompt], &stops)?;
                        let mut text = String::new();
                        for &id in &hypothesis.ids {
                            text.push_str(&stream.push(id)?.0);
                        }
                        text.push_str(&stream.finish()?.0);
                        texts[index + at] = Some(Text {
                            prompt,
                            text,
                            tokens: Vec::new(),
                            count: hypothesis.ids.len(),
                            finish: if hypothesis.ended { "stop" } else { "length" },
                        });
                    }
                    open -= self.per_prompt;
                    continue;
                }
                Event::Token(choice) => {
                    let written = self.written(&choice, half.chars)?;
                    half.chars += written.text.chars().count();
                    half.count += 1;
                    half.pending.push(written);
                    let pushed = half.stream.as_mut().map(|stream| stream.push(choice.token));
                    let (text, stopped) = pushed.transpose()?.unwrap_or_default();
                    (text, stopped.then_some("stop"))
                }
                Event::Finished(reason) => {
                    let rest = half.stream.take().map(TextStream::finish);
                    let (text, stopped) = rest.transpose()?.unwrap_or_default();
                    let finish = match reason {
                        FinishReason::Length if !stopped => "length",
                        _ => "stop",
                    };
                    (text, Some(finish))
                }
            };
            half.text.push_str(&text);
            let mut tokens = Vec::new();
            if !text.is_empty() || finish.is_some() {
                tokens = std::mem::take(&mut half.pending);
                half.tokens.extend(tokens.iter().cloned());
            }
            if let Some(finish) = finish {
                half.done = true;
                open -= 1;
                texts[index] = Some(Text {
                    prompt,
                    text: std::mem::take(&mut half.text),
                    tokens: std::mem::take(&mut half.tokens),
                    count: half.count,
                    finish,
                });
            }
            let step = Step {
                index,
                text,
                tokens,
                finish,
            };
            if (!step.text.is_empty() || step.finish.is_some()) && !on_step(step) {
                return Err(ApiError::internal());
            }
        }
        Ok(self.best(texts.into_iter().flatten().collect()))
    }

    /// The best `n` of each prompt's texts, by the mean log-probability of their tokens.
    fn best(&self, texts: Vec<Text>) -> Vec<Text> {
        if self.per_prompt == self.n {
            return texts;
        }
        let mean = |text: &Text| {
            let sum: f64 = text.tokens.iter().map(|t| t.log_probability).sum();
            sum / text.tokens.len().max(1) as f64
        };
        let mut best = Vec::new();
        for prompt in 0..self.prompts.len() {
            let mut own: Vec<Text> = texts
                .iter()
                .filter(|t| t.prompt == prompt)
                .cloned()
                .collect();
            // Those of a beam search are in order already, and have no tokens: the sort is stable.
            own.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
            own.truncate(self.n);
            best.extend(own);
        }
        best
    }

    fn written(&self, choice: &engine::Choice, offset: usize) -> Result<Written, ApiError> {
        let pipeline = &self.served.pipeline;
        let (text, top) = if self.top {
            let named = choice.top.iter().map(|candidate| {
                let piece = pipeline.piece(candidate.id)?;
                Ok((candidate.id, piece, candidate.probability.ln()))
            });
            let top = named.collect::<Result<Vec<_>, ApiError>>()?;
            (pipeline.piece(choice.token)?, top)
        } else {
            (String::new(), Vec::new())
        };
        Ok(Written {
            id: choice.token,
            text,
            log_probability: choice.log_probability.unwrap_or(0.0),
            top,
            offset,
        })
    }
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
