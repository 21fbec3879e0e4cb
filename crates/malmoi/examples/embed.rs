//! Compares texts by the vectors of a model directory: `cargo run --release -p malmoi --example embed -- DIR TEXT TEXT...`

use std::path::Path;

use malmoi::Pipeline;
use malmoi::embed::{EmbedOptions, cosine};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, texts @ ..] = arguments.as_slice() else {
        return Err("expected a model directory and texts".into());
    };
    let pipeline = Pipeline::open(Path::new(dir), &Default::default())?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let vectors = pipeline.embed(&texts, &EmbedOptions::default())?;
    for (i, (text, a)) in texts.iter().zip(&vectors).enumerate() {
        for (other, b) in texts.iter().zip(&vectors).skip(i + 1) {
            println!("{:.3}  {text}  ~  {other}", cosine(&a.vector, &b.vector));
        }
    }
    Ok(())
}
