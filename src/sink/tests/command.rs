//! Commands: what they are given, and that nothing of them stays behind.

use std::path::Path;
use std::time::Instant;

use super::*;

fn sh(script: &str, timeout: Duration) -> Sink {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    Sink::new(&Options::Command(CommandOptions {
        argv,
        timeout,
        hidden: vec!["CARGO_PKG_NAME".into()],
    }))
    .unwrap()
}

async fn run(script: &str, credential: &Credential) -> Result<Delivered, SinkError> {
    let sink = sh(script, Duration::from_secs(20));
    assert!(sink.is_there(credential).await);
    sink.deliver(credential, &Secrets::default()).await
}

/// Waits for a file that a script writes: what is in it.
async fn told(path: &Path) -> String {
    let begun = Instant::now();
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            Ok(_) | Err(_) => assert!(begun.elapsed().as_secs() < 20, "nothing in {path:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_alive(pid: &str) -> bool {
    // One that is dead and not yet waited for is dead.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn gone(pid: &str) {
    let begun = Instant::now();
    while is_alive(pid) {
        assert!(begun.elapsed().as_secs() < 20, "{pid} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_command_reads_one_line_of_json_and_nothing_else_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display();
    let credential = credential("mariana@idalko.com", "pa'ss wörd\"TOKEN");
    let script = format!(
        "cat /proc/$$/environ /proc/$$/cmdline > {out}/seen; cat > {out}/input; \
        echo; echo hunter2 >&2; cut -d' ' -f5 /proc/$$/stat > {out}/group; echo $$ > {out}/pid"
    );
    run(&script, &credential).await.unwrap();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let input = read("input");
    assert_eq!(input.last(), Some(&b'\n'));
    let object: serde_json::Value = serde_json::from_slice(&input).unwrap();
    assert_eq!(
        object,
        serde_json::json!({
            "username": "mariana@idalko.com", "password": "pa'ss wörd\"TOKEN", "version": 7,
            "fingerprint": "0f1e2d3c", "received": "2026-11-24T15:00:00Z", "id": "msg-1",
        })
    );
    let seen = String::from_utf8_lossy(&read("seen")).into_owned();
    assert!(seen.contains("PATH=") && !seen.contains("TOKEN"), "{seen}");
    assert!(!seen.contains("CARGO_PKG_NAME="), "{seen}");
    assert_eq!(read("group"), read("pid"));
}

#[tokio::test]
async fn the_exit_code_decides() {
    let credential = credential("u@x.y", "secret");
    assert_eq!(run("exit 0", &credential).await.unwrap(), Delivered::New);
    for (script, code, shown) in [
        ("exit 75", "exit-code", "sh ended with exit code 75"),
        ("cat >&2; exit 3", "exit-code", "sh ended with exit code 3"),
        ("kill -9 $$", "signal", "sh was ended by signal 9"),
    ] {
        let error = run(script, &credential).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Transient, code));
        assert_eq!(error.to_string(), shown);
    }
    let none = Sink::new(&Options::Command(CommandOptions {
        argv: vec!["/no/such/program".into()],
        timeout: Duration::from_secs(5),
        hidden: Vec::new(),
    }));
    let error = none
        .unwrap()
        .deliver(&credential, &Secrets::default())
        .await;
    assert_eq!(error.unwrap_err().class(), Class::Person);
}

#[tokio::test]
async fn more_than_a_pipe_holds_is_read_or_not() {
    // A pipe holds 64 KiB.
    let secret = "x".repeat(1_000_000);
    let large = credential("u@x.y", &secret);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("n");
    run(&format!("wc -c > {}", out.display()), &large)
        .await
        .unwrap();
    let count: usize = told(&out).await.parse().unwrap();
    assert!(count > secret.len());
    // It never reads, it reads a little, it closes its input: no failure, and no waiting.
    for script in ["exit 0", "head -c 10 > /dev/null", "exec <&-; sleep 0.2"] {
        assert_eq!(run(script, &large).await.unwrap(), Delivered::New);
    }
    // It ends, and somebody else keeps its input open.
    let pid = folder.path().join("pid");
    let script = format!("sleep 60 <&0 & echo $! > {}", pid.display());
    let begun = Instant::now();
    run(&script, &large).await.unwrap();
    assert!(begun.elapsed().as_secs() < 10);
    // What a command leaves running is left running.
    let left = told(&pid).await;
    assert!(is_alive(&left));
    let pid = rustix::process::Pid::from_raw(left.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A child that asks nobody, and a child of it that does not listen to SIGTERM.
fn stubborn(folder: &Path) -> String {
    let out = folder.display();
    format!(
        "sh -c 'trap \"\" TERM; echo $$ > {out}/grandchild; while :; do sleep 1; done' & \
        echo $$ > {out}/child; wait"
    )
}

#[tokio::test]
async fn who_takes_too_long_is_ended_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let sink = sh(&stubborn(folder.path()), Duration::from_secs(1));
    let credential = credential("u@x.y", "secret");
    let begun = Instant::now();
    let error = sink.deliver(&credential, &Secrets::default()).await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.class(), error.code()),
        (Class::Transient, "timed-out")
    );
    assert!(begun.elapsed() >= Duration::from_secs(3) && begun.elapsed().as_secs() < 20);
    for name in ["child", "grandchild"] {
        gone(&told(&folder.path().join(name)).await).await;
    }
}

#[tokio::test]
async fn a_delivery_that_is_given_up_takes_its_processes_along() {
    let folder = tempfile::tempdir().unwrap();
    let sink = sh(&stubborn(folder.path()), Duration::from_secs(60));
    let (credential, secrets) = (credential("u@x.y", "secret"), Secrets::default());
    let mut pids = Vec::new();
    tokio::select! {
        ended = sink.deliver(&credential, &secrets) => panic!("{ended:?}"),
        () = async {
            for name in ["child", "grandchild"] {
                pids.push(told(&folder.path().join(name)).await);
            }
        } => {}
    }
    for pid in pids {
        gone(&pid).await;
    }
}

#[test]
fn a_unit_has_a_whole_name() {
    let sink = |unit: &str| {
        Sink::new(&Options::Systemd {
            unit: unit.into(),
            timeout: Duration::from_secs(5),
            hidden: Vec::new(),
        })
    };
    for unit in ["exalate.service", "a@b.service", "dev-sda\\x2d1.device"] {
        let shown = format!("{:?}", sink(unit).unwrap());
        let words = format!("[\"--no-ask-password\", \"reload-or-restart\", \"--\", {unit:?}]");
        assert!(
            shown.contains("\"systemctl\"") && shown.contains(&words),
            "{shown}"
        );
    }
    for unit in [
        "",
        "exalate",
        "--force.service",
        "a b.service",
        "*.service",
        ".service",
        "a.",
    ] {
        assert_eq!(sink(unit).unwrap_err().code(), "unit", "{unit}");
    }
}
