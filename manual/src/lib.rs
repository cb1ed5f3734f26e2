//! Man pages and shell completions of a command, made from the definition that reads its arguments, so that they cannot
//! say something else. Each command makes its own when it is run as `COMMAND --generate=DIR`, which `scripts/install`
//! does: an argument for packagers that help does not mention.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// A man page: what a command's definition says, and sections behind it.
pub struct Page {
    /// The command. What its page is called follows from its name.
    pub command: Command,
    /// What its definition does not say.
    pub sections: Vec<Section>,
}

/// A section of a man page.
pub struct Section {
    title: &'static str,
    blocks: Vec<Block>,
}

enum Block {
    Paragraph(String),
    Item(String, String),
    Example(String),
}

impl Section {
    /// An empty one, by its title in capitals.
    pub fn new(title: &'static str) -> Section {
        Section { title, blocks: Vec::new() }
    }

    /// Adds a paragraph.
    pub fn text(mut self, text: impl Into<String>) -> Section {
        self.blocks.push(Block::Paragraph(text.into()));
        self
    }

    /// Adds a term and what it means.
    pub fn item(mut self, term: impl Into<String>, meaning: impl Into<String>) -> Section {
        self.blocks.push(Block::Item(term.into(), meaning.into()));
        self
    }

    /// Adds several of those.
    pub fn items(self, items: impl IntoIterator<Item = (String, String)>) -> Section {
        items.into_iter().fold(self, |section, (term, meaning)| section.item(term, meaning))
    }

    /// Adds lines to type, as they are.
    pub fn example(mut self, lines: impl Into<String>) -> Section {
        self.blocks.push(Block::Example(lines.into()));
        self
    }

    fn render(&self, roff: &mut Roff) {
        roff.control("SH", [self.title]);
        for block in &self.blocks {
            match block {
                Block::Paragraph(text) => {
                    roff.control("PP", []);
                    roff.text([roman(text.as_str())]);
                }
                Block::Item(term, meaning) => {
                    roff.control("TP", []);
                    roff.text([bold(term.as_str())]);
                    roff.text([roman(meaning.as_str())]);
                }
                Block::Example(lines) => {
                    roff.control("PP", []);
                    roff.control("RS", ["4"]);
                    roff.control("nf", []);
                    for line in lines.lines() {
                        roff.text([roman(line)]);
                    }
                    roff.control("fi", []);
                    roff.control("RE", []);
                }
            }
        }
    }
}

/// Where to, if that is all that the arguments (the first is the program's name) ask for.
pub fn wanted(arguments: &[OsString]) -> Option<PathBuf> {
    match arguments {
        [_, only] => {
            only.to_str()?.strip_prefix("--generate=").filter(|dir| !dir.is_empty()).map(PathBuf::from)
        }
        _ => None,
    }
}

/// Writes `pages`, and completions for `commands`, below `share` as they lie in PREFIX/share.
pub fn generate(share: &Path, pages: &[Page], commands: &[Command]) -> Result<(), String> {
    for page in pages {
        let name = display_name(&page.command);
        write(&share.join("man/man8").join(format!("{name}.8")), &render(page).map_err(|e| e.to_string())?)?;
    }
    for command in commands {
        let name = command.get_name().to_string();
        let places = [
            (Shell::Bash, format!("bash-completion/completions/{name}")),
            (Shell::Zsh, format!("zsh/site-functions/_{name}")),
            (Shell::Fish, format!("fish/vendor_completions.d/{name}.fish")),
        ];
        for (shell, place) in places {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), &name, &mut script);
            write(&share.join(place), &script)?;
        }
    }
    Ok(())
}

fn display_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn render(page: &Page) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let source = format!("cairn {}", env!("CARGO_PKG_VERSION"));
    let name = display_name(&page.command);
    let man = Man::new(page.command.clone()).title(name).section("8").source(source).manual("cairn");
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(&page.command).to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    if page.command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if page.command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    page.sections.iter().for_each(|section| section.render(&mut roff));
    roff.to_writer(&mut text)?;
    Ok(text)
}

/// As `--help` has it: clap_mangen leaves options without a long name unnamed.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman(usage.trim_start_matches("Usage: "))]);
    roff
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let failed = |e: io::Error| format!("{}: {e}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn only_the_flag_alone_asks_for_pages() {
        assert_eq!(wanted(&arguments("cairn --generate=/tmp/x")), Some("/tmp/x".into()));
        for line in ["cairn", "cairn --generate", "cairn --generate=", "cairn df --generate=x", "cairn df"] {
            assert_eq!(wanted(&arguments(line)), None, "{line}");
        }
    }

    #[test]
    fn text_that_looks_like_a_request_of_roffs_is_text() {
        let command = Command::new("x").about("does .something");
        let section = Section::new("EXAMPLES").text("'quoted").example(".dots\n\\back").item("-o", ".more");
        let page = render(&Page { command, sections: vec![section] }).expect("renders");
        let page = String::from_utf8(page).expect("text");
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = &line[1..];
            let known = ["TH", "SH", "PP", "TP", "RS", "RE", "nf", "fi", "ie", "el", "br"];
            assert!(known.iter().any(|k| request.starts_with(k)), "{line} in {page}");
        }
        assert!(page.contains("\\\\back") || page.contains("\\eback"), "{page}");
    }
}
