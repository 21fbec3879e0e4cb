//! The loop of a run, from an empty directory or from a checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use malmoi_checkpoint::run::{Checkpoint, RunDirectory};
use malmoi_checkpoint::{ExtraContent, ExtraFile};
use malmoi_kernels::{cpu, threads};
use malmoi_models::{Head, Mode, Model, OpenOptions, SaveOptions};
use serde_json::{Map, Value, json};

use super::card::card;
use super::evaluate::{Evaluation, evaluate};
use super::event::{Event, Observer, Started, StepEvent, StopReason};
use super::pace::Pace;
use super::prepare::{Prepared, prepare};
use super::setup;
use super::state::{Best, SavedEvaluation, TrainerState};
use super::step::{StepOptions, StepReport, Trainer};
use crate::config::PretrainConfig;
use crate::data::step_batches;
use crate::error::TrainError;
use crate::log::tensorboard::EventFile;

/// File of the resolved configuration in a run directory.
const CONFIG: &str = "config.toml";

/// Where and how a run is made; nothing here changes what is computed.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The run directory.
    pub out: PathBuf,
    /// Continue the run that is there.
    pub resume: bool,
    /// When it becomes true (a signal), the run writes a checkpoint and ends.
    pub interrupt: Option<Arc<AtomicBool>>,
    /// When it is over, the run writes a checkpoint and ends.
    pub time_limit: Option<Duration>,
}

/// What a run has come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Why it ended.
    pub reason: StopReason,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// The loss of the first step this process made.
    pub first_loss: Option<f64>,
    /// The loss of the last step this process made.
    pub last_loss: Option<f64>,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// Step and validation loss of the best evaluation.
    pub best: Option<(u64, f64)>,
    /// The last checkpoint, a model directory.
    pub last_checkpoint: PathBuf,
    /// The checkpoint of the best evaluation.
    pub best_checkpoint: Option<PathBuf>,
    /// Mean milliseconds of a step, without evaluations and saving.
    pub milliseconds_per_step: f64,
    /// Seconds of this process.
    pub seconds: f64,
}

/// Trains a model as the configuration says. Everything that happens is told to `observer`.
///
/// # Errors
/// [`TrainError`]; what was complete before stays. A new run that fails before its first step leaves no directory behind.
pub fn run(
    config: &PretrainConfig,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Summary, TrainError> {
    config.validate()?;
    if options.resume {
        return resume(config, options, observer);
    }
    let existed = options.out.exists();
    let dir = RunDirectory::create(&options.out)?;
    let started = dir
        .write_file(CONFIG, config.to_toml()?.as_bytes())
        .map_err(TrainError::from)
        .and_then(|()| Run::start(config, options, dir, None, observer));
    match started {
        Ok(mut run) => run.train(observer),
        Err(error) => {
            // Nothing was trained: the directory would only stand in the way of the next try.
            discard(&options.out, existed);
            Err(error)
        }
    }
}

fn resume(
    config: &PretrainConfig,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Summary, TrainError> {
    let mut dir = RunDirectory::open(&options.out)?;
    let path = options.out.join(CONFIG);
    if path.is_file() {
        // Without a file the run never came to its first step.
        let keys = PretrainConfig::load(&path, &[])?.changes(config);
        if !keys.is_empty() {
            return Err(TrainError::ConfigChanged { keys });
        }
    }
    dir.write_file(CONFIG, config.to_toml()?.as_bytes())?;
    let checkpoint = dir.latest()?;
    dir.cut_metrics_back(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step))?;
    if checkpoint.is_none() {
        observer.event(&Event::Warning(
            "the run has no checkpoint yet; it starts from its first step",
        ));
    }
    Run::start(config, options, dir, checkpoint, observer)?.train(observer)
}

/// Removes what a start that failed has made.
fn discard(out: &Path, existed: bool) {
    if !existed {
        // The error that led here is the one to report.
        let _ = std::fs::remove_dir_all(out);
        return;
    }
    for name in ["run.json", "run.lock", CONFIG, "metrics.jsonl"] {
        let _ = std::fs::remove_file(out.join(name));
    }
    for name in ["checkpoints", "tensorboard", "tokenizer", "corpus"] {
        let _ = std::fs::remove_dir_all(out.join(name));
    }
}

/// A run that is ready for its next step.
struct Run<'a> {
    config: &'a PretrainConfig,
    options: &'a RunOptions,
    dir: RunDirectory,
    prepared: Prepared,
    trainer: Trainer,
    state: TrainerState,
    steps: u64,
    events: Option<EventFile>,
    last_checkpoint: Option<Checkpoint>,
    began: Instant,
    seconds_before: f64,
}

impl<'a> Run<'a> {
    fn start(
        config: &'a PretrainConfig,
        options: &'a RunOptions,
        dir: RunDirectory,
        checkpoint: Option<Checkpoint>,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let prepared = prepare(config, &options.out, observer)?;
        let mut optimizer = setup::optimizer(config)?;
        let head = setup::head(&config.objective);
        let identity = prepared.identity();
        let (model, state) = match &checkpoint {
            None => {
                let model =
                    Model::initialise(prepared.model.clone(), head, config.seed, Mode::Training);
                (model, TrainerState::new(config.seed, identity))
            }
            Some(checkpoint) => {
                let open = OpenOptions {
                    head: Some(head),
                    mode: Mode::Training,
                    ..OpenOptions::default()
                };
                let model = Model::open(&checkpoint.path, &open)?;
                let state = TrainerState::load(&checkpoint.path, &model, &mut optimizer)?;
                state.data.check(&identity)?;
                (model, state)
            }
        };
        let instruction_set = cpu::isa().name();
        if state.instruction_set != instruction_set {
            observer.event(&Event::Warning(&format!(
                "the checkpoint was computed with {}, this process uses {instruction_set}: the run goes on, \
                 but not bit for bit as it would have there",
                state.instruction_set
            )));
        }
        if let (Some(checkpoint), Some(best)) = (&checkpoint, &state.best) {
            // The process may have ended between writing the checkpoint and pointing at it.
            if best.step == checkpoint.step {
                dir.set_best(checkpoint)?;
            }
        }
        let steps = setup::total_steps(config, &*prepared.train);
        let step_options = StepOptions {
            seed: config.seed,
            lr: config.optimizer.lr,
            schedule: setup::schedule(config, steps),
            clip_norm: config.train.clip_norm,
            decay_all: config.optimizer.decay_all,
        };
        let events = if config.log.tensorboard {
            Some(EventFile::create(
                &options.out.join("tensorboard"),
                state.step,
            )?)
        } else {
            None
        };
        let run = Self {
            config,
            options,
            dir,
            steps,
            events,
            trainer: Trainer::new(model, optimizer, state.step, step_options),
            prepared,
            last_checkpoint: checkpoint,
            began: Instant::now(),
            seconds_before: state.seconds,
            state,
        };
        observer.event(&Event::Started(&run.started(head)));
        Ok(run)
    }

    fn started(&self, head: Head) -> Started {
        let per_step = (self.config.train.batch_size * self.config.train.accumulation) as f64;
        let model = self.trainer.model();
        Started {
            out: self.options.out.clone(),
            architecture: model.config().architecture_name(head),
            parameters: model
                .parameters()
                .iter()
                .map(|info| info.len() as u64)
                .sum(),
            vocab_size: model.config().vocab_size(),
            train_tokens: self.prepared.train_tokens,
            valid_tokens: self.prepared.valid_tokens,
            examples_per_epoch: self.prepared.train.per_epoch(),
            tokens_per_step: self.prepared.train.mean_tokens() * per_step,
            steps: self.steps,
            done: self.state.step,
            seed: self.config.seed,
            threads: threads::count(),
            instruction_set: cpu::isa().name(),
        }
    }

    fn train(&mut self, observer: &mut dyn Observer) -> Result<Summary, TrainError> {
        let mut pace = Pace::default();
        let (mut first_loss, mut last_loss) = (None, None);
        let reason = loop {
            let step = self.state.step;
            if step >= self.steps {
                break StopReason::Finished;
            }
            if self.patience_is_over() {
                break StopReason::EarlyStop;
            }
            if self
                .options
                .interrupt
                .as_ref()
                .is_some_and(|flag| flag.load(Ordering::Relaxed))
            {
                break StopReason::Interrupted;
            }
            if self
                .options
                .time_limit
                .is_some_and(|limit| self.began.elapsed() >= limit)
            {
                break StopReason::TimeLimit;
            }
            let clock = Instant::now();
            let report = self.one_step(step)?;
            pace.add(clock.elapsed(), report.tokens);
            first_loss.get_or_insert(report.loss);
            last_loss = Some(report.loss);
            self.state.step += 1;
            self.state.tokens += report.tokens;
            self.state.seconds = self.seconds_before + self.began.elapsed().as_secs_f64();
            self.report(&report, &mut pace, observer)?;
            self.after_step(observer)?;
        };
        // A run that ends for good is measured at its end; an interrupted one has no time for that.
        let ended = matches!(reason, StopReason::Finished | StopReason::EarlyStop);
        let evaluated = self
            .state
            .last_evaluation
            .as_ref()
            .is_some_and(|last| last.step == self.state.step);
        let best = ended && !evaluated && self.evaluate(observer)?;
        if best
            || self
                .last_checkpoint
                .as_ref()
                .map(|checkpoint| checkpoint.step)
                != Some(self.state.step)
        {
            self.checkpoint(best, observer)?;
        }
        observer.event(&Event::Stopped(reason));
        let last_checkpoint = self.dir.latest()?.map(|checkpoint| checkpoint.path);
        Ok(Summary {
            reason,
            step: self.state.step,
            steps: self.steps,
            tokens: self.state.tokens,
            first_loss,
            last_loss,
            evaluation: self
                .state
                .last_evaluation
                .as_ref()
                .map(SavedEvaluation::evaluation),
            best: self.state.best.map(|best| (best.step, best.loss)),
            last_checkpoint: last_checkpoint
                .ok_or_else(|| TrainError::NoCheckpoint(self.options.out.clone()))?,
            best_checkpoint: self.dir.best()?.map(|checkpoint| checkpoint.path),
            milliseconds_per_step: pace.milliseconds_per_step(),
            seconds: self.began.elapsed().as_secs_f64(),
        })
    }

    fn patience_is_over(&self) -> bool {
        let patience = self.config.train.early_stop;
        patience.is_some_and(|patience| self.state.without_improvement >= patience)
    }

    fn one_step(&mut self, step: u64) -> Result<StepReport, TrainError> {
        let train = &self.config.train;
        let batches = step_batches(
            &*self.prepared.train,
            self.config.seed,
            step,
            train.accumulation,
            train.batch_size,
        )?;
        let trainer = &mut self.trainer;
        trainer.advance(&batches).map_err(|error| match error {
            TrainError::NotFinite { what, step, .. } => {
                let checkpoint = self
                    .last_checkpoint
                    .as_ref()
                    .map(|checkpoint| checkpoint.path.clone());
                TrainError::NotFinite {
                    what,
                    step,
                    checkpoint,
                }
            }
            other => other,
        })
    }

    /// Tells everyone about a step.
    fn report(
        &mut self,
        report: &StepReport,
        pace: &mut Pace,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let step = self.state.step;
        let tokens_per_second = pace.tokens_per_second();
        let milliseconds = pace.last_milliseconds();
        let remaining = (self.steps - step) as f64 * pace.recent_milliseconds() / 1000.0;
        observer.event(&Event::Step(&StepEvent {
            step,
            steps: self.steps,
            loss: report.loss,
            parts: report.parts.clone(),
            accuracy: report.accuracy,
            lr: report.lr,
            grad_norm: report.grad_norm,
            tokens: report.tokens,
            tokens_per_second,
            milliseconds,
            eta: Duration::from_secs_f64(remaining.clamp(0.0, 1e9)),
        }));
        let due = step.is_multiple_of(self.config.log.every) || step == 1 || step == self.steps;
        if !due {
            return Ok(());
        }
        let mut fields = object(json!({
            "kind": "train", "loss": report.loss, "accuracy": report.accuracy, "lr": report.lr,
            "grad_norm": report.grad_norm, "tokens": self.state.tokens, "tokens_per_second": tokens_per_second,
            "milliseconds": milliseconds, "seconds": self.state.seconds,
        }));
        if report.parts.len() > 1 {
            fields.extend(
                report
                    .parts
                    .iter()
                    .map(|(name, loss)| (format!("{name}_loss"), json!(loss))),
            );
        }
        self.dir.metrics().append(step, &fields)?;
        if let Some(events) = &mut self.events {
            let mut values = vec![
                ("train/loss", report.loss),
                ("train/accuracy", report.accuracy),
                ("train/lr", report.lr),
                ("train/grad_norm", report.grad_norm),
                ("train/tokens_per_second", tokens_per_second),
            ];
            let names: Vec<String> = report
                .parts
                .iter()
                .map(|(name, _)| format!("train/{name}_loss"))
                .collect();
            if names.len() > 1 {
                values.extend(
                    names
                        .iter()
                        .map(String::as_str)
                        .zip(report.parts.iter().map(|(_, loss)| *loss)),
                );
            }
            events.scalars(step, &values)?;
        }
        Ok(())
    }

    /// Evaluates and saves when it is time.
    fn after_step(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let step = self.state.step;
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let best = due(self.config.evaluate.every) && self.evaluate(observer)?;
        if best || due(self.config.checkpoint.every) {
            self.checkpoint(best, observer)?;
        }
        Ok(())
    }

    /// Evaluates, where there is a validation text, and says whether it is the best so far.
    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        let Some(valid) = &self.prepared.valid else {
            return Ok(false);
        };
        let step = self.state.step;
        observer.event(&Event::Evaluating(step));
        let model = self.trainer.model();
        let (batch_size, batches) = (self.config.train.batch_size, self.config.evaluate.batches);
        let found = evaluate(model, &**valid, batch_size, batches)?;
        if !found.loss.is_finite() {
            return Err(TrainError::NotFinite {
                what: "the validation loss".into(),
                step,
                checkpoint: self
                    .last_checkpoint
                    .as_ref()
                    .map(|checkpoint| checkpoint.path.clone()),
            });
        }
        let best = self.state.best.is_none_or(|best| found.loss < best.loss);
        if best {
            self.state.best = Some(Best {
                step,
                loss: found.loss,
            });
            self.state.without_improvement = 0;
        } else {
            self.state.without_improvement += 1;
        }
        self.state.last_evaluation = Some(SavedEvaluation::new(step, &found));
        let mut fields = object(json!({
            "kind": "valid", "loss": found.loss, "token_loss": found.token_loss, "perplexity": found.perplexity,
            "accuracy": found.accuracy, "baseline_accuracy": found.baseline, "targets": found.targets, "best": best,
        }));
        if let Some(accuracy) = found.pair_accuracy {
            fields.insert("next_sentence_accuracy".into(), json!(accuracy));
        }
        self.dir.metrics().append(step, &fields)?;
        if let Some(events) = &mut self.events {
            let values = [
                ("valid/loss", found.loss),
                ("valid/perplexity", found.perplexity),
                ("valid/accuracy", found.accuracy),
            ];
            events.scalars(step, &values)?;
        }
        observer.event(&Event::Evaluated {
            step,
            evaluation: &found,
            best,
        });
        Ok(best)
    }

    fn checkpoint(&mut self, best: bool, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let step = self.state.step;
        let pending = self.dir.begin_checkpoint(step)?;
        let extra: Vec<(String, PathBuf)> = self.prepared.tokenizer_files()?;
        let extra: Vec<ExtraFile<'_>> = extra
            .iter()
            .map(|(name, path)| ExtraFile {
                name,
                content: ExtraContent::CopyOf(path),
            })
            .collect();
        let card = card(self.trainer.model(), &self.state);
        let model = self.trainer.model();
        let save = SaveOptions {
            extra: &extra,
            card: Some(&card),
            ..SaveOptions::default()
        };
        model.save_into(pending.path(), &save)?;
        self.state.save(pending.path(), self.trainer.optimizer())?;
        let checkpoint = self.dir.commit(pending)?;
        if best {
            self.dir.set_best(&checkpoint)?;
        }
        self.dir.rotate(self.config.checkpoint.keep)?;
        observer.event(&Event::Checkpointed {
            step,
            path: &checkpoint.path,
        });
        self.last_checkpoint = Some(checkpoint);
        Ok(())
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
