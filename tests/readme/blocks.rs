//! The fenced blocks of a Markdown file, as commands and their output.

/// A block of commands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it starts.
    pub(crate) line: usize,
    /// Whether it installs or builds.
    pub(crate) setup: bool,
    /// Whether it needs a KVM.
    pub(crate) vm: bool,
    pub(crate) commands: Vec<Command>,
}

/// A command, and what it is said to print.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) output: Vec<String>,
}

/// The blocks of commands in `markdown`.
///
/// A block that cannot be read fails the test: what is shown in it could not be tried.
#[track_caller]
pub(crate) fn parse(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines().zip(1..);
    while let Some((text, line)) = lines.next() {
        let Some(info) = text.trim_start().strip_prefix("```") else { continue };
        let indent = text.len() - text.trim_start().len();
        let body = lines.by_ref().map(|(l, n)| (l.get(indent..).unwrap_or(l.trim_start()), n));
        let body: Vec<_> = body.take_while(|(l, _)| l.trim_end() != "```").collect();
        let words: Vec<_> = info.split_whitespace().collect();
        if let Some(&"console" | &"sh") = words.first() {
            let has = |word| words.contains(&word);
            let (setup, vm) = (has("setup"), has("vm"));
            blocks.push(Block { line, setup, vm, commands: commands(&body, line) });
        }
    }
    blocks
}

#[track_caller]
fn commands(body: &[(&str, usize)], block: usize) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for &(text, line) in body {
        if let Some(text) = text.strip_prefix("$ ") {
            commands.push(Command { line, text: text.to_owned(), output: Vec::new() });
            continue;
        }
        let last = commands.last_mut();
        let last = last.unwrap_or_else(|| panic!("README.md, line {line}: output of no command"));
        if last.text.ends_with('\\') && last.output.is_empty() {
            last.text = format!("{}\n{text}", last.text);
        } else {
            last.output.push(text.to_owned());
        }
    }
    assert!(!commands.is_empty(), "README.md, line {block}: a block without a command");
    commands
}

/// Whether `output` is what `expected` says, `...` being any number of lines, and in a line any text.
pub(crate) fn matches(expected: &[String], output: &str) -> bool {
    let output: Vec<&str> = output.lines().map(str::trim_end).collect();
    let expected: Vec<&str> = expected.iter().map(|l| l.trim_end()).collect();
    lines_match(&expected, &output)
}

fn lines_match(expected: &[&str], output: &[&str]) -> bool {
    match expected {
        [] => output.is_empty(),
        ["...", rest @ ..] => (0..=output.len()).any(|skip| lines_match(rest, &output[skip..])),
        [line, rest @ ..] => {
            output.first().is_some_and(|out| line_matches(line, out))
                && lines_match(rest, &output[1..])
        }
    }
}

/// Whether one line is what is expected, `...` in it being any text.
fn line_matches(expected: &str, line: &str) -> bool {
    match expected.split_once("...") {
        None => expected == line,
        Some((before, behind)) => line.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .any(|at| rest.is_char_boundary(at) && line_matches(behind, &rest[at..]))
        }),
    }
}

const FIXTURE: &str = "\
# A title

    $ not a fenced block

```rust
$ not a shell
```

```console setup
$ cargo build --release
```

Text with ``` in it.

1. A list:

   ```sh vm
   $ sbx run \\
       a.wasm
   first
     second

   $ true
   ```
";

#[test]
fn the_fixture_is_read() {
    let command = |line, text: &str, output: &[&str]| Command {
        line,
        text: text.into(),
        output: output.iter().map(|l| (*l).to_owned()).collect(),
    };
    let build = command(10, "cargo build --release", &[]);
    let run = command(18, "sbx run \\\n    a.wasm", &["first", "  second", ""]);
    let expected = [
        Block { line: 9, setup: true, vm: false, commands: vec![build] },
        Block { line: 17, setup: false, vm: true, commands: vec![run, command(23, "true", &[])] },
    ];
    assert_eq!(parse(FIXTURE), expected);
}

#[test]
fn nothing_is_read_from_nothing() {
    assert_eq!(parse(""), []);
    assert_eq!(parse("```toml\nkey = 1\n```\n"), []);
}

#[test]
#[should_panic(expected = "line 2: output of no command")]
fn output_without_a_command_fails() {
    parse("```console\noutput\n$ true\n```\n");
}

#[test]
#[should_panic(expected = "line 1: a block without a command")]
fn a_block_without_a_command_fails() {
    parse("```sh\n```\n");
}

#[test]
fn output_matches() {
    let matches = |expected: &str, output: &str| {
        let expected: Vec<_> = expected.lines().map(str::to_owned).collect();
        matches(&expected, output)
    };
    assert!(matches("a\nb", "a\nb\n"));
    assert!(!matches("a\nb", "a\n"));
    assert!(matches("a...c...\nd", "abbc\nd\n"));
    assert!(!matches("a...c", "abbd\n"));
    assert!(!matches("a", "a\nb\n"));
    assert!(!matches("", "a\n"));
    assert!(matches("...", ""));
    assert!(matches("a\n...\nd", "a\nb\nc\nd\n"));
    assert!(matches("a\n...\nd", "a\nd\n"));
    assert!(!matches("a\n...\nd", "a\nb\n"));
    assert!(!matches("a\n...\nd", "b\na\nd\n"));
}
