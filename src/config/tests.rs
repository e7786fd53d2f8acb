//! Configurations as people write them.

use super::*;

fn load(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenwatch.toml");
    let mut file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    Config::load(Some(&path))
}

const MAILBOX: &str = "state-dir = '/s'\n[[mailbox]]\nname='ops'\nhost='h'\nuser='u'\n";

#[test]
fn a_mailbox_needs_a_name_a_host_and_a_user_and_the_rest_has_defaults() {
    let config = load(MAILBOX).unwrap();
    let ops = config.mailbox("ops").unwrap();
    assert_eq!((ops.port, ops.tls), (993, Tls::Implicit));
    assert_eq!(ops.folders, ["INBOX"]);
    assert!(matches!(ops.auth, Auth::Password(SecretSource::Vault)));
    assert_eq!(config.vault.service, "exalate");
    assert!(config.trust.dkim && config.trust.receiver && !config.trust.sender_address);
}

#[test]
fn an_unknown_key_is_refused_by_name_with_the_nearest_one() {
    for (line, key, nearest) in [
        ("hots = 'x'", "mailbox.hots", "mailbox.host"),
        ("ca_file = 'x'", "mailbox.ca_file", "mailbox.ca-file"),
        ("[trust]\nsender = []", "trust.sender", "trust.senders"),
        ("[vualt]\npath = 'x'", "vualt", "vault.path"),
    ] {
        let error = load(&format!("{MAILBOX}{line}\n")).unwrap_err();
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        let near = error.hint().contains(nearest);
        assert!(near || key == "vualt", "{line}: {}", error.hint());
    }
}

#[test]
fn every_key_is_known() {
    let all = "state-dir='/s'\n[vault]\nbackend='file'\npath='v'\nkey='file:k'\nrecipients=['{AGE}']\nservice='e'\n\
        [trust]\nsenders=['a@b.c']\naccept=['dkim']\nreceivers=['x']\narc-sealers=['A.example']\ndns-servers=['127.0.0.1:5353','::1']\nundecided-for='1h'\n\
        [[wording]]\nsubject='s'\nusername='u'\ntoken='t'\n\
        [[mailbox]]\nname='n'\nhost='localhost'\nport=1\ntls='none'\nca-file='c'\ntls-pin='{PIN}'\nproxy='socks5://p:1080'\nuser='u'\nauth='oauth2'\n\
        password='command:pass show x'\nfolders=['A','B']\nmax-connections=2\nafter='move:Done'\nsince='2026-01-01'\nidle-renew='4m'\npoll='30s'\nmax-mail-size=65536\n\
        [mailbox.oauth2]\nprovider='other'\nclient-id='c'\nclient-secret='vault'\ngrant='client-credentials'\nscopes=['s']\n\
        token-url='http://127.0.0.1:1/t'\nauthorization-url='https://x/a'\ndevice-url='https://x/d'\nredirect-port=8000\n\
        [[account]]\nusername='a@b.c'\npassword='credential:x'\nverify='off'\nlogin-url='https://x'\n";
    let recipient = age::x25519::Identity::generate().to_public();
    let all = &all
        .replace("{PIN}", &"ab".repeat(32))
        .replace("{AGE}", &recipient.to_string());
    let config = load(all).unwrap();
    assert_eq!(config.trust.dns_servers.len(), 2);
    assert_eq!(config.trust.arc_sealers, ["a.example"]);
    assert_eq!(config.wordings[0].username, "u");
    assert_eq!(config.vault.recipients, [recipient]);
    let ops = &config.mailboxes[0];
    assert_eq!(ops.tls_pin, Some([0xab; 32]));
    assert_eq!(ops.after, After::Move("Done".into()));
    assert!(matches!(&ops.auth, Auth::Oauth2(oauth2) if oauth2.redirect_port == Some(8000)));
    // The tenant belongs to another provider.
    let count = all.matches('=').count() + 1;
    assert_eq!(
        count,
        written::KEYS.len(),
        "KEYS and this test name every key"
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_hint() {
    let mailbox = |line: &str| format!("{MAILBOX}{line}\n");
    let oauth2 = |lines: &str| {
        mailbox(&format!(
            "auth='oauth2'\n[mailbox.oauth2]\nclient-id='c'\n{lines}"
        ))
    };
    for text in [
        mailbox("tls='none'"),
        mailbox("tls='ssl'"),
        mailbox("auth='oauth2'"),
        mailbox("auth='kerberos'"),
        mailbox("[mailbox.oauth2]\nprovider='google'\nclient-id='c'"),
        oauth2("provider='yahoo'"),
        oauth2("provider='other'"),
        oauth2("provider='google'\ntoken-url='https://x'"),
        oauth2("provider='google'\ntenant='x'"),
        oauth2("provider='microsoft'\ntenant='a/b'"),
        oauth2("provider='other'\ntoken-url='http://example.com/t'"),
        oauth2("provider='google'\ngrant='client-credentials'"),
        oauth2("provider='google'\ngrant='password'"),
        oauth2("provider='google'\nclient-secret='hunter2'"),
        mailbox("tls-pin='sha256:abc'"),
        mailbox("proxy='socks5://user:hunter2@p:1'"),
        mailbox("proxy='https://p:1'"),
        mailbox("max-connections=0"),
        mailbox("after='delete'"),
        mailbox("after='flag:a b'"),
        mailbox("after='move:inbox'"),
        mailbox("folders=[]"),
        mailbox("folders=['A\\nB','A\\nB']").replace('\'', "\""),
        mailbox("since='soon'"),
        mailbox("idle-renew='40m'"),
        mailbox("max-mail-size=1"),
        mailbox("[[mailbox]]\nname='ops'\nhost='h'\nuser='u'"),
        mailbox("[[account]]\nusername='mariana'"),
        mailbox("[[account]]\nusername='a@b.c'\n[[account]]\nusername='A@B.C'"),
        mailbox("[[account]]\nusername='a@b.c'\nverify='soap'"),
        mailbox("[[sink]]\nkind='file'"),
        mailbox("[trust]\naccept=['spf']"),
        mailbox("[trust]\naccept=['receiver']"),
        mailbox("[trust]\naccept=['arc']"),
        mailbox("[trust]\narc-sealers=['a b.example']"),
        mailbox("[trust]\nsenders=[]"),
        mailbox("[vault]\nbackend='keychain'"),
        mailbox("[vault]\nkey='passphrase:hunter2'"),
        mailbox("[vault]\nrecipients=['AGE-SECRET-KEY-hunter2']"),
        mailbox("[vault]\nservice='tokenwatch'"),
        "state-dir = 'relative'".to_owned(),
    ] {
        let error = load(&text).unwrap_err();
        assert!(
            matches!(error, ConfigError::Invalid { .. }),
            "{text}: {error}"
        );
        assert!(!error.hint().is_empty());
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    for text in [
        "state-dir = ",
        "[[mailbox]]\nname='x'",
        &mailbox("port='x'"),
    ] {
        let error = load(text).unwrap_err();
        assert!(
            matches!(error, ConfigError::Malformed(_)),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_password_written_into_the_configuration_is_not_repeated() {
    for line in [
        "password=\"hunter2secret\"",
        "password=\"file:\"",
        "password=\"command:sh -c 'hunter2secret'\"",
        "password=hunter2secret",
        "password=\"hunter2secret",
        "port=\"hunter2secret\"",
        "folders=\"hunter2secret\"",
        "max-mail-size=\"hunter2secret\"",
    ] {
        let error = load(&format!("{MAILBOX}{line}\n")).unwrap_err();
        let shown = format!("{} {error:?} {}", crate::chain(&error), error.hint());
        assert!(!shown.contains("hunter2secret"), "{shown}");
        let places = ["secret set", "line 6", "mailbox[0]", "every key"];
        assert!(places.iter().any(|place| shown.contains(place)), "{shown}");
    }
}

#[test]
fn a_look_back_has_a_day_to_spare() {
    let now: Timestamp = "2026-03-31T12:00:00Z".parse().unwrap();
    let day = |text: &str| {
        Since::parse(text)
            .unwrap()
            .first_day(now)
            .map(|d| d.to_string())
    };
    assert_eq!(day("30d").as_deref(), Some("2026-02-28"));
    assert_eq!(day("2026-01-01").as_deref(), Some("2025-12-31"));
    assert_eq!(day("all"), None);
    assert!(Since::parse("-3d").is_none());
}
