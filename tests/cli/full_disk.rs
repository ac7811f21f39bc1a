//! A standard stream that cannot be written is an error like others, and no crash.

use crate::support::{Sbx, guest, root};

#[test]
fn behind_standard_error() {
    Sbx::run("nothere").through_shell(r#""$@" 2>/dev/full"#).end().status(127).prints("");
    Sbx::run(guest("recurse")).through_shell(r#""$@" 2>/dev/full"#).end().status(134);
}

#[test]
fn behind_standard_output() {
    for words in ["cache ls", "cache ls --format json", "completions bash"] {
        let end = Sbx::new(words).through_shell(r#""$@" >/dev/full"#).end();
        end.status(125).says_only(&["cannot write to standard output"]);
    }
    let explain = Sbx::run(root().join("examples/hello.wat")).flags("--explain");
    let end = explain.through_shell(r#""$@" >/dev/full"#).end();
    end.status(125).says_only(&["cannot write to standard output"]);
}

#[test]
fn behind_what_a_function_returns() {
    let run = Sbx::run(guest("reactor")).flags("--invoke add").args(["1", "2"]);
    let end = run.through_shell(r#""$@" >/dev/full"#).end();
    end.status(125).says_only(&["cannot write what the function returned"]);
}
