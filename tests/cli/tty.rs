//! Terminals: with `-t` a workload sees the caller's terminal and its size, without it none; and keys
//! such as ^C reach it. The terminal is script(1)'s.

use crate::support::{Outcome, Sbx, component, guest, tempdir};
use std::path::Path;

/// Runs `"$SBX" run FLAGS "$GUEST"` on a terminal of 77 columns and 33 lines.
fn on_terminal(flags: &str, guest: &Path) -> Outcome {
    let line = format!(
        r#"script -qec 'stty cols 77 rows 33; exec "$SBX" run {flags} "$GUEST"' /dev/null"#
    );
    // The words of the run itself are not used.
    let run = Sbx::new("").env("SBX", env!("CARGO_BIN_EXE_sbx")).env("GUEST", guest);
    run.through_shell(&line).end()
}

#[test]
fn with_tty_all_streams_are_one() {
    for guest in [guest("tty"), component("tty")] {
        let end = on_terminal("-i -t", &guest).status(0);
        end.prints("0 tty\r\n1 tty\r\n2 tty\r\n");
    }
}

#[test]
fn without_tty_none_is() {
    for guest in [guest("tty"), component("tty")] {
        on_terminal("-i", &guest).status(0).prints("0 not a tty\r\n1 not a tty\r\n2 not a tty\r\n");
    }
}

#[test]
fn the_size_is_told_with_tty_only() {
    for guest in [guest("environ"), component("environ")] {
        on_terminal("-t", &guest).status(0).prints("COLUMNS=77\r\nLINES=33\r\n");
        on_terminal("", &guest).status(0).prints("");
        on_terminal("-t -e COLUMNS=5", &guest).status(0).prints("COLUMNS=5\r\nLINES=33\r\n");
    }
}

#[test]
fn a_key_interrupts() {
    for flags in ["", "-i", "-i -t"] {
        let dir = tempdir();
        let line = format!(
            r#"{{ until grep -qs spinning "$OUT"; do sleep 0.05; done; printf '\003'; sleep 1; }} |
               script -qfec '"$SBX" run {flags} "$GUEST"' "$OUT""#
        );
        let run = Sbx::new("").env("SBX", env!("CARGO_BIN_EXE_sbx")).env("GUEST", guest("spin"));
        let end = run.env("OUT", dir.path().join("out")).through_shell(&line).end().status(130);
        assert!(!end.out().contains("sbx:"), "{end}");
    }
}

/// The spinner of a long compilation is for terminals, and is gone when it is over.
#[test]
fn the_spinner_is_only_on_a_terminal() {
    let (dir, cache) = (tempdir(), tempdir());
    let module = crate::support::wat(dir.path(), &crate::lifecycle::large_module(1500));
    Sbx::run(&module).cache(cache.path()).end().status(0).prints("").silent();
    let cache = tempdir();
    let line = r#"script -qec '"$SBX" run "$GUEST"' /dev/null"#;
    let run = Sbx::new("").env("SBX", env!("CARGO_BIN_EXE_sbx")).env("GUEST", &module);
    let end = run.cache(cache.path()).env("TERM", "xterm").through_shell(line).end().status(0);
    assert!(end.out().contains("compiling"), "{end}");
}
