//! Trains from a configuration file with the library alone: `cargo run --release -p malmoi-train --example pretrain -- CONFIG OUT
//! [KEY=VALUE]...`

use std::path::PathBuf;

use malmoi_train::TrainError;
use malmoi_train::pretrain::{Event, PretrainConfig, RunOptions, run};

fn main() -> Result<(), TrainError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(config), Some(out)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: pretrain CONFIG OUT [KEY=VALUE]...");
        std::process::exit(2);
    };
    let config = PretrainConfig::load(&PathBuf::from(config), &arguments.collect::<Vec<_>>())?;
    let options = RunOptions {
        out: out.into(),
        ..RunOptions::default()
    };
    let summary = run(&config, &options, &mut |event: &Event<'_>| match event {
        Event::Started(started) => println!("{started:?}"),
        Event::Step(step) if step.step % 100 == 0 => println!(
            "step {}: loss {:.4}, {:.1} ms",
            step.step, step.loss, step.milliseconds
        ),
        Event::Evaluated {
            step, evaluation, ..
        } => {
            println!("step {step}: {evaluation:?}");
        }
        _ => {}
    })?;
    println!("{summary:?}");
    Ok(())
}
