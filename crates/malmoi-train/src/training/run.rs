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

use super::adapters::{Adapters, FOLDER as ADAPTER_FOLDER};
use super::evaluation::{Evaluation, Judge};
use super::event::{Event, Observer, Started, StepEvent, StopReason};
use super::job::{Job, Sections, Work, total_steps};
use super::pace::Pace;
use super::state::{Best, SavedEvaluation, TrainerState};
use super::step::{StepOptions, StepReport, Trainer};
use crate::data::step_batches;
use crate::error::TrainError;
use crate::log::tensorboard::EventFile;
use crate::optim::Optimizer;

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
    /// The metric that decides which evaluation is best.
    pub metric: String,
    /// Step of the best evaluation, and the number that makes it the best.
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

/// Makes or continues a run. Everything that happens is told to `observer`. A new run that fails before its first step leaves no
/// directory behind.
pub(crate) fn run(
    job: &dyn Job,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Summary, TrainError> {
    if options.resume {
        return resume(job, options, observer);
    }
    let existed = options.out.exists();
    let dir = RunDirectory::create(&options.out)?;
    let started = dir
        .write_file(CONFIG, job.to_toml()?.as_bytes())
        .map_err(TrainError::from)
        .and_then(|()| Run::start(job, options, dir, None, observer));
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
    job: &dyn Job,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Summary, TrainError> {
    let mut dir = RunDirectory::open(&options.out)?;
    let path = options.out.join(CONFIG);
    if path.is_file() {
        // Without a file the run never came to its first step.
        let keys = job.changed_keys(&path)?;
        if !keys.is_empty() {
            return Err(TrainError::ConfigChanged { keys });
        }
    }
    dir.write_file(CONFIG, job.to_toml()?.as_bytes())?;
    let checkpoint = dir.latest()?;
    dir.cut_metrics_back(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step))?;
    if checkpoint.is_none() {
        observer.event(&Event::Warning(
            "the run has no checkpoint yet; it starts from its first step",
        ));
    }
    Run::start(job, options, dir, checkpoint, observer)?.train(observer)
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
    for name in [
        "checkpoints",
        "tensorboard",
        "tokenizer",
        "corpus",
        "layout",
    ] {
        let _ = std::fs::remove_dir_all(out.join(name));
    }
}

/// A run that is ready for its next step.
struct Run<'a> {
    sections: Sections<'a>,
    options: &'a RunOptions,
    dir: RunDirectory,
    work: Box<dyn Work>,
    judge: Judge,
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
        job: &'a dyn Job,
        options: &'a RunOptions,
        dir: RunDirectory,
        checkpoint: Option<Checkpoint>,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let sections = job.sections();
        let work = job.prepare(&options.out, observer)?;
        let mut optimizer = Optimizer::new(sections.optimizer.rule.clone())?;
        let identity = work.identity();
        let model = match &checkpoint {
            None => work.start()?,
            Some(checkpoint) => {
                let open = OpenOptions {
                    head: Some(work.head()),
                    mode: Mode::Training,
                    ..OpenOptions::default()
                };
                // A discriminator goes on together with its generator.
                match work.head() {
                    Head::ReplacedTokens => Model::open_with_generator(&checkpoint.path, &open)?,
                    _ => Model::open(&checkpoint.path, &open)?,
                }
            }
        };
        let tuning = work.tuning(&model, checkpoint.as_ref().map(|c| c.path.as_path()))?;
        let state = match &checkpoint {
            None => TrainerState::new(sections.seed, identity),
            Some(checkpoint) => {
                let mut parameters = model.parameters();
                let adapters = tuning.adapters.as_ref();
                parameters.extend(adapters.map_or_else(Vec::new, Adapters::parameters));
                let state = TrainerState::load(&checkpoint.path, &parameters, &mut optimizer)?;
                state.data.check(&identity)?;
                state
            }
        };
        let precision = sections.train.precision.parse().unwrap_or_default();
        let model = model.with_precision(precision);
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
        let steps = total_steps(sections.train, work.examples());
        let step_options = StepOptions {
            seed: sections.seed,
            lr: sections.optimizer.lr,
            schedule: sections.schedule.over(
                steps,
                sections.optimizer.lr,
                model.config().d_model(),
            ),
            clip_norm: sections.train.clip_norm,
            decay_all: sections.optimizer.decay_all,
            recompute: sections.train.recompute,
        };
        let events = if sections.log.tensorboard {
            Some(EventFile::create(
                &options.out.join("tensorboard"),
                state.step,
            )?)
        } else {
            None
        };
        let run = Self {
            sections,
            options,
            dir,
            steps,
            judge: work.judge(),
            events,
            trainer: Trainer::new(model, optimizer, state.step, step_options)
                .without_training(work.untrained())
                .with_tuning(tuning),
            work,
            last_checkpoint: checkpoint,
            began: Instant::now(),
            seconds_before: state.seconds,
            state,
        };
        observer.event(&Event::Started(&run.started()));
        Ok(run)
    }

    fn started(&self) -> Started {
        let per_step = (self.sections.train.batch_size * self.sections.train.accumulation) as f64;
        let model = self.trainer.model();
        let (train_tokens, valid_tokens) = self.work.tokens();
        Started {
            out: self.options.out.clone(),
            architecture: model.config().architecture_name(model.head()),
            parameters: model
                .parameters()
                .iter()
                .map(|info| info.len() as u64)
                .sum(),
            vocab_size: model.config().vocab_size(),
            train_tokens,
            valid_tokens,
            examples_per_epoch: self.work.examples().per_epoch(),
            tokens_per_step: self.work.examples().mean_tokens() * per_step,
            steps: self.steps,
            done: self.state.step,
            seed: self.sections.seed,
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
                .map(|last| last.found.clone()),
            metric: self.judge.metric.clone(),
            best: self.state.best.map(|best| (best.step, best.value)),
            last_checkpoint: last_checkpoint
                .ok_or_else(|| TrainError::NoCheckpoint(self.options.out.clone()))?,
            best_checkpoint: self.dir.best()?.map(|checkpoint| checkpoint.path),
            milliseconds_per_step: pace.milliseconds_per_step(),
            seconds: self.began.elapsed().as_secs_f64(),
        })
    }

    fn patience_is_over(&self) -> bool {
        let patience = self.sections.train.early_stop;
        patience.is_some_and(|patience| self.state.without_improvement >= patience)
    }

    fn one_step(&mut self, step: u64) -> Result<StepReport, TrainError> {
        let train = &self.sections.train;
        let batches = step_batches(
            self.work.examples(),
            self.sections.seed,
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
        let due = step.is_multiple_of(self.sections.log.every) || step == 1 || step == self.steps;
        if !due {
            return Ok(());
        }
        let mut fields = object(json!({
            "kind": "train", "loss": report.loss, "lr": report.lr,
            "grad_norm": report.grad_norm, "tokens": self.state.tokens, "tokens_per_second": tokens_per_second,
            "milliseconds": milliseconds, "seconds": self.state.seconds,
        }));
        fields.extend((report.accuracy).map(|accuracy| ("accuracy".to_owned(), json!(accuracy))));
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
                ("train/lr", report.lr),
                ("train/grad_norm", report.grad_norm),
                ("train/tokens_per_second", tokens_per_second),
            ];
            values.extend((report.accuracy).map(|accuracy| ("train/accuracy", accuracy)));
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
        let (evaluation, checkpoint) = self.work.intervals();
        let best = due(evaluation) && self.evaluate(observer)?;
        if best || due(checkpoint) {
            self.checkpoint(best, observer)?;
        }
        Ok(())
    }

    /// Evaluates, where there is a validation text, and says whether it is the best so far.
    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        if self.work.tokens().1.is_none() {
            return Ok(false);
        }
        let step = self.state.step;
        observer.event(&Event::Evaluating(step));
        let found = self.work.evaluate(self.trainer.model())?;
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
        let value = found.get(&self.judge.metric).unwrap_or(found.loss);
        let best = self
            .state
            .best
            .is_none_or(|best| self.judge.prefers(value, best.value));
        if best {
            self.state.best = Some(Best { step, value });
            self.state.without_improvement = 0;
        } else {
            self.state.without_improvement += 1;
        }
        self.state.last_evaluation = Some(SavedEvaluation {
            step,
            found: found.clone(),
        });
        let mut fields = object(json!({ "kind": "valid" }));
        fields.extend(
            found
                .all()
                .map(|(name, value)| (name.to_string(), json!(value))),
        );
        fields.extend(object(json!({ "targets": found.targets, "best": best })));
        self.dir.metrics().append(step, &fields)?;
        if let Some(events) = &mut self.events {
            let names: Vec<(String, f64)> = found
                .all()
                .map(|(name, value)| (format!("valid/{name}"), value))
                .collect();
            let values: Vec<(&str, f64)> = names
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect();
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
        let extra: Vec<(String, PathBuf)> = self.work.files()?;
        let extra: Vec<ExtraFile<'_>> = extra
            .iter()
            .map(|(name, path)| ExtraFile {
                name,
                content: ExtraContent::CopyOf(path),
            })
            .collect();
        let card = self.work.card(self.trainer.model(), &self.state);
        let model = self.trainer.model();
        let save = SaveOptions {
            extra: &extra,
            card: Some(&card),
            ..SaveOptions::default()
        };
        model.save_into(pending.path(), &save)?;
        if let Some(adapters) = self.trainer.adapters() {
            adapters.save(&pending.path().join(ADAPTER_FOLDER), model)?;
        }
        self.state.save(pending.path(), self.trainer.optimizer())?;
        let checkpoint = self.dir.commit(pending)?;
        if best {
            self.dir.set_best(&checkpoint)?;
        }
        self.dir.rotate(self.sections.keep)?;
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
