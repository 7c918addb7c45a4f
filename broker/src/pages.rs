//! `sansq completions` and `sansq man`: the flags in the forms that shells and `man` read.
//!
//! Both are made from the commands that the command line is parsed with. Packages call them when
//! they are built (`packaging/files`).

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory, Parser, ValueEnum, ValueHint};
use clap_complete::Shell;
use sansq_bench::BenchOptions;
use sansq_toolkit::flags;
use sansq_tools::{
    PubOptions, StatOptions, TailOptions, ToFileOptions, ToHttpOptions, ToNsqOptions, TopOptions,
};

use crate::args::{self, BothOptions, NsqdOptions, NsqlookupdOptions};

/// What to print completions for.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq completions",
    bin_name = "sansq completions",
    about = "Prints a script that lets a shell complete the flags",
    after_help = "For example: sansq completions bash > /etc/bash_completion.d/sansq",
    max_term_width = 100
)]
pub struct CompletionsOptions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
    /// The name that the program is called by
    #[arg(value_enum, default_value_t = Name::Sansq)]
    pub program: Name,
}

/// Where man pages go.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq man",
    bin_name = "sansq man",
    about = "Writes the man pages of all programs and commands",
    max_term_width = 100
)]
pub struct ManOptions {
    /// The folder to write to, which is made if it is missing; none: prints the page of sansq
    #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub folder: Option<PathBuf>,
}

/// A name of the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Name {
    /// sansq with its commands.
    Sansq,
    /// nsqd, by a link.
    Nsqd,
    /// nsqlookupd, by a link.
    Nsqlookupd,
}

impl Name {
    fn command(self) -> Command {
        match self {
            Self::Sansq => sansq(),
            Self::Nsqd => args::command::<NsqdOptions>(),
            Self::Nsqlookupd => args::command::<NsqlookupdOptions>(),
        }
    }
}

/// Prints the completions on standard output.
///
/// # Errors
/// If standard output does not take them.
pub fn run_completions(options: CompletionsOptions) -> io::Result<()> {
    print(&completions(options.shell, options.program))
}

/// Writes the man pages.
///
/// # Errors
/// If a page can't be written.
pub fn run_man(options: ManOptions) -> io::Result<()> {
    let Some(folder) = options.folder else {
        return print(&page(sansq())?);
    };
    let named = |error: io::Error, path: &Path| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    fs::create_dir_all(&folder).map_err(|error| named(error, &folder))?;
    for (name, page) in pages()? {
        let path = folder.join(name);
        fs::write(&path, page).map_err(|error| named(error, &path))?;
    }
    Ok(())
}

fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(bytes).and_then(|()| out.flush())
}

fn completions(shell: Shell, program: Name) -> Vec<u8> {
    let mut command = program.command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// The pages by the names of their files.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    for command in [Name::Nsqd.command(), Name::Nsqlookupd.command(), sansq()] {
        pages.push((file_name(command.get_name()), page(command)?));
    }
    for command in sansq().get_subcommands() {
        let (name, full_name) = (command.get_name(), format!("sansq-{}", command.get_name()));
        let page = match name {
            // It is that page.
            "nsqd" | "nsqlookupd" => format!(".so man{SECTION}/{}\n", file_name(name)).into(),
            _ => page(command.clone().name(full_name.clone()))?,
        };
        pages.push((file_name(&full_name), page));
    }
    Ok(pages)
}

fn file_name(name: &str) -> String {
    format!("{name}.{SECTION}")
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let name = command.get_name().to_owned();
    // A synopsis that names all flags of nsqd is a page long.
    let is_tool = command.get_positionals().next().is_some() || command.get_opts().count() < 15;
    let page = clap_mangen::Man::new(command.disable_help_subcommand(true))
        .title(name.to_uppercase())
        .section(SECTION);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    if is_tool {
        page.render_synopsis_section(&mut text)?;
    } else {
        writeln!(text, ".SH SYNOPSIS\n\\fB{name}\\fR [flags]")?;
    }
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if name == "sansq" {
        page.render_subcommands_section(&mut text)?;
    }
    page.render_extra_section(&mut text)?;
    Ok(text)
}

/// sansq with everything that it can be.
fn sansq() -> Command {
    args::command::<BothOptions>().subcommands([
        args::command::<NsqdOptions>(),
        args::command::<NsqlookupdOptions>(),
        subcommand::<PubOptions>("pub"),
        subcommand::<TailOptions>("tail"),
        subcommand::<StatOptions>("stat"),
        subcommand::<ToFileOptions>("to-file"),
        subcommand::<ToHttpOptions>("to-http"),
        subcommand::<ToNsqOptions>("to-nsq"),
        subcommand::<TopOptions>("top"),
        subcommand::<BenchOptions>("bench"),
        subcommand::<CompletionsOptions>("completions"),
        subcommand::<ManOptions>("man"),
    ])
}

/// A tool's command, which calls itself by its full name.
fn subcommand<P: CommandFactory>(name: &'static str) -> Command {
    flags::command::<P>().name(name).bin_name(format!("sansq {name}"))
}

/// The section of the manual: programs.
const SECTION: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    use crate::args::Program;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn flags<P: Program>() -> Vec<String> {
        args::command::<P>().get_opts().filter_map(Arg::get_long).map(Into::into).collect()
    }

    #[test]
    fn the_commands_are_sound() {
        for name in Name::value_variants() {
            name.command().debug_assert();
        }
    }

    #[test]
    fn every_shell_knows_every_flag() {
        for shell in Shell::value_variants() {
            for (program, flags) in [
                (Name::Nsqd, flags::<NsqdOptions>()),
                (Name::Nsqlookupd, flags::<NsqlookupdOptions>()),
                (Name::Sansq, flags::<BothOptions>()),
            ] {
                let script = text(completions(*shell, program));
                for flag in flags {
                    assert!(script.contains(&flag), "{shell} {program:?} {flag}");
                }
            }
            let script = text(completions(*shell, Name::Sansq));
            for word in ["tail", "print-topic", "top", "async-std"] {
                assert!(script.contains(word), "{shell} {word}");
            }
        }
    }

    #[test]
    fn a_page_for_each_program_and_tool() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "nsqd.1",
                "nsqlookupd.1",
                "sansq.1",
                "sansq-nsqd.1",
                "sansq-nsqlookupd.1",
                "sansq-pub.1",
                "sansq-tail.1",
                "sansq-stat.1",
                "sansq-to-file.1",
                "sansq-to-http.1",
                "sansq-to-nsq.1",
                "sansq-top.1",
                "sansq-bench.1",
                "sansq-completions.1",
                "sansq-man.1"
            ]
        );
        let page = |wanted| {
            let (_, page) = pages.iter().find(|(name, _)| name == wanted).unwrap();
            text(page.clone()).replace('\\', "")
        };
        for flag in flags::<NsqdOptions>() {
            assert!(page("nsqd.1").contains(&format!("--{flag}")), "{flag}");
        }
        // Read on another host than it was made on.
        for line in page("nsqd.1").lines() {
            assert!(!line.contains(&args::host_name()), "{line}");
        }
        assert!(page("nsqd.1").contains("[default: the host*(Aqs name]"));
        assert!(page("nsqd.1").contains("SYNOPSIS\nfBnsqdfR [flags]\n"), "{}", page("nsqd.1"));
        assert_eq!(page("sansq-nsqd.1"), ".so man1/nsqd.1\n");
        assert!(page("sansq-tail.1").contains("--print-topic"));
    }

    #[test]
    fn pages_go_to_a_folder_that_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("man");
        run_man(ManOptions { folder: Some(folder.clone()) }).unwrap();
        assert!(fs::read_to_string(folder.join("nsqd.1")).unwrap().contains(".TH NSQD 1"));
        let file = folder.join("nsqd.1");
        let error = run_man(ManOptions { folder: Some(file.clone()) }).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
    }
}
