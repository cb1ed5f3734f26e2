//! The examples of docs/SEMANTICS.md do what they say.

use std::fs;
use std::path::Path;
use std::process::Command;

use cairn_tests::mounted::{Mounted, program};

/// A command of an example, and what it prints.
#[derive(Debug, PartialEq)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// The blocks marked `console`.
fn examples(text: &str) -> Vec<Vec<Step>> {
    let mut all = Vec::new();
    let mut open: Option<Vec<Step>> = None;
    for line in text.lines() {
        match (line, open.as_mut()) {
            ("```console", _) => open = Some(Vec::new()),
            ("```", Some(_)) => all.extend(open.take()),
            (line, Some(steps)) => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.into(), output: Vec::new() }),
                (None, Some(step)) => step.output.push(line.into()),
                (None, None) => panic!("an example begins with output: {line}"),
            },
            _ => {}
        }
    }
    all
}

/// Whether a line is what the example says; `…` stands for anything.
fn fits(says: &str, line: &str) -> bool {
    match says.split_once('…') {
        None => says == line,
        Some((before, after)) => {
            line.len() >= before.len() + after.len() && line.starts_with(before) && line.ends_with(after)
        }
    }
}

fn run(step: &Step, dir: &Path) {
    let programs = program("cairn").parent().expect("a directory").to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("timeout");
    shell
        .args(["120", "bash", "-c", &step.command])
        .current_dir(dir)
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8");
    let ran = shell.output().expect("bash and timeout");
    let out = String::from_utf8_lossy(&ran.stdout);
    let lines: Vec<_> = out.lines().collect();
    let same = lines.len() == step.output.len() && step.output.iter().zip(&lines).all(|(s, l)| fits(s, l));
    assert!(same, "$ {}\nprints {lines:?}, the document says {:?}", step.command, step.output);
    assert!(ran.stderr.is_empty(), "$ {}\n{}", step.command, String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn the_examples_of_the_document_do_what_they_say() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SEMANTICS.md"));
    let examples = examples(&text.expect("the document"));
    assert!(examples.len() >= 5, "{} examples", examples.len());
    for example in examples {
        let m = Mounted::new();
        example.iter().for_each(|step| run(step, m.at()));
        m.finish();
    }
}

#[test]
fn examples_are_read_as_they_are_printed() {
    let steps = &examples("x\n```console\n$ a\nb\n$ c\n```\n$ no\n```\n")[0];
    let step = |command: &str, output: &[&str]| Step {
        command: command.into(),
        output: output.iter().map(|s| (*s).to_owned()).collect(),
    };
    assert_eq!(*steps, [step("a", &["b"]), step("c", &[])]);
    assert!(fits("1 …", "1 2") && !fits("1 …", "2 2") && !fits("ab…ba", "aba") && fits("x", "x"));
}
