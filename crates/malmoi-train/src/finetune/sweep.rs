//! Several small runs one after another: every combination of a grid, with several seeds. The best model is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use malmoi_checkpoint::{read_json, write_json};
use serde::{Deserialize, Serialize};
use toml::Value;

use super::config::FinetuneConfig;
use crate::error::{ConfigProblem, TrainError};
use crate::training::{Observer, RunOptions, StopReason};

/// `[sweep]`: what the runs differ in. By default the grid of Devlin et al. 2019, appendix A.3: batches of 16 and 32, rates of 5e-5,
/// 3e-5 and 2e-5, 2, 3 and 4 epochs: 18 runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SweepSection {
    /// Seeds of every combination; that of the configuration when empty.
    pub seeds: Vec<u64>,
    /// Values by key: `"optimizer.lr" = [5e-5, 3e-5]`.
    pub grid: BTreeMap<String, Vec<Value>>,
}

impl Default for SweepSection {
    fn default() -> Self {
        let floats = |list: &[f64]| list.iter().map(|value| Value::Float(*value)).collect();
        let grid = [
            ("optimizer.lr", floats(&[5e-5, 3e-5, 2e-5])),
            ("train.batch_size", [16, 32].map(Value::Integer).to_vec()),
            ("train.epochs", floats(&[2.0, 3.0, 4.0])),
        ];
        Self {
            seeds: Vec::new(),
            grid: grid.map(|(key, values)| (key.to_owned(), values)).into(),
        }
    }
}

impl SweepSection {
    /// The same configuration with several seeds.
    pub fn of_seeds(seeds: Vec<u64>) -> Self {
        Self {
            seeds,
            grid: BTreeMap::new(),
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        match self.grid.iter().find(|(_, values)| values.is_empty()) {
            None => Ok(()),
            Some((key, _)) => Err(ConfigProblem::new(
                "sweep.grid",
                "at least one value a key",
                format!("none for {key:?}"),
                "add one, or remove the key",
            )),
        }
    }

    /// Every combination of the grid's values, the last key changing fastest.
    fn combinations(&self) -> Vec<BTreeMap<String, Value>> {
        let mut all = vec![BTreeMap::new()];
        for (key, values) in &self.grid {
            let with = |settings: &BTreeMap<String, Value>, value: &Value| {
                let mut settings = settings.clone();
                settings.insert(key.clone(), value.clone());
                settings
            };
            all = (all.iter())
                .flat_map(|settings| values.iter().map(move |value| with(settings, value)))
                .collect();
        }
        all
    }
}

/// A run that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRow {
    /// Folder of the run.
    pub run: String,
    /// Where it differs from the configuration.
    pub settings: BTreeMap<String, String>,
    /// Its seed.
    pub seed: u64,
    /// The judging metric at its best evaluation.
    pub value: f64,
    /// Step of that evaluation.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What a sweep has come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepSummary {
    /// Name of the judging metric.
    pub metric: String,
    /// Whether more is better.
    pub higher: bool,
    /// Runs of the whole sweep.
    pub runs: usize,
    /// Those that are done.
    pub rows: Vec<SweepRow>,
}

impl SweepSummary {
    /// The best run.
    pub fn best(&self) -> Option<&SweepRow> {
        let better = |a: &SweepRow, b: &SweepRow| match self.higher {
            true => a.value > b.value,
            false => a.value < b.value,
        };
        let mut rows = self.rows.iter();
        let first = rows.next()?;
        Some(rows.fold(
            first,
            |best, row| if better(row, best) { row } else { best },
        ))
    }

    /// Settings with the mean and the standard deviation (n - 1) of their runs, and how many there are; in the order of the runs.
    pub fn groups(&self) -> Vec<(&BTreeMap<String, String>, f64, f64, usize)> {
        let mut groups: Vec<(&BTreeMap<String, String>, Vec<f64>)> = Vec::new();
        for row in &self.rows {
            match groups
                .iter_mut()
                .find(|(settings, _)| **settings == row.settings)
            {
                Some((_, values)) => values.push(row.value),
                None => groups.push((&row.settings, vec![row.value])),
            }
        }
        let summary = |(settings, values): (_, Vec<f64>)| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let deviation = if n > 1.0 {
                (squares / (n - 1.0)).sqrt()
            } else {
                0.0
            };
            (settings, mean, deviation, values.len())
        };
        groups.into_iter().map(summary).collect()
    }
}

/// File of a sweep that says which runs are done.
const FILE: &str = "sweep.json";

/// Makes the runs that are not done yet, each in a folder of `options.out/runs`. The best one's checkpoints stay, those of the others are
/// removed; `options.out/best` points at the best model. Interrupted sweeps go on with `options.resume`.
///
/// # Errors
/// Those of the runs; a configuration without validation rows, by which runs are compared.
pub fn sweep(
    config: &FinetuneConfig,
    options: &RunOptions,
    observer: &mut dyn Observer,
    progress: &mut dyn FnMut(&SweepSummary),
) -> Result<SweepSummary, TrainError> {
    config.validate()?;
    let section = config.sweep.clone().unwrap_or_default();
    if config.data.valid.is_none() {
        return Err(ConfigProblem::new(
            "sweep",
            "validation rows to compare runs by",
            "no data.valid",
            "add data.valid",
        )
        .into());
    }
    let base = FinetuneConfig {
        sweep: None,
        ..config.clone()
    };
    let text = base.to_toml()?;
    let seeds = match section.seeds.is_empty() {
        true => vec![config.seed],
        false => section.seeds.clone(),
    };
    let mut plan = Vec::new();
    for settings in section.combinations() {
        for &seed in &seeds {
            let mut overrides: Vec<String> = settings
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            overrides.push(format!("seed={seed}"));
            // Every run is checked before the first one starts.
            let config = FinetuneConfig::parse(&text, "the sweep", &overrides)?;
            let settings: BTreeMap<String, String> = settings
                .iter()
                .map(|(key, value)| (key.clone(), value.to_string()))
                .collect();
            plan.push((settings, seed, config));
        }
    }
    let out = &options.out;
    let file = out.join(FILE);
    let (metric, higher) = config.judging();
    let mut summary = SweepSummary {
        metric,
        higher,
        runs: plan.len(),
        rows: Vec::new(),
    };
    if file.is_file() {
        let found = read_json(&file)?;
        let found: SweepSummary =
            serde_json::from_value(found).map_err(|error| TrainError::BadState {
                path: file.clone(),
                problem: error.to_string(),
            })?;
        if !options.resume {
            return Err(ConfigProblem::new(
                "--out",
                "a folder without a sweep",
                format!("one of {} runs", found.rows.len()),
                "pass --resume to go on with it, or name another folder",
            )
            .into());
        }
        if found.metric != summary.metric {
            return Err(TrainError::ConfigChanged {
                keys: vec![format!(
                    "evaluate.metric: was {}, now {}",
                    found.metric, summary.metric
                )],
            });
        }
        summary.rows = found.rows;
    }
    std::fs::create_dir_all(out.join("runs"))
        .map_err(|error| TrainError::io("create", out, error))?;
    for (number, (settings, seed, config)) in plan.into_iter().enumerate() {
        let done = |row: &SweepRow| row.settings == settings && row.seed == seed;
        if summary.rows.iter().any(done) {
            continue;
        }
        let name = format!("{:03}-seed-{seed}", number + 1);
        let run_dir = out.join("runs").join(&name);
        let one = RunOptions {
            out: run_dir.clone(),
            resume: run_dir.join("config.toml").is_file(),
            ..options.clone()
        };
        let found = crate::training::run(&config, &one, observer)?;
        let stopped = matches!(
            found.reason,
            StopReason::Interrupted | StopReason::TimeLimit
        );
        if stopped {
            return Ok(summary);
        }
        let (step, value) = found.best.unwrap_or((found.step, f64::NAN));
        summary.rows.push(SweepRow {
            run: name,
            settings,
            seed,
            value,
            step,
            steps: found.steps,
            seconds: found.seconds,
        });
        keep_best(out, &summary)?;
        let value = serde_json::to_value(&summary).map_err(|error| TrainError::BadState {
            path: file.clone(),
            problem: error.to_string(),
        })?;
        write_json(&file, &value)?;
        progress(&summary);
        let interrupted = options
            .interrupt
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed));
        if interrupted {
            return Ok(summary);
        }
    }
    Ok(summary)
}

/// Points at the best run and removes the checkpoints of the others.
fn keep_best(out: &Path, summary: &SweepSummary) -> Result<(), TrainError> {
    let Some(best) = summary.best() else {
        return Ok(());
    };
    let link = out.join("best");
    let target: PathBuf = ["runs", &best.run, "best"].iter().collect();
    if std::fs::symlink_metadata(&link).is_ok() {
        std::fs::remove_file(&link).map_err(|error| TrainError::io("replace", &link, error))?;
    }
    std::os::unix::fs::symlink(&target, &link)
        .map_err(|error| TrainError::io("link", &link, error))?;
    for row in summary.rows.iter().filter(|row| row.run != best.run) {
        let checkpoints = out.join("runs").join(&row.run).join("checkpoints");
        if checkpoints.is_dir() {
            std::fs::remove_dir_all(&checkpoints)
                .map_err(|error| TrainError::io("remove", &checkpoints, error))?;
        }
    }
    Ok(())
}

impl FinetuneConfig {
    /// The metric that decides which checkpoint is best, and whether more is better.
    pub(super) fn judging(&self) -> (String, bool) {
        let (own, higher) = self.task.task().judged_by();
        match self.evaluate.metric.as_deref() {
            None => (own.to_owned(), higher),
            Some(name) => (
                name.to_owned(),
                !["loss", "mae", "hamming_loss"].contains(&name),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_grid_is_that_of_the_paper() {
        let all = SweepSection::default().combinations();
        assert_eq!(all.len(), 18);
        assert_eq!(all[0]["optimizer.lr"], Value::Float(5e-5));
        assert_eq!(all[17]["train.batch_size"], Value::Integer(32));
        assert_eq!(SweepSection::of_seeds(vec![1, 2]).combinations().len(), 1);
    }

    #[test]
    fn runs_with_the_same_settings_are_summed_up() {
        let row = |lr: &str, seed, value| SweepRow {
            run: format!("{lr}-{seed}"),
            settings: [("optimizer.lr".to_owned(), lr.to_owned())].into(),
            seed,
            value,
            step: 1,
            steps: 1,
            seconds: 1.0,
        };
        let summary = SweepSummary {
            metric: "accuracy".into(),
            higher: true,
            runs: 4,
            rows: vec![row("a", 1, 0.5), row("a", 2, 0.7), row("b", 1, 0.65)],
        };
        assert_eq!(summary.best().unwrap().run, "a-2");
        let groups = summary.groups();
        assert!((groups[0].1 - 0.6).abs() < 1e-12 && (groups[0].2 - 0.02_f64.sqrt()).abs() < 1e-12);
        assert_eq!((groups[1].1, groups[1].2, groups[1].3), (0.65, 0.0, 1));
    }
}
