//! What copying the source would score on a text-to-text table, the trivial answer that a model has to beat. Built with the whole
//! workspace it shares the program's build of the engine:
//!
//! ```text
//! cargo build --release --workspace --example copy_baseline
//! target/release/examples/copy_baseline data/samples/en_text2text_e2e/valid.tsv
//! ```

use std::path::Path;

use malmoi::tasks::{Prediction, Task, Text2text, Truth, read_records};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args()
        .nth(1)
        .ok_or("expected a table with source and target")?;
    let task = Text2text::default();
    let columns = [task.source_column.as_str(), task.target_column.as_str()];
    let (mut truths, mut copies) = (Vec::new(), Vec::new());
    for record in read_records(Path::new(&file), &columns, "utf-8")? {
        truths.push(Truth::Text(record.text(columns[1])?, Vec::new()));
        copies.push(Prediction::Text(record.text(columns[0])?));
    }
    for (name, value) in task.score(&truths, &copies, &[]) {
        println!("{name} {value:.2}");
    }
    Ok(())
}
