//! `fanfare completions` and `fanfare man`: made from the commands' own descriptions.

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man as Page;

use super::Failure;

/// The arguments of `fanfare completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell, such as bash: `fanfare completions bash > /usr/share/bash-completion/completions/fanfare`.
    shell: Shell,
}

/// The arguments of `fanfare man`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The command that the page is about [default: all in short]. To read it: `fanfare man serve | man -l -`.
    command: Option<String>,
}

/// Prints the completions.
pub(super) fn completions(arguments: &Completions, mut program: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, "fanfare", &mut script);
    super::print(&script)
}

/// Prints a page.
pub(super) fn page(arguments: &Man, mut program: clap::Command) -> Result<(), Failure> {
    program.build();
    let command = match &arguments.command {
        None => program,
        Some(name) => match program.find_subcommand(name) {
            Some(command) => command.clone(),
            None => return Err(Failure::Usage(format!("there is no command {name:?}; `fanfare --help` lists them"))),
        },
    };
    let mut page = Vec::new();
    Page::new(command).render(&mut page).map_err(Failure::failed)?;
    super::print(&page)
}
