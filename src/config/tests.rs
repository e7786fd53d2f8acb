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
fn an_account_needs_a_username_and_is_not_checked_unless_asked_for() {
    let config = load("state-dir = '/s'\n[[account]]\nusername='Mariana@B.c'\n").unwrap();
    let account = config.account("mariana@b.c").unwrap();
    assert_eq!(account.username, "Mariana@B.c");
    assert_eq!(account.verify, Verify::Off);
    assert_eq!(account.login_url, "https://login.salesforce.com");
    assert_eq!(account.api_version, "64.0");
    assert_eq!(
        account.promote_unverified_after,
        Duration::from_secs(15 * 60)
    );
    assert_eq!(account.failed_logins_per_day, 4);
    assert!(account.ca_file.is_none() && matches!(account.proxy, Proxy::None));
}

#[test]
fn an_unknown_key_is_refused_by_name_with_the_nearest_one() {
    for (lines, key, nearest) in [
        ("hots = 'x'", "mailbox.hots", "mailbox.host"),
        ("ca_file = 'x'", "mailbox.ca_file", "mailbox.ca-file"),
        ("[trust]\nsender = []", "trust.sender", "trust.senders"),
        ("[vualt]\npath = 'x'", "vualt", "vault"),
        ("[truts]\n", "truts", "trust"),
        ("[[accounts]]\nusername='x'", "accounts", "account"),
        ("[[mailboxes]]\nname='x'", "mailboxes", "mailbox"),
        ("[mailbox.oauth]\n", "mailbox.oauth", "mailbox.oauth2"),
        (
            "[mailbox.oauth2]\nclientid='x'",
            "mailbox.oauth2.clientid",
            "mailbox.oauth2.client-id",
        ),
        ("[vault]\nstate-dir='x'", "vault.state-dir", "state-dir"),
    ] {
        let error = load(&format!("{MAILBOX}{lines}\n")).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with(&format!("unknown key `{key}`")), "{said}");
        let last = key.rsplit('.').next().unwrap();
        let before = lines.lines().take_while(|line| !line.contains(last));
        let line = format!("tokenwatch.toml, line {})", 6 + before.count());
        assert!(said.ends_with(&line), "{line}: {said}");
        assert_eq!(error.hint(), format!("did you mean `{nearest}`?"), "{said}");
    }
}

#[test]
fn a_key_with_a_slip_is_named_before_the_one_that_is_missing_for_it() {
    let error = load("[[mailbox]]\nname='x'\nhots='h'\nuser='u'\nport='hunter2'\n").unwrap_err();
    assert!(error.to_string().contains("`mailbox.hots`"), "{error}");
    let error = load("[[mailbox]]\nname='x'\nuser='u'\n").unwrap_err();
    let said = error.to_string();
    assert!(said.contains("`mailbox[0].host` is missing"), "{said}");
    assert!(said.contains("tokenwatch.toml, line 1)"), "{said}");
}

#[test]
fn an_error_names_the_file_and_the_line() {
    for (text, place) in [
        ("state-dir = ", "tokenwatch.toml"),
        (
            "[[mailbox]]\nname='x'\nhost='h'\nuser='u'\nport='hunter2'\n",
            "tokenwatch.toml, line 5",
        ),
        ("\n[trust]\naccept=['spf']\n", "tokenwatch.toml, line 3"),
        (
            "[[sink]]\nkind='systemd'\nunit='a.service'\n[[sink]]\nkind='systemd'\nunit='b'\n",
            "(sink[1] \"systemd-2\" in /",
        ),
        (
            "[[sink]]\nkind='systemd'\nunit='a.service'\n[[sink]]\nkind='systemd'\nunit='b'\n",
            "tokenwatch.toml, line 6",
        ),
        (
            "[[account]]\nusername='a@b.c'\n[[account]]\nusername='d@e.f'\nverify='x'\n",
            "(account[1] \"d@e.f\" in /",
        ),
    ] {
        let said = load(text).unwrap_err().to_string();
        assert!(said.contains(place), "{text}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_variable_is_taken_as_it_is_written() {
    let set = |variable: &str, value: &str| read::overridden(variable, value.into()).unwrap();
    let text = |text: &str| ::config::Value::from(text);
    let list = |texts: &[&str]| ::config::Value::from(texts.to_vec());
    for (variable, value, key, meant) in [
        (
            "TOKENWATCH__VAULT__PATH",
            "0123",
            "vault.path",
            text("0123"),
        ),
        ("TOKENWATCH__VAULT__PATH", "1e5", "vault.path", text("1e5")),
        (
            "TOKENWATCH__VAULT__PATH",
            "TRUE",
            "vault.path",
            text("TRUE"),
        ),
        ("TOKENWATCH__VAULT__PATH", "a,b", "vault.path", text("a,b")),
        ("TOKENWATCH__STATE_DIR", "/a b", "state-dir", text("/a b")),
        (
            "TOKENWATCH__TRUST__RECEIVERS",
            "123",
            "trust.receivers",
            list(&["123"]),
        ),
        (
            "TOKENWATCH__TRUST__DNS_SERVERS",
            "::1, 127.0.0.1:53 ,",
            "trust.dns-servers",
            list(&["::1", "127.0.0.1:53"]),
        ),
        (
            "TOKENWATCH__TRUST__RECEIVERS",
            "",
            "trust.receivers",
            list(&[]),
        ),
    ] {
        let (set, value) = set(variable, value);
        assert_eq!(
            (set.as_str(), &value.kind),
            (key, &meant.kind),
            "{variable}"
        );
    }
    // The lists are those of the defaults, so that none is forgotten.
    for key in written::KEYS.iter().filter(|key| key.starts_with("trust.")) {
        let is_text = *key == "trust.undecided-for";
        assert_eq!(!is_text, written::LISTS.contains(key), "{key}");
    }
}

#[test]
fn a_variable_that_sets_nothing_is_refused_by_its_name() {
    for (variable, hint) in [
        ("TOKENWATCH__VAULT__SERVCE", "TOKENWATCH__VAULT__SERVICE"),
        ("TOKENWATCH__STATEDIR", "TOKENWATCH__STATE_DIR"),
        ("TOKENWATCH__MAILBOX__0__PORT", "configuration file"),
        ("TOKENWATCH__SINK", "configuration file"),
        ("TOKENWATCH__FROBNICATE__IT", "every key"),
    ] {
        let error = read::overridden(variable, "hunter2".into()).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains(&format!("the variable {variable})")),
            "{said}"
        );
        assert!(error.hint().contains(hint), "{said}: {}", error.hint());
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
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
        [[account]]\nusername='a@b.c'\npassword='credential:x'\nverify='soap'\nlogin-url='http://[::1]:1/'\napi-version='63.0'\n\
        ca-file='c'\nproxy='http://p:3128'\npromote-unverified-after='1h'\nfailed-logins-per-day=9\n\
        [[sink]]\nkind='file'\nname='f'\naccounts=['A@B.c']\npath='f'\nformat='template'\ntemplate='t'\nmode='0640'\nowner='root:0'\n\
        [[sink]]\nkind='command'\nargv='a b'\ntimeout='5s'\n\
        [[sink]]\nkind='webhook'\nurl='https://x/{username}'\nmethod='PUT'\ninclude-secret=true\nsecret='vault'\nheaders={X-A='credential:y'}\n\
        content-type='text/plain'\nca-file='c'\nproxy='none'\n\
        [[sink]]\nkind='systemd'\nunit='x.service'\n";
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
    let account = &config.accounts[0];
    assert_eq!(account.verify, Verify::Soap);
    assert_eq!(account.failed_logins_per_day, 9);
    assert_eq!(config.sinks.len(), 4);
    let mut section = String::new();
    let mut named = std::collections::BTreeSet::new();
    for line in all.lines() {
        if let Some(heading) = line.strip_prefix('[') {
            section = heading.trim_matches(['[', ']']).to_owned() + ".";
        } else if let Some((key, _)) = line.split_once('=') {
            named.insert(format!("{section}{key}"));
        }
    }
    // The tenant belongs to another provider.
    named.insert("mailbox.oauth2.tenant".into());
    assert_eq!(
        named,
        written::KEYS.iter().map(|&key| key.to_owned()).collect(),
        "KEYS and this test name every key"
    );
}

const SINK: &str =
    "state-dir='/s'\n[[account]]\nusername='a@b.c'\n[[account]]\nusername='d@e.f'\n[[sink]]\n";

#[test]
fn a_sink_has_a_name_of_its_own_and_defaults() {
    let config = load(&format!(
        "{SINK}kind='file'\npath='/run/x/{{username}}.env'\n\
        [[sink]]\nkind='command'\ncommand=['/bin/x', 'a b']\naccounts=['A@B.C']\n\
        [[sink]]\nkind='webhook'\nurl='https://x'\nheaders={{X-Vault-Token='file:t'}}\n\
        [[sink]]\nkind='webhook'\nurl='http://[::1]:8200/v1/secret/data/{{username}}'\nformat='kv2'\n\
        [[sink]]\nkind='systemd'\nunit='exalate@1.service'\n"
    ))
    .unwrap();
    let names: Vec<_> = config.sinks.iter().map(|sink| &*sink.name).collect();
    assert_eq!(
        names,
        ["file-1", "command-2", "webhook-3", "webhook-4", "systemd-5"]
    );
    let Receiver::File { mode, format, .. } = &config.sinks[0].to else {
        panic!("{:?}", config.sinks[0]);
    };
    assert_eq!((*mode, format), (0o600, &FileFormat::Env));
    assert!(config.sinks[0].wants("a@b.c") && config.sinks[0].wants("d@e.f"));
    assert!(config.sinks[1].wants("a@B.c") && !config.sinks[1].wants("d@e.f"));
    let Receiver::Command { argv, timeout } = &config.sinks[1].to else {
        panic!("{:?}", config.sinks[1]);
    };
    assert_eq!((argv.len(), timeout.as_secs()), (2, 30));
    let source = |name: &str| config.sink_secret(name).cloned();
    assert_eq!(source("sink/webhook-3"), Some(SecretSource::Vault));
    let token = source("sink/webhook-3/x-vault-token");
    assert!(matches!(token, Some(SecretSource::File(path)) if path.ends_with("t")));
    assert_eq!(source("sink/webhook-4"), None);
    assert!(config.warnings().is_empty());

    let open = format!("{SINK}kind='file'\npath='/x/{{username}}'\nmode='0644'\n");
    assert_eq!(load(&open).unwrap().warnings().len(), 1);
}

#[test]
fn a_sink_that_cannot_be_meant_is_refused_by_the_key() {
    for (key, lines) in [
        ("kind", "kind='carrier-pigeon'"),
        ("name", "kind='systemd'\nunit='a.service'\nname='A'"),
        (
            "name",
            "kind='systemd'\nunit='a.service'\nname='x'\n[[sink]]\nkind='systemd'\nunit='b.service'\nname='x'",
        ),
        ("accounts", "kind='file'\npath='x'\naccounts=['x@y.z']"),
        ("accounts", "kind='file'\npath='x'\naccounts=[]"),
        ("path", "kind='file'"),
        ("path", "kind='file'\npath='one-for-two'"),
        ("path", "kind='file'\npath='{user}'"),
        ("path", "kind='webhook'\nurl='https://x'\npath='x'"),
        (
            "path",
            "kind='file'\npath='x/{username}'\n[[sink]]\nkind='file'\npath='.//x/./a@b.c'\naccounts=['a@b.c']",
        ),
        ("mode", "kind='file'\npath='{username}'\nmode='4755'"),
        ("mode", "kind='file'\npath='{username}'\nmode='0666'"),
        ("mode", "kind='command'\nargv='x'\nmode='0600'"),
        ("owner", "kind='file'\npath='{username}'\nowner='a b'"),
        ("format", "kind='file'\npath='{username}'\nformat='xml'"),
        (
            "format",
            "kind='file'\npath='{username}'\nformat='raw'\ntemplate='t'",
        ),
        (
            "template",
            "kind='file'\npath='{username}'\nformat='template'",
        ),
        (
            "template",
            "kind='webhook'\nurl='https://x'\nformat='kv2'\ntemplate='t'",
        ),
        ("argv", "kind='command'"),
        ("argv", "kind='command'\nargv=[]"),
        ("argv", "kind='command'\nargv='sh -c \"hunter2\"'"),
        ("timeout", "kind='command'\nargv='x'\ntimeout='2h'"),
        ("timeout", "kind='file'\npath='{username}'\ntimeout='2s'"),
        ("url", "kind='webhook'"),
        ("url", "kind='webhook'\nurl='http://example.com/hunter2'"),
        (
            "url",
            "kind='webhook'\nurl='https://user:hunter2@example.com'",
        ),
        ("url", "kind='webhook'\nurl='https://{username}/x'"),
        ("method", "kind='webhook'\nurl='https://x'\nmethod='GET'"),
        (
            "method",
            "kind='webhook'\nurl='https://x'\nformat='kv2'\nmethod='PUT'",
        ),
        (
            "include-secret",
            "kind='webhook'\nurl='https://x'\nformat='kv2'\ninclude-secret=false",
        ),
        (
            "secret",
            "kind='webhook'\nurl='https://x'\nsecret='hunter2'",
        ),
        (
            "headers",
            "kind='webhook'\nurl='https://x'\nheaders={Host='vault'}",
        ),
        (
            "headers.x",
            "kind='webhook'\nurl='https://x'\nheaders={X='hunter2'}",
        ),
        (
            "headers",
            "kind='webhook'\nurl='https://x'\nheaders={X='vault',x='vault'}",
        ),
        (
            "proxy",
            "kind='webhook'\nurl='https://x'\nproxy='http://a:hunter2@p:1'",
        ),
        ("unit", "kind='systemd'\nunit='--force'"),
        ("unit", "kind='systemd'\nunit='exalate'"),
    ] {
        let error = load(&format!("{SINK}{lines}\n")).unwrap_err();
        let starts = format!("`sink.{key}`: ");
        assert!(error.to_string().starts_with(&starts), "{lines}: {error}");
        let shown = format!("{error:?} {}", error.hint());
        assert!(
            !error.hint().is_empty() && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_hint() {
    let mailbox = |line: &str| format!("{MAILBOX}{line}\n");
    let account = |line: &str| mailbox(&format!("[[account]]\nusername='a@b.c'\n{line}"));
    let oauth2 = |lines: &str| {
        mailbox(&format!(
            "auth='oauth2'\n[mailbox.oauth2]\nclient-id='c'\n{lines}"
        ))
    };
    for text in [
        mailbox("tls='none'"),
        mailbox("tls='ssl'"),
        mailbox("port=0"),
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
        account("verify='oauth'"),
        account("login-url='http://login.salesforce.com'"),
        account("login-url='http://localhost.example'"),
        account("login-url='https://u:hunter2@login.salesforce.com'"),
        account("login-url='https://login.salesforce.com/services'"),
        account("login-url='https://'"),
        account("login-url='https:///'"),
        account("api-version='65.0'"),
        account("api-version='64'"),
        account("api-version=64.0"),
        account("api-version='0.0'"),
        account("api-version='+6.0'"),
        account("proxy='http://user:hunter2@p:1'"),
        account("promote-unverified-after='soon'"),
        account("failed-logins-per-day=0"),
        account("failed-logins-per-day=10"),
        mailbox("[trust]\naccept=['spf']"),
        mailbox("[trust]\naccept=['receiver']"),
        mailbox("[trust]\naccept=['arc']"),
        mailbox("[trust]\narc-sealers=['a b.example']"),
        mailbox("[trust]\nsenders=[]"),
        mailbox("[trust]\nsenders=['*@salesforce.com']"),
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
            matches!(error, ConfigError::Malformed { .. }),
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
