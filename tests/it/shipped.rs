//! What is shipped works: every configuration is loaded by the real binary.

use std::path::{Path, PathBuf};

use crate::process::Machine;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn the_shipped_configurations_are_loaded_by_the_real_binary() {
    for name in ["config/minimal.toml", "config/tokenwatch.toml"] {
        let machine = Machine::new("");
        std::fs::copy(shipped(name), machine.config_file()).unwrap();
        let mut check = machine.command(&["check", "--offline"]);
        check.env("TOKENWATCH__STATE_DIR", machine.state_dir());
        let output = check.output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains("✓ configuration"), "{name}: {printed}");
        assert!(
            printed.contains("secret set account/mariana@idalko.com"),
            "{name}: {printed}"
        );
    }
}

#[test]
fn the_commented_defaults_are_the_defaults() {
    let text = std::fs::read_to_string(shipped("config/tokenwatch.toml")).unwrap();
    // Every `# key = value` taken at its word must change nothing that matters
    // and above all be understood.
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split(" = ").next().is_some_and(is_key) && rest.contains(" = ") => {
                rest
            }
            _ => line,
        })
        .map(|line| line.to_owned() + "\n")
        .collect();
    assert!(uncommented.matches(" = ").count() >= 27, "{uncommented}");
    let meant = |text: &str| {
        let machine = Machine::new("");
        std::fs::write(machine.config_file(), text).unwrap();
        let config = tokenwatch::config::Config::load(Some(&machine.config_file())).unwrap();
        // Paths are taken from the folder of the file.
        let folder = machine.folder.path().display().to_string();
        format!("{config:?}").replace(&folder, "FOLDER")
    };
    // These have no default, or stand for an example.
    let examples = ["state-dir", "receivers", "ca-file", "tls-pin"];
    let uncommented: String = uncommented
        .lines()
        .filter(|line| {
            !examples
                .iter()
                .any(|key| line.starts_with(&format!("{key} = ")))
        })
        .map(|line| line.to_owned() + "\n")
        .collect();
    assert_eq!(meant(&uncommented), meant(&text));
}

fn is_key(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}
