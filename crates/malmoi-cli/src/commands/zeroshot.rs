//! `malmoi eval zeroshot`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use malmoi_infer::Pipeline;
use malmoi_infer::likelihood::{Pseudo, ScoreOptions};
use malmoi_infer::zeroshot::{Outcome, fitting, run};
use malmoi_tasks::zeroshot::{
    Item, Kind, Normalization, Row, Template, ZeroShotError, best, read_rows,
};
use serde_json::{Map, Value, json};

use crate::arguments::{Global, ModelArguments};
use crate::failure::{Failure, Result};
use crate::{model, output, progress};

/// Ask a language model questions it was not trained for, and score its answers by their probability
#[derive(Args, Debug)]
#[command(
    // Tasks can be looked at without a model.
    mut_arg("model", |arg| arg.required(false).default_value("").hide_default_value(true)),
    after_help = "Decoders and encoder-decoders score by log-likelihood, masked language models by pseudo-log-likelihood.\nA task is a template in TOML: \
                  --source NAME prints one as a start for your own, which --template takes.\n\nExamples:\n  malmoi eval zeroshot --list\n  malmoi eval zeroshot --model gpt2 --task lambada --data lambada.jsonl --json\n  \
                  malmoi eval zeroshot --model malmoi-quickstart/gpt --task ko_nsmc --data-dir data --limit 100 --shots 2"
)]
pub struct ZeroShot {
    #[command(flatten)]
    model: ModelArguments,
    /// Tasks by name, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    task: Vec<String>,
    /// A template of your own; may be given several times
    #[arg(long, value_name = "FILE")]
    template: Vec<PathBuf>,
    /// Rows of the task: .tsv, .csv or .jsonl (also .gz, .zst); for one task
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    data: Option<PathBuf>,
    /// Folder of data sets, below which templates know their files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Solved examples before each question
    #[arg(long, value_name = "K", default_value_t = 0)]
    shots: usize,
    /// Rows that the examples are drawn from (default: the template's, else those of the task)
    #[arg(long, value_name = "FILE")]
    train: Option<PathBuf>,
    /// Seed of the draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Use only the first rows
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// What a masked language model hides at a time: a token, or the rest of its word too
    #[arg(long, value_enum, default_value = "token")]
    pseudo: PseudoName,
    /// Tokens that go through the model together
    #[arg(long, value_name = "N", default_value_t = 2048)]
    batch_tokens: usize,
    /// Write a JSON line a row: question, answers, their scores, the choice
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// Print what the model would see of the first rows, and stop
    #[arg(long, value_name = "N")]
    show: Option<usize>,
    /// Print the tasks that come with the program, and stop
    #[arg(long)]
    list: bool,
    /// Print the template of a task, and stop
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Encoding of the files
    #[arg(long, value_name = "NAME", default_value = "utf-8")]
    encoding: String,
    /// Print a JSON line a task
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum PseudoName {
    Token,
    Word,
}

/// A task with its rows.
struct Loaded {
    template: Template,
    rows: Vec<Row>,
    examples: Vec<Row>,
}

impl ZeroShot {
    pub fn run(self, global: &Global) -> Result<()> {
        if let Some(name) = &self.source {
            return output::piece(Template::shipped(name)?.source());
        }
        if self.list {
            return list(self.json);
        }
        let tasks = self.tasks(global)?;
        if let Some(n) = self.show {
            return self.show(&tasks, n);
        }
        if self.model.model.is_empty() {
            return Err(Failure::input(
                "no model: give --model MODEL (or --list, --show N to look at tasks alone)",
            ));
        }
        let pipeline = model::pipeline(&self.model, global)?;
        let mut samples = match &self.samples {
            Some(path) => {
                let file = File::create(path).map_err(|error| Failure::io(path, &error))?;
                Some((path, BufWriter::new(file)))
            }
            None => None,
        };
        let mut table = vec![
            ["task", "metric", "value", "± error", "rows", "shots"]
                .map(String::from)
                .to_vec(),
        ];
        for task in &tasks {
            let (items, left_out) = fitting(&pipeline, self.items(task)?)?;
            let (name, max_len) = (&task.template.name, pipeline.model.config().max_len());
            if items.is_empty() {
                return Err(Failure::input(format!(
                    "{name}: no question has answers that fit the model's {max_len} positions; take a model with more of them"
                )));
            }
            if left_out > 0 {
                let text = format!(
                    "note: {name}: {left_out} of {} questions were left out: one of their answers is longer than the model's {max_len} positions",
                    left_out + items.len()
                );
                progress::remark(global.quiet, text);
            }
            let outcome = self.measure(&pipeline, task, &items, global)?;
            if let Some((path, file)) = &mut samples {
                write_samples(file, task, &items, &outcome)
                    .map_err(|error| Failure::io(path, &error))?;
            }
            if self.json {
                output::json(&self.json_of(task, &outcome, left_out))?;
            } else {
                table.extend(self.table_of(task, &outcome));
            }
        }
        if let Some((path, mut file)) = samples {
            file.flush().map_err(|error| Failure::io(path, &error))?;
        }
        match self.json {
            true => Ok(()),
            false => output::table("llrrrr", &table),
        }
    }

    /// The templates with their rows. Where a file lacks the columns of a task and has those of its Korean sister, that one is taken.
    fn tasks(&self, global: &Global) -> Result<Vec<Loaded>> {
        let mut templates = Vec::new();
        for name in &self.task {
            templates.push(Template::shipped(name)?);
        }
        for path in &self.template {
            templates.push(Template::read(path)?);
        }
        if templates.is_empty() {
            return Err(Failure::input(
                "no task: give --task NAME or --template FILE; --list shows the names",
            ));
        }
        if templates.len() > 1 && (self.data.is_some() || self.train.is_some()) {
            return Err(Failure::input(
                "--data and --train belong to one task; several take their files from --data-dir",
            ));
        }
        let mut tasks = Vec::new();
        for mut template in templates {
            let path = self.file(
                &self.data,
                template.file.as_deref(),
                &template.name,
                "--data",
            )?;
            let rows = read_rows(&path, self.limit, &self.encoding)?;
            if !template.fits(&rows[0])
                && let Ok(sister) = Template::shipped(&format!("ko_{}", template.name))
                && sister.fits(&rows[0])
            {
                progress::remark(
                    global.quiet,
                    format!(
                        "note: {} has the columns of {}",
                        path.display(),
                        sister.name
                    ),
                );
                template = sister;
            }
            let examples = match (self.shots, &self.train, &template.train_file) {
                (0, _, _) => Vec::new(),
                (_, None, None) => read_rows(&path, None, &self.encoding)?,
                (_, None, Some(_)) if self.data_dir.is_none() => {
                    read_rows(&path, None, &self.encoding)?
                }
                (_, given, own) => {
                    let path = self.file(given, own.as_deref(), &template.name, "--train")?;
                    read_rows(&path, None, &self.encoding)?
                }
            };
            tasks.push(Loaded {
                template,
                rows,
                examples,
            });
        }
        Ok(tasks)
    }

    /// The file that a flag gives, or the template's below the folder of data sets.
    fn file(
        &self,
        given: &Option<PathBuf>,
        own: Option<&str>,
        name: &str,
        flag: &str,
    ) -> Result<PathBuf> {
        match (given, own, &self.data_dir) {
            (Some(path), _, _) => Ok(path.clone()),
            (None, Some(own), Some(dir)) => Ok(dir.join(own)),
            (None, Some(own), None) => Err(Failure::input(format!(
                "{name}: no rows; give {flag} FILE, or --data-dir with the folder that holds {own}"
            ))),
            (None, None, _) => Err(Failure::input(format!(
                "{name}: the template names no file; give {flag} FILE"
            ))),
        }
    }

    fn items(&self, task: &Loaded) -> Result<Vec<Item>, ZeroShotError> {
        (task.template).items(&task.rows, &task.examples, self.shots, self.seed)
    }

    fn show(&self, tasks: &[Loaded], n: usize) -> Result<()> {
        for task in tasks {
            for item in self.items(task)?.iter().take(n) {
                output::line(format!("── {} ({})", task.template.name, item.place))?;
                let same = (item.choices.iter()).all(|c| c.prompt == item.choices[0].prompt);
                if same {
                    output::line(&item.choices[0].prompt)?;
                }
                for (i, choice) in item.choices.iter().enumerate() {
                    let mark = if i == item.answer { '*' } else { ' ' };
                    let prompt = if same { "" } else { &choice.prompt };
                    output::line(format!("{mark} {i} ▏{prompt}{}▕", choice.continuation))?;
                }
            }
        }
        Ok(())
    }

    fn measure(
        &self,
        pipeline: &Pipeline,
        task: &Loaded,
        items: &[Item],
        global: &Global,
    ) -> Result<Outcome> {
        let options = ScoreOptions {
            tokens_per_batch: self.batch_tokens.max(1),
            pseudo: match self.pseudo {
                PseudoName::Token => Pseudo::Token,
                PseudoName::Word => Pseudo::Word,
            },
        };
        let alone = usize::from(items.iter().any(|item| item.unconditional.is_some()));
        let answers: usize = items.iter().map(|item| item.choices.len()).sum();
        let total = (answers * (1 + alone)) as u64;
        let bar = progress::bar(global.quiet, total, &task.template.name, "answers");
        let outcome = run(pipeline, task.template.kind, items, &options, &mut |done| {
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        for (count, what) in [
            (
                outcome.truncated,
                "lost the beginning of their prompt, which is longer than the model",
            ),
            (
                outcome.without_first,
                "were scored without their first token: nothing stands before it, and the tokenizer has no token that starts texts",
            ),
        ] {
            if count > 0 {
                let name = &task.template.name;
                progress::remark(
                    global.quiet,
                    format!("note: {name}: {count} answers {what}"),
                );
            }
        }
        Ok(outcome)
    }

    fn json_of(&self, task: &Loaded, outcome: &Outcome, left_out: usize) -> Value {
        let mut row = Map::new();
        row.insert("task".into(), json!(task.template.name));
        for measure in &outcome.report.measures {
            row.insert(measure.name.into(), json!(measure.value));
            if let Some(error) = measure.error {
                row.insert(format!("{}_stderr", measure.name), json!(error));
            }
        }
        row.insert("rows".into(), json!(outcome.report.rows));
        row.insert("shots".into(), json!(self.shots));
        row.insert("seed".into(), json!(self.seed));
        row.insert("truncated".into(), json!(outcome.truncated));
        row.insert("left_out".into(), json!(left_out));
        if !outcome.report.groups.is_empty() {
            row.insert("groups".into(), json!(outcome.report.groups));
        }
        Value::Object(row)
    }

    fn table_of(&self, task: &Loaded, outcome: &Outcome) -> Vec<Vec<String>> {
        let rows = output::thousands(outcome.report.rows);
        let measures = outcome.report.measures.iter().map(|measure| {
            vec![
                task.template.name.clone(),
                measure.name.replace('_', " "),
                format!("{:.4}", measure.value),
                measure.error.map_or(String::new(), |e| format!("± {e:.4}")),
                rows.clone(),
                self.shots.to_string(),
            ]
        });
        let groups = outcome.report.groups.iter().map(|group| {
            vec![
                format!("  {}", group.name),
                "accuracy".into(),
                format!("{:.4}", group.accuracy),
                String::new(),
                output::thousands(group.rows),
                self.shots.to_string(),
            ]
        });
        measures.chain(groups).collect()
    }
}

fn list(json: bool) -> Result<()> {
    let mut table = vec![
        ["task", "columns", "what it measures"]
            .map(String::from)
            .to_vec(),
    ];
    for name in Template::names() {
        let template = Template::shipped(name)?;
        if json {
            output::json(&json!({
                "task": name, "description": template.description, "columns": template.columns(),
                "file": template.file, "train_file": template.train_file,
            }))?;
        }
        table.push(vec![
            name.into(),
            template.columns().join(" "),
            template.description.clone(),
        ]);
    }
    match json {
        true => Ok(()),
        false => output::table("lll", &table),
    }
}

/// One JSON line a row.
fn write_samples(
    file: &mut impl Write,
    task: &Loaded,
    items: &[Item],
    outcome: &Outcome,
) -> std::io::Result<()> {
    for (item, likelihoods) in items.iter().zip(&outcome.likelihoods) {
        let answers: Vec<Value> = (item.choices.iter().zip(likelihoods))
            .map(|(choice, likelihood)| {
                json!({
                    "prompt": choice.prompt, "text": choice.continuation,
                    "log_likelihood": likelihood.log_likelihood, "tokens": likelihood.tokens,
                    "greedy": likelihood.greedy, "unconditional": likelihood.unconditional,
                })
            })
            .collect();
        let chosen = match task.template.kind {
            Kind::Choice => best(item, likelihoods, Normalization::Sum),
            Kind::Word => None,
        };
        let row = json!({
            "task": task.template.name, "place": item.place, "answer": item.answer, "chosen": chosen,
            "group": item.group, "answers": answers,
        });
        writeln!(file, "{row}")?;
    }
    Ok(())
}

impl From<ZeroShotError> for Failure {
    fn from(error: ZeroShotError) -> Self {
        match error {
            ZeroShotError::Task(error) => error.into(),
            error => Self::input(error.to_string()),
        }
    }
}
