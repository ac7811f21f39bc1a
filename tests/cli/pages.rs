//! Completions and manual pages are generated, and speak of every command and flag.

use crate::support::{Sbx, tempdir};
use std::fs;

#[test]
fn completions_know_the_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let end = Sbx::new("completions").flags(shell).end().status(0).silent();
        for word in ["memory", "timeout", "volume", "prune", "compile", "cidfile", "inspect"] {
            assert!(end.out().contains(word), "{shell} does not know {word}");
        }
    }
    let end = Sbx::new("completions tcsh").end().status(125).prints("");
    assert!(end.err().contains("tcsh"), "{end}");
}

#[test]
fn the_bash_script_is_one() {
    let script = Sbx::new("completions bash").end().status(0);
    let dir = tempdir();
    let path = dir.path().join("script");
    fs::write(&path, script.stdout).unwrap();
    let status = std::process::Command::new("/bin/bash").arg("-n").arg(&path).status().unwrap();
    assert!(status.success());
}

#[test]
fn every_command_has_a_page() {
    let dir = tempdir();
    Sbx::new("man").flag("--", dir.path()).end().status(0).prints("").silent();
    let mut pages: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let wanted = [
        "sbx-attach.1",
        "sbx-cache-ls.1",
        "sbx-cache-prune.1",
        "sbx-cache.1",
        "sbx-compile.1",
        "sbx-completions.1",
        "sbx-create.1",
        "sbx-doctor.1",
        "sbx-events.1",
        "sbx-exec.1",
        "sbx-inspect.1",
        "sbx-kill.1",
        "sbx-logs.1",
        "sbx-man.1",
        "sbx-metrics.1",
        "sbx-pause.1",
        "sbx-ps.1",
        "sbx-rename.1",
        "sbx-resume.1",
        "sbx-rm.1",
        "sbx-run.1",
        "sbx-start.1",
        "sbx-stats.1",
        "sbx-stop.1",
        "sbx-top.1",
        "sbx-wait.1",
        "sbx.1",
    ];
    assert_eq!(pages, wanted);
    let run = fs::read_to_string(dir.path().join("sbx-run.1")).unwrap();
    for flag in ["memory", "cpu\\-time", "volume", "policy"] {
        assert!(run.contains(flag), "{flag} is not in the manual");
    }
}

#[test]
fn a_directory_that_is_none() {
    let end = Sbx::new("man /nowhere/at/all").end().status(125);
    end.says_only(&["cannot write the manual pages to /nowhere/at/all"]);
}
