//! Requests of several clients in one pass of an encoder.

use std::collections::VecDeque;
use std::time::Instant;

use malmoi_models::{Head, PackedBatch};

use super::job::{EncodeJob, MAX_LOGITS, Sequence, Want, pack};
use super::run::Run;
use super::{guarded, phase};
use crate::error::ApiError;

impl Run {
    /// Runs the oldest request, and with it as many others of its kind as the budget holds.
    pub(super) fn encode(&mut self) {
        let Some(first) = self.encodes.pop_front() else {
            return;
        };
        let vocab_size = self.pipeline.model.config().vocab_size();
        let (mut tokens, mut rows) = (first.tokens(), first.rows());
        let mut jobs = vec![first];
        let mut rest = VecDeque::new();
        while let Some(job) = self.encodes.pop_front() {
            let fits = tokens + job.tokens() <= self.options.batch_tokens
                && (rows + job.rows()) * vocab_size <= MAX_LOGITS;
            if fits && job.want.same_run(&jobs[0].want) && !job.reply.is_closed() {
                tokens += job.tokens();
                rows += job.rows();
                jobs.push(job);
            } else if !job.reply.is_closed() {
                rest.push_back(job);
            }
        }
        self.encodes = rest;
        for job in &jobs {
            phase(&self.metrics, &self.model.model, "queue", job.place.since);
        }
        let start = Instant::now();
        let outcome = guarded(|| self.encoded(&jobs));
        phase(&self.metrics, &self.model.model, "compute", start);
        self.stats.tokens_in.add(tokens as u64);
        let counter = self.metrics.tokens_in.get_or_create(&self.model);
        counter.inc_by(tokens as u64);
        match outcome {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    let _gone = job.reply.send(Ok(answer));
                }
            }
            // One of them is at fault; alone, only that one fails.
            Err(_) if jobs.len() > 1 => {
                for job in jobs {
                    let answer = guarded(|| self.encoded(std::slice::from_ref(&job)));
                    let answer = answer.map(|mut one| one.pop().unwrap_or_default());
                    let _gone = job.reply.send(answer);
                }
            }
            Err(error) => {
                for job in jobs {
                    let _gone = job.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// The values of each job.
    fn encoded(&self, jobs: &[EncodeJob]) -> Result<Vec<Vec<f32>>, ApiError> {
        let model = &self.pipeline.model;
        // One request may be larger than the budget: then it goes in several runs.
        let mut answers = vec![Vec::new(); jobs.len()];
        let tokens: usize = jobs.iter().map(EncodeJob::tokens).sum();
        if tokens <= self.options.batch_tokens || matches!(jobs[0].want, Want::Logits(_)) {
            let parts: Vec<&Vec<Sequence>> = jobs.iter().map(|job| &job.sequences).collect();
            let batch = pack(&parts);
            self.observe_batch(&batch);
            let values = match &jobs[0].want {
                Want::Hidden => model.last_hidden(&batch)?,
                Want::Outputs => model.outputs(&batch)?,
                Want::Logits(_) => {
                    let mut rows = Vec::new();
                    let mut first = 0;
                    for job in jobs {
                        if let Want::Logits(own) = &job.want {
                            rows.extend(own.iter().map(|row| row + first));
                        }
                        first += job.tokens() as u32;
                    }
                    model.logits(&batch, &rows)?
                }
            };
            let units: Vec<usize> = jobs.iter().map(|job| self.units(job)).collect();
            let width = values.len() / units.iter().sum::<usize>().max(1);
            let mut rest = values.as_slice();
            for (answer, units) in answers.iter_mut().zip(units) {
                let (own, others) = rest.split_at(units * width);
                answer.extend_from_slice(own);
                rest = others;
            }
            return Ok(answers);
        }
        for (job, answer) in jobs.iter().zip(&mut answers) {
            let mut from = 0;
            while from < job.sequences.len() {
                let mut held = job.sequences[from].ids.len();
                let mut to = from + 1;
                while to < job.sequences.len()
                    && held + job.sequences[to].ids.len() <= self.options.batch_tokens
                {
                    held += job.sequences[to].ids.len();
                    to += 1;
                }
                let some = job.sequences[from..to].to_vec();
                let batch = pack(&[&some]);
                self.observe_batch(&batch);
                answer.extend(match job.want {
                    Want::Outputs => model.outputs(&batch)?,
                    _ => model.last_hidden(&batch)?,
                });
                from = to;
            }
        }
        Ok(answers)
    }

    fn observe_batch(&self, batch: &PackedBatch) {
        let histogram = self.metrics.batch_tokens.get_or_create(&self.model);
        histogram.observe(batch.n_tokens() as f64);
    }

    /// Rows that a job's answer has.
    fn units(&self, job: &EncodeJob) -> usize {
        match &job.want {
            Want::Hidden => job.tokens(),
            Want::Logits(rows) => rows.len(),
            Want::Outputs if is_by_token(self.pipeline.model.head()) => job.tokens(),
            Want::Outputs => job.sequences.len(),
        }
    }
}

/// Whether a head says something of each token.
fn is_by_token(head: Head) -> bool {
    matches!(
        head,
        Head::TokenClassification | Head::QuestionAnswering | Head::ReplacedTokens
    )
}
