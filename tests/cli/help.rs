//! What `--help` prints, byte by byte: a change of it is a change of the interface, to be seen in
//! review. `SBX_BLESS=1 cargo nextest run -E 'test(help)'` writes the snapshots anew.

use crate::support::{Sbx, root};
use std::fs;

#[test]
fn help_is_as_it_was() {
    let bless = std::env::var_os("SBX_BLESS").is_some();
    for (words, name) in [
        ("--help", "sbx"),
        ("-h", "sbx-short"),
        ("run --help", "sbx-run"),
        ("run -h", "sbx-run-short"),
        ("create --help", "sbx-create"),
        ("start --help", "sbx-start"),
        ("ps --help", "sbx-ps"),
        ("logs --help", "sbx-logs"),
        ("attach --help", "sbx-attach"),
        ("exec --help", "sbx-exec"),
        ("stop --help", "sbx-stop"),
        ("kill --help", "sbx-kill"),
        ("pause --help", "sbx-pause"),
        ("resume --help", "sbx-resume"),
        ("wait --help", "sbx-wait"),
        ("rm --help", "sbx-rm"),
        ("inspect --help", "sbx-inspect"),
        ("rename --help", "sbx-rename"),
        ("stats --help", "sbx-stats"),
        ("top --help", "sbx-top"),
        ("events --help", "sbx-events"),
        ("metrics --help", "sbx-metrics"),
        ("doctor --help", "sbx-doctor"),
        ("compile --help", "sbx-compile"),
        ("cache --help", "sbx-cache"),
        ("cache ls --help", "sbx-cache-ls"),
        ("cache prune --help", "sbx-cache-prune"),
        ("completions --help", "sbx-completions"),
        ("man --help", "sbx-man"),
    ] {
        let end = Sbx::new(words).end().status(0).silent();
        let path = root().join("tests/cli/snapshots").join(format!("{name}.txt"));
        if bless {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &end.stdout).unwrap();
        }
        let wanted = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(end.out(), wanted, "sbx {words} is not {}", path.display());
    }
}

#[test]
fn help_fits_the_width_that_is_asked_for() {
    let end = Sbx::new("run --help").end().status(0);
    assert!(end.out().lines().all(|l| l.chars().count() <= 100), "{end}");
}

#[test]
fn the_version_is_the_packages() {
    Sbx::new("--version").end().status(0).prints(concat!("sbx ", env!("CARGO_PKG_VERSION"), "\n"));
}
