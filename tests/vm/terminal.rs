//! `-t`: the guest's program has a terminal of the caller's size, keys are its own, and the caller's
//! terminal is as before in the end. The terminal is script(1)'s.

use crate::support::{Outcome, Sbx, tempdir};
use crate::{Executor, on_every_executor, small_root, tuned};
use std::path::Path;

on_every_executor! {
    the_size_is_the_callers_and_follows_it,
    keys_are_the_guests,
    the_terminal_is_as_before,
    without_tty_there_is_none,
}

/// Runs `line` on a terminal of 77 columns and 33 lines that is recorded in `$OUT`; `$SBX` runs `script`
/// in the guest, with what is behind it before `--rootfs`.
fn on_terminal(on: Executor, line: &str, script: &str, keys: &str) -> Outcome {
    let (root, dir) = (small_root(), tempdir());
    let run = dir.path().join("run");
    let command = format!(
        "#!/bin/sh\nexec {} run {} --kernel {} --rootfs {} \"$@\" /bin/sh -c '{script}'\n",
        env!("CARGO_BIN_EXE_sbx"),
        on.flags(),
        tuned().display(),
        root.path().display(),
    );
    write_script(&run, &command);
    let inner = dir.path().join("inner");
    write_script(&inner, &format!("#!/bin/sh\nstty cols 77 rows 33\n{line}\n"));
    let outer = format!(
        r#"mkfifo "$DIR/keys"; script -qefc "$INNER" "$OUT" < "$DIR/keys" &
           exec 3> "$DIR/keys"; {{ {keys}; }} >&3; wait $!"#
    );
    let sbx = Sbx::new("").env("SBX", run).env("INNER", inner).env("OUT", dir.path().join("out"));
    sbx.env("DIR", dir.path()).through_shell(&outer).end()
}

fn write_script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// A shell command that waits until the terminal shows `text`.
fn until(text: &str) -> String {
    format!("until grep -qs {text} \"$OUT\"; do sleep 0.1; done")
}

fn the_size_is_the_callers_and_follows_it(on: Executor) {
    let script =
        r#"trap "stty size; exit 5" WINCH; test -t 1 && stty size; while :; do sleep 1; done"#;
    let line = format!(r#""$SBX" -t & {}; stty cols 100 rows 40; wait $!"#, until("\"33 77\""));
    let end = on_terminal(on, &line, script, ":").status(5);
    // Both terminals end lines, for the caller's is raw only with -i.
    assert_eq!(end.out().replace('\r', ""), "33 77\n40 100\n", "{end}");
}

/// ^C is the guest's: its program there is interrupted, not sbx.
fn keys_are_the_guests(on: Executor) {
    let script = r#"echo begun; sleep 600; echo "ended $?"; read line; echo "<$line>"; exit 6"#;
    let keys = format!(r"{}; printf '\003'; {}; printf 'typed\n'", until("begun"), until("ended"));
    // A shell that is interrupted together with its child goes on only if it says so.
    let script = format!("trap : INT; {script}");
    let end = on_terminal(on, r#"exec "$SBX" -i -t"#, &script, &keys).status(6);
    assert!(end.out().contains("ended 130"), "{end}");
    assert!(end.out().contains("<typed>"), "{end}");
}

/// However sbx ends.
fn the_terminal_is_as_before(on: Executor) {
    let compare = r#"stty -a > "$DIR/after"; cmp "$DIR/before" "$DIR/after" && exit 9"#;
    let line = format!(r#"stty -a > "$DIR/before"; "$SBX" -i -t; {compare}"#);
    on_terminal(on, &line, "exit 4", ":").status(9);
    let line = format!(
        r#"stty -a > "$DIR/before"; "$SBX" -i -t < /dev/tty & {}; kill -TERM $!; wait $!; {compare}"#,
        until("begun")
    );
    let end = on_terminal(on, &line, "echo begun; exec sleep 600", ":");
    end.status(9).prints("begun\r\n");
}

/// Without -t there is no terminal, wherever sbx runs.
fn without_tty_there_is_none(on: Executor) {
    let script = "for i in 0 1 2; do test -t $i && echo $i; done; echo none";
    on_terminal(on, r#"exec "$SBX" -i"#, script, ":").status(0).prints("none\r\n");
}
