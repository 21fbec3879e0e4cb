//! A training run on the screen.

use std::path::Path;

use indicatif::ProgressBar;
use malmoi_train::training::{Evaluation, Event, RunOptions, StepEvent, StopReason, Summary};

use crate::failure::{Failure, Result};
use crate::{interrupt, output, progress};

/// Lines that a run without a terminal prints between start and end.
const LINES: u64 = 20;

/// An evaluation on one line: `loss 1.2345, accuracy 0.9000`.
pub fn describe(evaluation: &Evaluation) -> String {
    let numbers: Vec<String> = evaluation
        .all()
        .map(|(name, value)| format!("{} {value:.4}", name.replace('_', " ")))
        .collect();
    numbers.join(", ")
}

/// How a run begins. Refuses to resume one that is not there.
pub fn run_options(out: &Path, resume: bool) -> Result<RunOptions> {
    if resume && !out.is_dir() {
        return Err(Failure::input(format!(
            "{}: there is no run to resume; start it without --resume",
            out.display()
        )));
    }
    Ok(RunOptions {
        out: out.to_path_buf(),
        resume,
        interrupt: Some(interrupt::graceful()),
        time_limit: None,
    })
}

/// What a run has come to.
pub fn conclude(summary: &Summary) -> Result<()> {
    output::line(format!(
        "{}: {} of {} steps in {:.0} s ({:.1} ms a step)",
        summary.reason.describe(),
        output::thousands(summary.step as usize),
        output::thousands(summary.steps as usize),
        summary.seconds,
        summary.milliseconds_per_step
    ))?;
    if let Some(found) = &summary.evaluation {
        output::line(format!("validation: {}", describe(found)))?;
    }
    if let Some((step, value)) = summary.best {
        let metric = summary.metric.replace('_', " ");
        output::line(format!("best: {metric} {value:.4} at step {step}"))?;
    }
    let best = summary.best_checkpoint.as_ref();
    if summary.reason != StopReason::Interrupted {
        let model = best.unwrap_or(&summary.last_checkpoint);
        output::line(format!("model: {}", model.display()))?;
    }
    Ok(())
}

/// Shows a run: a bar on a terminal, about twenty lines otherwise.
pub struct Watcher {
    quiet: bool,
    bar: ProgressBar,
    losses: Vec<(u64, f64)>,
}

impl Watcher {
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            bar: ProgressBar::hidden(),
            losses: Vec::new(),
        }
    }

    fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{}", text.as_ref()));
        }
    }

    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Preparing(what) => {
                if progress::visible(self.quiet) {
                    self.bar.finish_and_clear();
                    self.bar = progress::spinner(self.quiet, what);
                } else {
                    self.say(what);
                }
            }
            Event::Started(started) => {
                self.bar.finish_and_clear();
                self.say(format!(
                    "{} with {} parameters, vocabulary {}, {} training tokens, about {:.0} tokens a step, {} steps, seed {}, {} threads ({})",
                    started.architecture,
                    output::thousands(started.parameters as usize),
                    output::thousands(started.vocab_size),
                    output::thousands(started.train_tokens as usize),
                    started.tokens_per_step,
                    output::thousands(started.steps as usize),
                    started.seed,
                    started.threads,
                    started.instruction_set
                ));
                self.bar = progress::bar(self.quiet, started.steps, "training", "steps");
                self.bar.set_position(started.done);
            }
            Event::Step(step) => self.step(step),
            Event::Evaluating(_) => self.bar.set_message("evaluating"),
            Event::Evaluated {
                step,
                evaluation,
                best,
            } => {
                self.say(format!(
                    "step {step}: validation {}{}",
                    describe(evaluation),
                    if *best { " (best)" } else { "" }
                ));
            }
            Event::Warning(text) => self.say(format!("warning: {text}")),
            _ => {}
        }
    }

    fn step(&mut self, step: &StepEvent) {
        self.losses.push((step.step, step.loss));
        let text = format!(
            "loss {:.4}, {} tokens/s",
            step.loss,
            output::thousands(step.tokens_per_second as usize)
        );
        if progress::visible(self.quiet) {
            self.bar.set_position(step.step);
            self.bar.set_message(text);
        } else if step.step == 1 || step.step.is_multiple_of((step.steps / LINES).max(1)) {
            self.say(format!(
                "step {} of {}: {text}, {:.0} s to go",
                step.step,
                step.steps,
                step.eta.as_secs_f64()
            ));
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Mean loss of each of `n` equal parts of the run, with the last step of the part.
    pub fn curve(&self, n: usize) -> Vec<(u64, f64)> {
        let part = self.losses.len().div_ceil(n.max(1)).max(1);
        let mean = |part: &[(u64, f64)]| {
            (
                part[part.len() - 1].0,
                part.iter().map(|(_, loss)| loss).sum::<f64>() / part.len() as f64,
            )
        };
        self.losses.chunks(part).map(mean).collect()
    }
}
