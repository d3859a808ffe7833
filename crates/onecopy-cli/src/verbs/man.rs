//! `onecopy man`: the man pages, one per verb, for packagers.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::cli::Cli;
use crate::failure::{Failure, plain, print};

/// The options of `man`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory for onecopy.1, onecopy-send.1 and so on; without it onecopy.1 goes to stdout
    directory: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    match &arguments.directory {
        Some(directory) => write(&command, directory)
            .map_err(|error| Failure::failed(format!("cannot write to {}: {}", directory.display(), plain(&error)))),
        None => {
            print(&page(&command).map_err(|error| Failure::failed(format!("cannot render the man page: {error}")))?)
        }
    }
}

/// Writes the page of a command, and those of its verbs.
fn write(command: &Command, directory: &Path) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write(verb, directory)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    std::fs::write(directory.join(format!("{name}.1")), page(command)?)
}

/// The page of a command that is built.
fn page(command: &Command) -> io::Result<String> {
    // As --help has it, with the -- in front of a command.
    let usage = command.clone().render_usage().to_string();
    let command = command.clone().override_usage(usage.trim_start_matches("Usage: ").to_owned());
    let command = command.mut_args(|option| match (option.get_visible_aliases(), option.get_help()) {
        (Some(aliases), Some(help)) if !aliases.is_empty() => {
            let help = format!("{help} [alias: --{}]", aliases.join(", --"));
            option.help(help)
        }
        _ => option,
    });
    let extra = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut page = Vec::new();
    // What it makes of the text below the options runs the lines of examples together.
    Man::new(command.after_help(None::<&str>))
        .source(concat!("onecopy ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned() + &sections(&extra))
}

/// The text below the options: examples line by line, exit codes, and notes.
fn sections(text: &str) -> String {
    let mut last = "";
    text.split("\n\n").filter(|paragraph| !paragraph.is_empty()).fold(String::new(), |page, paragraph| {
        let (heading, body) = match paragraph.split_once(": ").filter(|(heading, _)| *heading == "Exit codes") {
            Some((_, codes)) => ("EXIT STATUS", codes.to_owned()),
            None => match paragraph.strip_prefix("Examples:\n") {
                Some(examples) => ("EXAMPLES", examples.to_owned()),
                None => ("NOTES", paragraph.to_owned()),
            },
        };
        let head = if heading == last { ".PP\n".to_owned() } else { format!(".SH \"{heading}\"\n") };
        last = heading;
        let body = quoted(&body);
        page + &if heading == "EXAMPLES" { format!("{head}.nf\n{body}\n.fi\n") } else { format!("{head}{body}\n") }
    })
}

/// Text as it stands, whatever means something to troff.
fn quoted(text: &str) -> String {
    let quote = |line: &str| {
        let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
        // A line that begins with a dot or a quote would be a request.
        format!("\\&{line}")
    };
    text.lines().map(quote).collect::<Vec<_>>().join("\n")
}
