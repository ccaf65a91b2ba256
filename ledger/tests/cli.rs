//! The command line by itself. Cargo builds the program for this test, and the end-to-end tests find it in `target`.

use std::process::Command;

#[test]
fn help_names_every_command() {
    let output = Command::new(env!("CARGO_BIN_EXE_ledger")).arg("--help").output().expect("it runs");
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).expect("text");
    for command in ["up", "demo", "serve", "replay", "rebuild", "redeliver", "key", "doctor"] {
        let is_named = help.lines().any(|line| line.split_whitespace().next() == Some(command));
        assert!(is_named, "{command} is not in the help:\n{help}");
    }
}

#[test]
fn an_unknown_command_is_refused_with_its_name() {
    let output = Command::new(env!("CARGO_BIN_EXE_ledger")).arg("frobnicate").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("frobnicate"), "{text}");
}
