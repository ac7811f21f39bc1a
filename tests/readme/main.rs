//! Promise: every command that README.md shows does what the README says it does.
//!
//! In a block of ```` ```console ```` or ```` ```sh ````, a line that starts with `$ ` is a command,
//! and the lines behind it are its output, standard error included; `...` stands for any number of
//! lines, and within a line for any text. The commands of a block run in one shell, in the repository's root, with sbx on the PATH.
//!
//! A block of ```` ```console setup ```` installs or builds. Its commands must be ones that `.ci/run`
//! or `tests/run` run, perhaps with more options; they are not run here, since it is they that brought
//! this test about. Of `cargo run --release -- WORDS` what it builds for is run: `sbx WORDS`.
//!
//! A block of ```` ```console vm ```` runs guests: it is tried where the test runner has a KVM, and as this
//! host can do it, be it by software emulation, whose notice is then not held against it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod blocks;

use blocks::{Block, Command, matches, parse};
use std::fs;
use std::path::Path;
use std::time::Duration;
use support::{Sbx, root};

/// Stands between the outputs of two commands.
const MARK: &str = "<<< the next command >>>";

/// What is really printed by each command of a block.
#[track_caller]
fn run(block: &Block) -> Vec<String> {
    let mut script = String::from("exec 2>&1\n");
    for Command { text, .. } in &block.commands {
        // The next command may ask for the status of this one.
        script += &format!("{text}\nstatus=$?; printf '{MARK}'; (exit $status)\n");
    }
    let sbx = Path::new(env!("CARGO_BIN_EXE_sbx")).parent().unwrap();
    // Sandboxes that are kept are not to meet those of this host's users.
    let state = support::tempdir();
    let end = Sbx::new("")
        .through_shell(&script)
        .env("SBX_STATE_DIR", state.path().join("state"))
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", sbx.display()))
        .cwd(root())
        .patience(Duration::from_secs(600))
        .end();
    let mut outputs: Vec<_> = end.out().split(MARK).map(str::to_owned).collect();
    assert_eq!(outputs.pop().as_deref(), Some(""), "line {}: it ended early\n{end}", block.line);
    outputs
}

/// How the notice begins that a guest's processor is emulated; README.md says when it comes.
const NOTICE: &str = "sbx: the guest's processor is emulated in software";

/// What is wrong with a block that is run.
#[track_caller]
fn wrong_output(block: &Block) -> Vec<String> {
    let outputs = run(block).into_iter().map(|output| {
        let lines = output.split_inclusive('\n');
        lines.filter(|line| !(block.vm && line.starts_with(NOTICE))).collect::<String>()
    });
    let outputs: Vec<_> = outputs.collect();
    assert_eq!(outputs.len(), block.commands.len(), "line {}", block.line);
    let pairs = block.commands.iter().zip(outputs);
    pairs
        .filter(|(command, output)| !matches(&command.output, output))
        .map(|(command, output)| {
            let (line, text) = (command.line, &command.text);
            let expected = command.output.join("\n");
            format!("README.md, line {line}: {text}\nexpected:\n{expected}\nprinted:\n{output}")
        })
        .collect()
}

/// The setup commands of a block that no script of the project runs.
fn not_in(scripts: &str, block: &Block) -> Vec<String> {
    let runs = |line: &str, command: &str| {
        let line = line.trim();
        let rest = line.strip_prefix("exec ").unwrap_or(line).strip_prefix(command);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" --"))
    };
    let known = |command: &Command| scripts.lines().any(|line| runs(line, &command.text));
    let unknown = block.commands.iter().filter(|command| !known(command));
    unknown
        .map(|c| {
            format!("README.md, line {}: neither .ci/run nor tests/run runs {}", c.line, c.text)
        })
        .collect()
}

/// What of a block is run here, if anything.
fn run_here(mut block: Block) -> Option<Block> {
    if block.setup {
        block.commands.retain_mut(|command| {
            let words = command.text.strip_prefix("cargo run --release -- ");
            words.map(|words| format!("sbx {words}")).map(|text| command.text = text).is_some()
        });
    }
    (!block.commands.is_empty()).then_some(block)
}

fn readme() -> Vec<Block> {
    let text = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    parse(&text)
}

fn scripts() -> String {
    let text = |path| fs::read_to_string(root().join(path)).unwrap_or_default();
    [text(".ci/run"), text("tests/run")].join("\n")
}

/// Tries the blocks that need a KVM, or those that do not.
#[track_caller]
fn try_blocks(vm: bool) {
    let blocks: Vec<_> =
        readme().into_iter().filter(|block| block.vm == vm).filter_map(run_here).collect();
    let tried = blocks.iter().any(|block| !block.setup);
    assert!(tried, "README.md shows no command that could be tried");
    let wrong: Vec<_> = blocks.iter().flat_map(wrong_output).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_command_does_what_is_shown() {
    try_blocks(false);
}

/// As this host can: by KVM, or by emulation.
#[test]
fn every_command_of_a_guest_does_what_is_shown() {
    try_blocks(true);
}

/// Where the test runner has a KVM for it.
mod vm {
    #[test]
    fn every_command_does_what_is_shown() {
        super::try_blocks(true);
    }
}

#[test]
fn every_setup_command_is_one_that_the_project_runs() {
    let blocks: Vec<_> = readme().into_iter().filter(|block| block.setup).collect();
    assert!(!blocks.is_empty(), "README.md does not show how to set up");
    let unknown: Vec<_> = blocks.iter().flat_map(|block| not_in(&scripts(), block)).collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// Runs a README that a test has made up.
#[track_caller]
fn wrong_in(text: &str) -> Vec<String> {
    parse(text).iter().flat_map(wrong_output).collect()
}

#[test]
fn the_check_passes_what_is_right() {
    let text = "```console\n$ sbx run examples/hello.wat\nHello from a sandbox!\n\
                $ sbx run nowhere.wasm\n...\n$ true\n```\n";
    assert_eq!(wrong_in(text), [""; 0]);
    assert_eq!(wrong_in("```sh\n$ (exit 3)\n$ echo $?\n3\n```\n"), [""; 0]);
}

#[test]
fn the_check_finds_what_is_wrong() {
    let wrong = wrong_in("```console\n$ sbx run examples/hello.wat\nHello!\n$ echo a\na\n```\n");
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].contains("line 2") && wrong[0].contains("Hello from a sandbox!"), "{wrong:?}");
    // What is printed and not shown, on standard error too.
    assert_eq!(wrong_in("```console\n$ echo a >&2\n```\n").len(), 1);
    // What is shown and not printed.
    assert_eq!(wrong_in("```console\n$ true\na\n```\n").len(), 1);
}

#[test]
fn the_check_finds_setup_that_nobody_runs() {
    let blocks = parse("```console setup\n$ tests/run\n$ cargo build\n$ make it so\n```\n");
    let scripts = "set -eu\n  cargo build\nmake it so-so\n# make it so\nexec tests/run --locked\n";
    let wrong = not_in(scripts, &blocks[0]);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("line 4") && wrong[0].ends_with("make it so"), "{wrong:?}");
}

#[test]
fn what_setup_builds_is_run() {
    let setup = |output: &str| {
        let text =
            format!("```console setup\n$ make it so\n$ cargo run --release -- {output}\n```");
        run_here(parse(&text).remove(0)).unwrap()
    };
    assert_eq!(wrong_output(&setup("run examples/hello.wat\nHello from a sandbox!")), [""; 0]);
    assert_eq!(wrong_output(&setup("run examples/hello.wat\nHello!")).len(), 1);
    assert_eq!(run_here(parse("```sh setup\n$ make it so\n```").remove(0)), None);
}
