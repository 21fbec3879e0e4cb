//! Running the program, and small inputs for it.
#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use malmoi_models::{Head, Mode, Model, ModelConfig, SaveOptions};
use malmoi_text::{Algorithm, Tokenizer, TrainOptions, train_from_iter};
use serde_json::json;

/// The program, with an environment that does not depend on who runs the test.
pub fn malmoi() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_malmoi"));
    for variable in [
        "COLUMNS",
        "HF_HOME",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "HF_HUB_CACHE",
        "NO_COLOR",
        "CLICOLOR_FORCE",
    ] {
        command.env_remove(variable);
    }
    command.env("HF_HUB_OFFLINE", "1").stdin(Stdio::null());
    command
}

/// What the program did.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// Runs the program.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ran {
    ran(malmoi()
        .args(arguments)
        .output()
        .expect("the program starts"))
}

impl Ran {
    /// The output of a run that must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// The message of a run that must have failed with this exit status: one error, no panic, nothing on stdout.
    pub fn fails(self, code: i32) -> String {
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        for word in [
            "panicked",
            "internal error",
            "RUST_BACKTRACE",
            "stack backtrace",
        ] {
            assert!(!self.stderr.contains(word), "{}", self.stderr);
        }
        assert_eq!(self.stderr.matches("error: ").count(), 1, "{}", self.stderr);
        assert_eq!(self.stdout, "");
        self.stderr
    }
}

/// Asserts that a message names all of these.
pub fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}

const LINES: [&str; 6] = [
    "이 영화는 정말 재미있다",
    "이 영화는 정말 지루하다",
    "배우의 연기가 좋았다",
    "배우의 연기가 나빴다",
    "음악이 좋았다",
    "다시 보고 싶다",
];

pub fn tokenizer(algorithm: Algorithm, vocab_size: usize) -> Tokenizer {
    let lines = LINES.iter().map(|line| Ok((*line).to_owned()));
    let options = TrainOptions {
        min_frequency: 1,
        ..TrainOptions::new(algorithm, vocab_size)
    };
    train_from_iter(lines, &options, &mut |_| ())
        .expect("a tokenizer")
        .tokenizer
}

/// A model directory with random weights and a tokenizer: a GPT-2 with 24 positions, a T5, or a BERT with 16 positions.
pub fn model(parent: &Path, name: &str) -> PathBuf {
    let dir = parent.join(name);
    let writes = name.starts_with("gpt") || name.starts_with("t5");
    let tokenizer = if writes {
        tokenizer(Algorithm::Bpe, 290)
    } else {
        tokenizer(Algorithm::WordPiece, 60)
    };
    let (shape, head) = if name.starts_with("t5") {
        let shape = json!({
            "model_type": "t5", "vocab_size": tokenizer.vocab_size(), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2,
        });
        (shape, Head::Seq2SeqLm)
    } else if writes {
        let shape = json!({
            "model_type": "gpt2", "vocab_size": tokenizer.vocab_size(), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24,
        });
        (shape, Head::CausalLm)
    } else {
        let shape = json!({
            "model_type": "bert", "vocab_size": tokenizer.vocab_size(), "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16,
        });
        (shape, Head::MaskedLm)
    };
    let config = ModelConfig::from_json(&shape, false).expect("a valid shape");
    Model::initialise(config, head, 1, Mode::Inference)
        .save(&dir, &SaveOptions::default())
        .expect("the model is saved");
    tokenizer.save(&dir, None).expect("the tokenizer is saved");
    dir
}

/// A text file and a configuration that trains a tiny GPT-2 on it for four steps, with a checkpoint after each.
pub fn pretraining(parent: &Path) -> PathBuf {
    fs::write(parent.join("train.txt"), LINES.join("\n").repeat(20)).expect("the text is written");
    let config = parent.join("tiny.toml");
    let text = format!(
        "seed = 1\n[model]\narchitecture = \"gpt2\"\nn_layers = 1\nn_heads = 2\nd_model = 16\nmax_len = 16\n\
         [tokenizer]\ntrain = {{ kind = \"bpe\", vocab_size = 280 }}\n\
         [data]\ndir = {:?}\ntrain = \"train.txt\"\nvalid = \"train.txt\"\ndocuments = \"line\"\n\
         [objective]\nkind = \"clm\"\ncontext = 16\n\
         [train]\nsteps = 4\nbatch_size = 2\n[checkpoint]\nevery = 1\n",
        parent.display().to_string()
    );
    fs::write(&config, text).expect("the configuration is written");
    config
}
