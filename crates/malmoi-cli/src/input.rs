//! Texts from arguments, files or stdin.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use malmoi_text::{LineReader, ReadOptions};

use crate::failure::{Failure, Result};

const NO_TEXT: &str = "no text: give --prompt TEXT or --input FILE, or pipe lines into stdin";

/// Where texts come from.
#[derive(Args, Debug, Clone)]
pub struct TextArguments {
    /// A text; may be given several times
    #[arg(
        long = "prompt",
        short = 'p',
        value_name = "TEXT",
        conflicts_with = "input"
    )]
    pub prompts: Vec<String>,
    /// A file with one text a line (without --prompt and --input: stdin)
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

/// Lines of a file, read one by one.
pub type Lines = Box<dyn Iterator<Item = malmoi_text::Result<String>>>;

impl TextArguments {
    /// Where the lines of --input or stdin come from, and the lines; never all at once. Empty ones are among them.
    pub fn lines(&self) -> Result<(String, Lines)> {
        let path = match &self.input {
            Some(path) => path.clone(),
            None if io::stdin().is_terminal() => return Err(Failure::input(NO_TEXT)),
            None => PathBuf::from("/dev/stdin"),
        };
        let name = match self.input {
            Some(_) => path.display().to_string(),
            None => "stdin".to_owned(),
        };
        let reader = LineReader::open(&path, &ReadOptions::default())?;
        Ok((name, Box::new(reader.into_lines())))
    }

    /// The texts, at least one.
    pub fn texts(&self) -> Result<Vec<String>> {
        if !self.prompts.is_empty() {
            return Ok(self.prompts.clone());
        }
        let (name, text) = match &self.input {
            Some(path) => (path.display().to_string(), file(path)?),
            None if io::stdin().is_terminal() => {
                return Err(Failure::input(NO_TEXT));
            }
            None => ("stdin".to_owned(), stdin()?),
        };
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.trim_end_matches('\r'))
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        if lines.is_empty() {
            return Err(Failure::input(format!(
                "{name}: no text found, expected one text a line"
            )));
        }
        Ok(lines)
    }
}

/// The text of a file, without a byte-order mark.
pub fn file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| Failure::io(path, &error))?;
    utf8(&path.display().to_string(), bytes)
}

/// All of stdin.
pub fn stdin() -> Result<String> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io(Path::new("stdin"), &error))?;
    utf8("stdin", bytes)
}

fn utf8(name: &str, bytes: Vec<u8>) -> Result<String> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text
            .strip_prefix('\u{feff}')
            .map_or_else(|| text.clone(), str::to_owned)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            Err(Failure::input(format!(
                "{name}: line {line}, byte {at}: not valid UTF-8; convert the file to UTF-8"
            )))
        }
    }
}
