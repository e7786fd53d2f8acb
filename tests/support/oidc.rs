//! A real `OpenID` provider on loopback: oidc-provider from npm, under Node.
//!
//! `oidc/provider.mjs` says what it knows: three applications, one API (the mail server) and anybody
//! who signs in. Whoever approves or denies here does what a browser does: pages, forms, cookies.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use oauth2::url::{Url, form_urlencoded};
use scraper::{ElementRef, Html, Selector};
use serde_json::{Value, json};

/// Who signs in, and whom every access token names in `email`.
pub const USER: &str = "ops@example.com";

/// `kid` of the key that signs access tokens, with RS256.
pub const KEY_ID: &str = "test-key";

/// `aud` of access tokens.
pub const AUDIENCE: &str = "https://imap.example.com";

/// A public application for people: device code, browser, refresh.
pub const NATIVE: &str = "native";

/// The same with a secret, as Google has it.
pub const DESKTOP: [&str; 2] = ["desktop", "desktop-secret-of-the-tests"];

/// A service without a person: client credentials.
pub const SERVICE: [&str; 2] = ["service", "service-secret-of-the-tests"];

/// The scope of the mail server, and the one that people sign in with.
pub const SCOPES: [&str; 2] = ["openid", "imap"];

/// The provider; it ends when dropped, and with the test process at the latest.
pub struct Oidc {
    node: Child,
    /// Its end is what the provider ends by.
    input: Option<ChildStdin>,
    port: u16,
    public_key: String,
    /// What it says on its standard error, shown where a test fails.
    log: tempfile::NamedTempFile,
}

impl Oidc {
    /// Starts a provider of its own key and without a memory, and waits until it listens.
    pub fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/oidc");
        assert!(
            folder.join("node_modules/oidc-provider").exists(),
            "`tests/run` installs the provider: npm ci --prefix {}",
            folder.display()
        );
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut node = Command::new("node")
            .arg(folder.join("provider.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .expect("Node (Debian: nodejs)");
        let input = node.stdin.take();
        let mut line = String::new();
        let mut output = BufReader::new(node.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            let log = fs::read_to_string(log.path()).unwrap();
            panic!("the provider does not come up:\n{log}")
        });
        Self {
            node,
            input,
            port: said["port"].as_u64().unwrap().try_into().unwrap(),
            public_key: said["key"].as_str().unwrap().to_owned(),
            log,
        }
    }

    /// The loopback port that speaks clear HTTP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `iss` of access tokens.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The key that access tokens are checked with: PEM, `SubjectPublicKeyInfo`.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The token endpoint.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.issuer())
    }

    /// The authorization endpoint.
    pub fn authorization_endpoint(&self) -> String {
        format!("{}/auth", self.issuer())
    }

    /// The device authorization endpoint.
    pub fn device_endpoint(&self) -> String {
        format!("{}/device/auth", self.issuer())
    }

    /// Access tokens are good for so long from now on, in seconds. Those that
    /// are out there are what they are.
    pub fn access_token_seconds(&self, seconds: u32) {
        self.set(&json!({ "accessTokenSeconds": seconds }));
    }

    /// Device codes are good for so long from now on, in seconds.
    pub fn device_code_seconds(&self, seconds: u32) {
        self.set(&json!({ "deviceCodeSeconds": seconds }));
    }

    /// The token endpoint answers with this status and a page of HTML; 0 ends it.
    pub fn fail_with(&self, status: u16) {
        self.set(&json!({ "failWith": status }));
    }

    /// Every refresh token is dead from now on, as after a change of the user's password.
    pub fn revoke_refresh_tokens(&self) {
        self.control("revoke-refresh-tokens", "");
    }

    /// How often the path of an endpoint was asked for.
    pub fn asked(&self, path: &str) -> u64 {
        self.control("counters", "")[path].as_u64().unwrap_or(0)
    }

    /// Opens the page, signs in as [`USER`], agrees to everything, and gives the last page back. It
    /// may be the page of another server on loopback, to which the browser was sent.
    pub fn approve(url: &str) -> String {
        Browser::new(true).visit(url)
    }

    /// Opens the page and declines at the first opportunity.
    pub fn deny(url: &str) -> String {
        Browser::new(false).visit(url)
    }

    /// The page where a user enters the code that a device shows.
    pub fn device_page(&self, user_code: &str) -> String {
        format!("{}/device?user_code={user_code}", self.issuer())
    }

    fn set(&self, settings: &Value) {
        self.control("settings", &settings.to_string());
    }

    fn control(&self, what: &str, body: &str) -> Value {
        let url = Url::parse(&format!("{}/test/{what}", self.issuer())).unwrap();
        let answer = Answer::of(&url, Some(body), "");
        assert_eq!(answer.status, 200);
        serde_json::from_str(&answer.body).unwrap()
    }
}

impl Drop for Oidc {
    #[allow(
        clippy::print_stdout,
        reason = "it is shown with the test that fails, and only then"
    )]
    fn drop(&mut self) {
        drop(self.input.take());
        self.node.wait().unwrap();
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(self.log.path()).unwrap());
        }
    }
}

/// As much of a browser as a sign-in needs.
struct Browser {
    approves: bool,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn new(approves: bool) -> Self {
        Self {
            approves,
            cookies: BTreeMap::new(),
        }
    }

    /// Follows redirects and fills in forms until there are no more.
    fn visit(&mut self, url: &str) -> String {
        let mut url = Url::parse(url).unwrap();
        let mut body = None;
        for _ in 0..30 {
            let answer = self.ask(&url, body.as_deref());
            if let Some(location) = answer.header("location") {
                url = url.join(location).unwrap();
                body = None;
                continue;
            }
            let page = Html::parse_document(&answer.body);
            match self.next(&page) {
                Some((target, fields)) => {
                    url = url.join(&target).unwrap();
                    body = fields;
                }
                None => return answer.body,
            }
        }
        panic!("the sign-in leads round in circles: {url}");
    }

    /// Where the page leads, and what is sent there.
    fn next(&self, page: &Html) -> Option<(String, Option<String>)> {
        if !self.approves
            && let Some(cancel) = first(page, "a[href$='/abort']")
        {
            return Some((cancel.attr("href").unwrap().to_owned(), None));
        }
        // The page for a code that is not filled in: the end of a sign-in that was denied.
        let form = first(page, "form:not([id='op.deviceInputForm'])")?;
        let mut fields = form_urlencoded::Serializer::new(String::new());
        for input in form.select(&Selector::parse("input[name]").unwrap()) {
            match input.attr("name").unwrap() {
                "login" => fields.append_pair("login", USER),
                "password" => fields.append_pair("password", "any"),
                "confirm" if !self.approves => fields.append_pair("abort", "yes"),
                name => fields.append_pair(name, input.attr("value").unwrap_or("")),
            };
        }
        Some((
            form.attr("action").unwrap().to_owned(),
            Some(fields.finish()),
        ))
    }

    fn ask(&mut self, url: &Url, body: Option<&str>) -> Answer {
        let cookies = self.cookies.iter();
        let cookies: Vec<_> = cookies
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let answer = Answer::of(url, body, &cookies.join("; "));
        for (name, value) in &answer.headers {
            if name == "set-cookie" {
                let (name, rest) = value.split_once('=').unwrap();
                let value = rest.split(';').next().unwrap();
                if value.is_empty() || rest.contains("expires=Thu, 01 Jan 1970") {
                    self.cookies.remove(name);
                } else {
                    self.cookies.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        answer
    }
}

fn first<'a>(page: &'a Html, selector: &str) -> Option<ElementRef<'a>> {
    page.select(&Selector::parse(selector).unwrap()).next()
}

/// An answer of HTTP.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    /// One request on a connection of its own: a form where there is a body.
    fn of(url: &Url, body: Option<&str>, cookies: &str) -> Self {
        let address = url.socket_addrs(|| None).unwrap();
        let mut stream = TcpStream::connect(&*address).unwrap();
        let method = if body.is_some() { "POST" } else { "GET" };
        let (target, body) = (
            &url[oauth2::url::Position::BeforePath..],
            body.unwrap_or(""),
        );
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nhost: {}:{}\r\nconnection: close\r\n\
             cookie: {cookies}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n{body}",
            url.host_str().unwrap(),
            url.port().unwrap(),
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self {
            status: status.parse().unwrap(),
            headers: headers.collect(),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(n, value)| (n == name).then_some(value.as_str()))
    }
}
