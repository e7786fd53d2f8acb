//! What is sent and what is understood, without a server: `tests/it/salesforce.rs` has one.

use super::*;

const CODES: [(&str, Answer); 17] = [
    ("INVALID_LOGIN", Answer::Refused),
    ("LOGIN_MUST_USE_SECURITY_TOKEN", Answer::Refused),
    ("PASSWORD_LOCKOUT", Answer::Locked),
    ("ORG_LOCKED", Answer::Locked),
    ("LOGIN_DURING_RESTRICTED_DOMAIN", Answer::Restricted),
    ("LOGIN_DURING_RESTRICTED_TIME", Answer::Restricted),
    ("LOGIN_CHALLENGE_ISSUED", Answer::Restricted),
    ("API_CURRENTLY_DISABLED", Answer::NotAvailable),
    ("API_DISABLED_FOR_ORG", Answer::NotAvailable),
    ("INVALID_OPERATION", Answer::NotAvailable),
    ("INSUFFICIENT_ACCESS", Answer::NotAvailable),
    ("TRIAL_EXPIRED", Answer::NotAvailable),
    ("UNSUPPORTED_API_VERSION", Answer::NotAvailable),
    ("REQUEST_LIMIT_EXCEEDED", Answer::RateLimited),
    ("SERVER_UNAVAILABLE", Answer::Unreachable),
    ("SOMETHING_NEW", Answer::Unknown),
    ("", Answer::Unknown),
];

/// A document around a body.
fn envelope(body: &str) -> String {
    format!("<?xml version=\"1.0\"?><e:Envelope xmlns:e='x'><e:Body>{body}</e:Body></e:Envelope>")
}

fn faulted(detail: &str) -> String {
    envelope(&format!(
        "<e:Fault><faultcode>x</faultcode>{detail}</e:Fault>"
    ))
}

/// A login that worked.
fn logged_in(expired: &str, session: &str) -> String {
    envelope(&format!(
        "<loginResponse><result><passwordExpired>{expired}</passwordExpired>\
         <serverUrl>https://a.my.salesforce.com/services/Soap/u/64.0/00D</serverUrl>\
         <sessionId>{session}</sessionId></result></loginResponse>"
    ))
}

#[test]
fn every_code_has_its_answer_however_it_is_wrapped() {
    for (code, answer) in CODES {
        for detail in [
            format!(
                "<detail><sf:LoginFault xsi:type='sf:LoginFault'><sf:exceptionCode>{code}</sf:exceptionCode></sf:LoginFault></detail>"
            ),
            format!(
                "<detail><ns2:ApiFault><ns2:exceptionCode>\n {code}\t</ns2:exceptionCode></ns2:ApiFault></detail>"
            ),
            format!("<detail><exceptionCode>{code}</exceptionCode></detail>"),
            format!(
                "<detail><a><b><exceptionCode><![CDATA[{code}]]></exceptionCode></b></a></detail>"
            ),
            format!(
                "<detail><a x='>'/><exceptionCode>{code}<!-- <exceptionCode>X</exceptionCode> --></exceptionCode></detail>"
            ),
        ] {
            let document = faulted(&detail);
            for status in [500, 200, 503] {
                assert_eq!(
                    read(status, document.as_bytes()),
                    answer,
                    "{status} {document}"
                );
            }
        }
    }
    let spelt =
        "<detail><exceptionCode>&#73;NVALID&#x5F;LO<?p?>GI<!-- -->N</exceptionCode></detail>";
    assert_eq!(read(500, faulted(spelt).as_bytes()), Answer::Refused);
    let marked = format!("\u{feff}{}", faulted(spelt));
    assert_eq!(read(500, marked.as_bytes()), Answer::Refused);
}

#[test]
fn a_login_works_only_where_salesforce_says_all_of_it() {
    let login = |expired: &str, session: &str| {
        let reply = soap::reply(200, logged_in(expired, session).as_bytes());
        (reply.answer, reply.session)
    };
    let (answer, session) = login("false", "00D!a.b_c");
    let session = session.unwrap();
    assert_eq!(answer, Answer::Works);
    assert_eq!(session.id.expose(), "00D!a.b_c");
    assert!(
        session
            .server_url
            .starts_with("https://a.my.salesforce.com")
    );
    assert_eq!(login("0", "<![CDATA[00D]]>").0, Answer::Works);
    for expired in ["true", "1"] {
        let (answer, session) = login(expired, "00D");
        assert_eq!(answer, Answer::PasswordExpired);
        assert!(session.is_some());
    }
    assert_eq!(login("true", "").0, Answer::PasswordExpired);
    for (expired, session) in [("false", ""), ("no", "00D"), ("", "00D")] {
        let (answer, session) = login(expired, session);
        assert_eq!(answer, Answer::Unknown);
        assert!(session.is_none());
    }
    let whole = logged_in("false", "00D");
    for status in [201, 302, 500] {
        assert_eq!(read(status, whole.as_bytes()), Answer::Unknown);
    }
    for end in 0..whole.len() {
        assert_eq!(
            read(200, &whole.as_bytes()[..end]),
            Answer::Unknown,
            "{end}"
        );
    }
}

#[test]
fn what_only_looks_like_an_answer_is_none() {
    let works = logged_in("false", "00D");
    let refused = faulted("<detail><exceptionCode>INVALID_LOGIN</exceptionCode></detail>");
    let inner = "<loginResponse><result><passwordExpired>false</passwordExpired>\
        <sessionId>00D</sessionId></result></loginResponse>";
    let bomb = "<!DOCTYPE e [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;'>]>";
    for hostile in [
        // Twice the same, or both.
        works.replace("<sessionId>", "<sessionId>a</sessionId><sessionId>"),
        works.replace(
            "<passwordExpired>",
            "<passwordExpired>true</passwordExpired><passwordExpired>",
        ),
        envelope(&inner.repeat(2)),
        envelope(&format!("{inner}<e:Fault/>")),
        refused.replace(
            "<detail>",
            "<detail><exceptionCode>ORG_LOCKED</exceptionCode>",
        ),
        // In another place.
        inner.to_owned(),
        works.replace("e:Body", "e:Header"),
        works.replace("result>", "results>"),
        works.replace("loginResponse>", "logoutResponse>"),
        envelope(&format!("<a>{inner}</a>")),
        refused.replace("detail>", "faultstring>"),
        refused.replace("e:Fault>", "e:Error>"),
        format!("{works}<e:Envelope/>"),
        format!("{works}x"),
        format!("x{works}"),
        format!("{works}&amp;"),
        format!("{works}<![CDATA[]]>"),
        // Not well-formed, or with entities of its own.
        works.replace("</result>", "</results>"),
        works.replace("00D", "&a;"),
        works.replace("00D", "&#0;"),
        works.replace("00D", "&#xD800;"),
        works.replace("00D", "a & b"),
        works.replace("<?xml version=\"1.0\"?>", bomb),
        works
            .replace("<?xml version=\"1.0\"?>", bomb)
            .replace("00D", "&b;"),
        format!("{}{works}", "<!DOCTYPE e SYSTEM 'file:///etc/passwd'>"),
        works.replace("<e:Body>", "<e:Body><!DOCTYPE e>"),
        "<e:Envelope>".repeat(5_000),
        "<".repeat(60_000),
        "&amp;".repeat(10_000),
        String::new(),
    ] {
        let shown: String = hostile.chars().take(300).collect();
        assert_eq!(read(200, hostile.as_bytes()), Answer::Unknown, "{shown}");
    }
    let utf16: Vec<u8> = works.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read(200, &utf16), Answer::Unknown);
    assert_eq!(
        read(200, works.replace("00D", "0\u{f}D").as_bytes()),
        Answer::Works
    );
    assert_eq!(
        read(200, &[works.as_bytes(), &[0xff]].concat()),
        Answer::Unknown
    );
}

#[test]
fn a_status_alone_says_whether_the_password_was_looked_at() {
    for (status, answer) in [
        (429, Answer::RateLimited),
        (502, Answer::Unknown),
        (503, Answer::Unreachable),
        (500, Answer::Unknown),
        (504, Answer::Unknown),
        (301, Answer::Unknown),
        (401, Answer::Unknown),
        (200, Answer::Unknown),
    ] {
        for body in ["", "<html>", "<html/>", "{}"] {
            assert_eq!(read(status, body.as_bytes()), answer, "{status} {body}");
        }
    }
}

#[test]
fn what_is_sent_is_escaped_and_its_buffer_never_moves() {
    let secret = Secret::new("<&>\"' ü 漢 \u{1f980} ]]>\r".into());
    let document = soap::login("a&b@c.d", &secret);
    let (_, rest) = document.split_once("<username>").unwrap();
    assert_eq!(
        rest,
        "a&amp;b@c.d</username><password>&lt;&amp;&gt;&quot;&apos; ü 漢 \u{1f980} ]]&gt;&#13;\
         </password></login></s:Body></s:Envelope>"
    );
    let worst = Secret::new("\"".repeat(1_000));
    let document = soap::login(&"'".repeat(100), &worst);
    let spare = document.capacity().checked_sub(document.len()).unwrap();
    assert!(spare < 16, "allocated once, for exactly this: {spare}");
    let document = soap::logout(&Secret::new("0&0".into()));
    assert!(document.contains("<p:sessionId>0&amp;0</p:sessionId>"));
}

#[test]
fn a_login_goes_to_https_or_this_machine_and_to_a_version_that_has_it() {
    for (url, version, meant) in [
        (
            "https://login.salesforce.com",
            "64.0",
            "https://login.salesforce.com/services/Soap/u/64.0",
        ),
        (
            "https://a--b.sandbox.my.salesforce.com/",
            "9.0",
            "https://a--b.sandbox.my.salesforce.com/services/Soap/u/9.0",
        ),
        (
            "http://localhost:8/",
            "63.0",
            "http://localhost:8/services/Soap/u/63.0",
        ),
        (
            "http://[::1]:8",
            "1.0",
            "http://[::1]:8/services/Soap/u/1.0",
        ),
    ] {
        let endpoint = Endpoint::new(url, version).unwrap();
        assert_eq!(endpoint.url().as_str(), meant);
    }
    for url in [
        "",
        "login.salesforce.com",
        "http://login.salesforce.com",
        "http://localhost.example",
        "ftp://127.0.0.1",
        "https://u:p@login.salesforce.com",
        "https://login.salesforce.com/services",
        "https://login.salesforce.com/?a",
        "https://login.salesforce.com/#a",
    ] {
        let error = Endpoint::new(url, "64.0").unwrap_err();
        assert!(matches!(error, EndpointError::Address(_)), "{url}");
        assert!(error.hint().contains("login-url"));
    }
    for version in [
        "65.0", "64", "64.1", "0.0", "064.0", "+6.0", ".0", "", "300.0", "6a.0",
    ] {
        let error = Endpoint::new("https://login.salesforce.com", version).unwrap_err();
        assert_eq!(error, EndpointError::Version, "{version}");
    }
}

#[test]
fn a_session_goes_to_salesforce_or_the_host_of_the_login() {
    let gone = |login: &str, server: &str| {
        Endpoint::new(login, "64.0")
            .unwrap()
            .of_session(server)
            .is_some()
    };
    let login = "https://login.salesforce.com";
    for server in [
        "https://na1.salesforce.com/services/Soap/u/64.0/00D",
        "https://acme.my.salesforce.com/",
        "https://LOGIN.salesforce.com/",
        "https://salesforce.com/",
    ] {
        assert!(gone(login, server), "{server}");
        assert!(gone("https://proxy.example.com", server), "{server}");
    }
    assert!(gone("https://sf.example.com", "https://eu.example.com/x"));
    assert!(gone("https://10.0.0.1:8443", "https://10.0.0.1/x"));
    assert!(gone("http://127.0.0.1:1", "http://127.0.0.1:2/x"));
    for (login, server) in [
        (login, "http://na1.salesforce.com/"),
        (login, "https://evilsalesforce.com/"),
        (login, "https://salesforce.com.example/"),
        (login, "https://u:p@na1.salesforce.com/"),
        (login, "http://127.0.0.1/"),
        (login, "/services"),
        ("https://a.co.uk", "https://b.co.uk/"),
        ("https://10.0.0.1", "https://10.0.0.2/"),
        ("http://127.0.0.1:1", "https://na1.salesforce.com/"),
        ("http://127.0.0.1:1", "http://na1.salesforce.com/"),
    ] {
        assert!(!gone(login, server), "{login} {server}");
    }
}

#[test]
fn every_answer_has_a_word_of_its_own_and_says_what_to_do() {
    let all = [
        Answer::Works,
        Answer::PasswordExpired,
        Answer::Refused,
        Answer::Locked,
        Answer::Restricted,
        Answer::NotAvailable,
        Answer::RateLimited,
        Answer::Unreachable,
        Answer::Unknown,
    ];
    let words: std::collections::BTreeSet<_> = all.map(Answer::word).into();
    assert_eq!(words.len(), all.len());
    for answer in all {
        assert!(
            answer
                .word()
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'-')
        );
        assert!(!answer.sentence().is_empty());
        assert_eq!(answer.hint().is_empty(), answer == Answer::Works);
    }
}
