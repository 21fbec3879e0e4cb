//! What completions and conversations share: settings of generation, and texts on their way from the engine to a client.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use malmoi_infer::engine::{self, Drafting, Event, Sink, Writing};
use malmoi_infer::generate::{FinishReason, Flow};
use malmoi_infer::text_stream::TextStream;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::metrics::OfModel;
use crate::routes::check_range;
use crate::served::Served;
use crate::state::App;

use super::settings::{self, Settings};

/// Texts of one request, prompts times choices.
const MAX_TEXTS: usize = 64;
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
    let n = check_range("n", settings.n.unwrap_or(1), 1..=MAX_TEXTS)?;
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
    let stops = settings::stops(settings)?;
    let end_ids = served.pipeline.end_ids().to_vec();
    let shape = settings::shape(settings)?;
    let sampling = settings::sampling(settings)?;
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
            Some(beams) => Some(settings::beam_options(
                settings,
                job.top.is_some(),
                beams,
                per_prompt,
                most,
                &end_ids,
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
                        tokens: check_range("lookup_tokens", tokens, 0..=16)?,
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
