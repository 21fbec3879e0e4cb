//! `malmoi help [VERB]`, for those who type it.

use clap::{Args, CommandFactory};

use crate::arguments::Arguments;
use crate::failure::{Failure, Result};
use crate::output;

/// Print help
#[derive(Args, Debug)]
pub struct Help {
    /// The verb
    verb: Vec<String>,
}

impl Help {
    pub fn run(self) -> Result<()> {
        let mut root = Arguments::command();
        root.build();
        let mut command = &mut root;
        for verb in &self.verb {
            command = command.find_subcommand_mut(verb).ok_or_else(|| {
                Failure::input(format!(
                    "there is no verb `{verb}`; `malmoi --help` lists them"
                ))
            })?;
        }
        output::piece(&command.render_help().to_string())
    }
}
