//! Files: who may read them, when they are written, and what happens when they cannot be.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;

fn delivered(sink: &Sink, credential: &Credential) -> Result<Delivered, SinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let there = runtime.block_on(sink.is_there(credential));
    let delivered = runtime.block_on(sink.deliver(credential, &Secrets::default()));
    match &delivered {
        Ok(Delivered::Already) => assert!(there),
        Ok(Delivered::New) | Err(_) => assert!(!there),
    }
    assert_eq!(
        runtime.block_on(sink.is_there(credential)),
        delivered.is_ok()
    );
    delivered
}

fn sink(options: FileOptions) -> Sink {
    Sink::new(&Options::File(options)).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_written_once_and_again_when_it_is_gone_or_not_right() {
    let folder = tempfile::tempdir().unwrap();
    let sink = sink(file(folder.path().join("{username}.env"), Format::Env));
    let credential = credential("mariana@idalko.com", "pa ssTOKEN");
    let path = folder.path().join("mariana@idalko.com.env");
    assert_eq!(delivered(&sink, &credential).unwrap(), Delivered::New);
    let text = "SALESFORCE_USERNAME=mariana@idalko.com\nSALESFORCE_PASSWORD='pa ssTOKEN'\n";
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(names(folder.path()), ["mariana@idalko.com.env"]);

    let inode = std::fs::metadata(&path).unwrap().ino();
    assert_eq!(delivered(&sink, &credential).unwrap(), Delivered::Already);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    // Another delivery of the same credential changes nothing either.
    let again = Credential {
        id: "msg-2".into(),
        ..credential.clone()
    };
    assert_eq!(delivered(&sink, &again).unwrap(), Delivered::Already);

    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&path, open).unwrap();
    assert_eq!(delivered(&sink, &credential).unwrap(), Delivered::New);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    std::fs::remove_file(&path).unwrap();
    assert_eq!(delivered(&sink, &credential).unwrap(), Delivered::New);
}

#[test]
fn a_reader_sees_the_old_file_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let sink = sink(file(path.clone(), Format::Raw));
    let secret = |c: char| std::iter::repeat_n(c, 200_000).collect::<String>();
    let versions = ['a', 'b'].map(|c| credential("u@x.y", &secret(c)));
    delivered(&sink, &versions[0]).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (send, reading) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (path, stop) = (&path, &stop);
        scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let text = std::fs::read_to_string(path).unwrap();
                let first = text.chars().next().unwrap();
                assert!(text.len() == 200_000 && text.chars().all(|c| c == first));
                send.send(()).unwrap_or_default();
            }
        });
        reading.recv().unwrap();
        for at in 1..=20 {
            delivered(&sink, &versions[at % 2]).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn what_lies_in_the_way_is_replaced_and_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    std::fs::File::create(&victim).unwrap();
    let path = folder.path().join("x");
    symlink(&victim, &path).unwrap();
    symlink(&victim, folder.path().join("x.new~")).unwrap();
    let sink = sink(file(path.clone(), Format::Raw));
    let credential = credential("u@x.y", "secret");
    assert_eq!(delivered(&sink, &credential).unwrap(), Delivered::New);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "");
    assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(names(folder.path()), ["victim", "x"]);

    // A pipe must not keep us waiting for its other end.
    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
    assert!(kind.is_fifo());
    assert_eq!(delivered(&sink, &credential).unwrap(), Delivered::New);
}

#[test]
fn the_owner_and_the_mode_are_as_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let id = |which: &str| {
        let output = std::process::Command::new("id").arg(which).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.trim().parse::<u32>().unwrap()
    };
    // Who is not root may give a file to himself only.
    let (owner, user, group) = match id("-u") {
        0 => ("nobody:nogroup".to_owned(), 65534, 65534),
        user => (format!("{user}:{}", id("-g")), user, id("-g")),
    };
    let path = folder.path().join("x");
    let sink = sink(FileOptions {
        mode: 0o640,
        owner: Some(owner),
        ..file(path.clone(), Format::Json)
    });
    let credential = credential("u@x.y", "secret");
    assert_eq!(delivered(&sink, &credential).unwrap(), Delivered::New);
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid()), (user, group));
    assert_eq!(found.mode() & 0o7777, 0o640);
    assert_eq!(delivered(&sink, &credential).unwrap(), Delivered::Already);
    if id("-u") == 0 {
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        assert_eq!(delivered(&sink, &credential).unwrap(), Delivered::New);
    }
}

#[test]
fn what_stands_in_the_way_of_a_file_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let credential = credential("u@x.y", "hunter2");
    let missing = sink(file(folder.path().join("none/x"), Format::Raw));
    let error = delivered(&missing, &credential).unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Person, "io"));
    assert!(!format!("{error:?}").contains("hunter2"));

    // A folder in the file's place: the temporary file, which holds the secret, goes.
    std::fs::create_dir(folder.path().join("x")).unwrap();
    let taken = sink(file(folder.path().join("x"), Format::Raw));
    let error = delivered(&taken, &credential).unwrap_err();
    assert_eq!(error.class(), Class::Person);
    assert_eq!(names(folder.path()), ["x"]);

    for (options, code) in [
        (file("/".into(), Format::Raw), "path"),
        (file("x/".into(), Format::Raw), "path"),
        (
            FileOptions {
                owner: Some("no-such-user".into()),
                ..file("x".into(), Format::Raw)
            },
            "owner",
        ),
    ] {
        let error = Sink::new(&Options::File(options)).unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Person, code));
    }
}

fn of_template(folder: &Path, text: &str) -> Result<Sink, SinkError> {
    use std::io::Write;
    let template = folder.join("template");
    let mut file = std::fs::File::create(&template).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Sink::new(&Options::File(super::file(
        folder.join("out"),
        Format::Template(template),
    )))
}

#[test]
fn a_template_is_filled_in() {
    let folder = tempfile::tempdir().unwrap();
    let nasty = "it's <b>\"$1\" \\ &amp;</b>";
    let credential = credential("mariana@idalko.com", nasty);
    let text = "user = {{ username }}\npass = {{ password }}\nsh={{ password|shell }}\n\
        json={{ password|json }}\n{% if version > 5 %}v{{ version }}{% endif %} {{ received }} {{ fingerprint }}\n\n";
    let sink = of_template(folder.path(), text).unwrap();
    delivered(&sink, &credential).unwrap();
    let quoted = nasty.replace('\'', r"'\''");
    let json = serde_json::to_string(nasty).unwrap();
    assert_eq!(
        std::fs::read_to_string(folder.path().join("out")).unwrap(),
        format!(
            "user = mariana@idalko.com\npass = {nasty}\nsh='{quoted}'\njson={json}\n\
            v7 2026-11-24T15:00:00Z 0f1e2d3c\n\n"
        )
    );
}

#[test]
fn a_template_that_cannot_work_is_refused_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for (text, line) in [
        ("ok\n{{ password", Some(2)),
        ("{{ pasword }}", None),
        ("{{ id }}", None),
        ("a\n{{ password|sehll }}", Some(2)),
        ("{% include 'x' %}", Some(1)),
        ("{{ nothing() }}", None),
    ] {
        let error = of_template(folder.path(), text).unwrap_err();
        let SinkError::Template { line: found, .. } = error else {
            panic!("{text}: {error}");
        };
        assert_eq!(found, line, "{text}");
    }
    // What depends on the credential shows when there is one, and the value is not repeated.
    let sink = of_template(
        folder.path(),
        "{% if version > 5 %}{{ password.a.b }}{% endif %}{{ password|int }}",
    );
    let error = delivered(&sink.unwrap(), &credential("u@x.y", "hunter2")).unwrap_err();
    assert_eq!(error.code(), "template");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert_eq!(names(folder.path()), ["template"]);
}

#[test]
fn the_file_of_an_account_is_no_other_accounts_temporary_file() {
    // A sandbox called `new` has the usernames of production with `.new` behind them.
    let folder = tempfile::tempdir().unwrap();
    let sink = sink(file(folder.path().join("{username}"), Format::Raw));
    let sandbox = credential("mariana@idalko.com.new", "of-the-sandbox");
    let production = credential("mariana@idalko.com", "of-production");
    assert_eq!(delivered(&sink, &sandbox).unwrap(), Delivered::New);
    assert_eq!(delivered(&sink, &production).unwrap(), Delivered::New);
    let both = ["mariana@idalko.com", "mariana@idalko.com.new"];
    assert_eq!(names(folder.path()), both);
    assert_eq!(delivered(&sink, &sandbox).unwrap(), Delivered::Already);
}

#[test]
fn a_group_that_is_not_the_files_never_may_open_it() {
    const THEIRS: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        // Who is not root can give a file to no group but his own.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sink = sink(FileOptions {
        mode: 0o640,
        owner: Some(format!(":{THEIRS}")),
        ..file(folder.path().join("x"), Format::Raw)
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (path, stop) = (folder.path(), &stop);
        let watching = scope.spawn(move || {
            let mut seen = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for name in names(path) {
                    let Ok(found) = std::fs::symlink_metadata(path.join(&name)) else {
                        continue;
                    };
                    seen += usize::from(found.mode() & 0o040 != 0 && found.gid() != THEIRS);
                }
            }
            seen
        });
        for at in 0..2000 {
            let secret = format!("secret-{at}");
            delivered(&sink, &credential("u@x.y", &secret)).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(watching.join().unwrap(), 0);
    });
}
