//! Continues a text with a model directory: `cargo run --release -p malmoi --example generate -- DIR PROMPT`

use std::io::Write;
use std::path::Path;

use malmoi::Pipeline;
use malmoi::generate::{Flow, GenerateOptions};
use malmoi::sampling::SamplingSettings;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, prompt] = arguments.as_slice() else {
        return Err("expected a model directory and a prompt".into());
    };
    let pipeline = Pipeline::open(Path::new(dir), &Default::default())?;
    let sampling = SamplingSettings {
        do_sample: true,
        temperature: Some(0.8),
        top_k: Some(50),
        ..Default::default()
    };
    let options = GenerateOptions {
        sampling,
        seed: 1,
        end_ids: pipeline.end_ids().to_vec(),
        ..Default::default()
    };
    print!("{prompt}");
    pipeline.generate(
        &[pipeline.prompt_ids(prompt, 0)?],
        &options,
        &[],
        &mut |_, text| {
            print!("{text}");
            if std::io::stdout().flush().is_ok() {
                Flow::Continue
            } else {
                Flow::Cancel
            }
        },
    )?;
    println!();
    Ok(())
}
