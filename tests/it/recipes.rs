//! The recipes of docs/recipes.md, as they stand there, with the programs that they name.
//!
//! Only hosts and folders are others. wl-copy has a real compositor, docker and kubectl a server
//! on loopback in the place of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{any, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokenwatch::sink::{Class, Delivered};

use crate::https::Https;
use crate::kubernetes::Kubernetes;
use crate::kv2::Kv2;
use crate::receivers::{Receiver, credential};
use crate::support::ground::Ground;
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};
use crate::watching;

const USER: &str = "mariana@idalko.com";

/// What means something to sh, to YAML, to JSON, to XML and to a template.
const SECRET: &str = "p'a \"$HOME\" <w&rd> `x` #{{y}} \\ :TOKEN";

/// The blocks of a recipe that are written in this language.
fn blocks(recipe: &str, language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.md");
    let text = fs::read_to_string(path).unwrap();
    let heading = format!("\n## {recipe}\n");
    let (_, rest) = text.split_once(&heading).expect("the recipe is there");
    let recipe = rest.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let blocks = recipe.split(&fence).skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

fn block(recipe: &str, language: &str) -> String {
    let mut blocks = blocks(recipe, language);
    assert!(!blocks.is_empty(), "{language} in {recipe}");
    blocks.remove(0)
}

/// A folder in the place of /run/tokenwatch and /etc/tokenwatch.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn here(&self, text: &str) -> String {
        let folder = self.0.path().display().to_string();
        text.replace("/run/tokenwatch", &folder)
            .replace("/etc/tokenwatch", &folder)
    }

    async fn receiver(&self, configuration: &str, vault: &[(&str, &str)]) -> Receiver {
        let configuration = format!("{configuration}\n[[account]]\nusername = \"{USER}\"\n");
        let configuration = self.here(&configuration);
        let receiver = Receiver::new(self.0.path(), &configuration, vault);
        receiver.await.unwrap()
    }
}

/// A compositor without a screen. It ends when dropped.
struct Compositor {
    sway: Child,
    ground: Ground,
    display: String,
}

impl Compositor {
    fn start() -> Self {
        let ground = Ground::new("tokenwatch-sway-");
        let mut sway = ground.command("sway");
        sway.args(["-c", "/dev/null"])
            .envs([
                ("WLR_BACKENDS", "headless"),
                ("WLR_LIBINPUT_NO_DEVICES", "1"),
                ("WLR_RENDERER", "pixman"),
            ])
            .env("XDG_RUNTIME_DIR", ground.folder())
            .env("HOME", ground.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let sway = sway.spawn().expect("sway, which `tests/run` installs");
        let mut compositor = Self {
            sway,
            ground,
            display: String::new(),
        };
        compositor.display = compositor.wait();
        compositor
    }

    fn wait(&mut self) -> String {
        let begun = Instant::now();
        loop {
            let names = fs::read_dir(self.ground.folder()).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let is_socket = |name: &String| {
                name.strip_prefix("wayland-")
                    .is_some_and(|number| number.parse::<u32>().is_ok())
            };
            if let Some(display) = names.into_iter().find(is_socket) {
                return display;
            }
            assert!(self.sway.try_wait().unwrap().is_none(), "sway has ended");
            assert!(begun.elapsed() < Duration::from_secs(30), "no display");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn client(&self, program: &str) -> Command {
        let mut client = self.ground.command(program);
        client
            .env("XDG_RUNTIME_DIR", self.ground.folder())
            .env("WAYLAND_DISPLAY", &self.display);
        client
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        self.sway.kill().unwrap_or_default();
        self.sway.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_goes_to_the_clipboard() {
    let line = block("An Exalate console, by a person", "sh");
    assert_eq!(
        line,
        "tokenwatch credential get mariana@idalko.com | wl-copy\n"
    );
    let server = ImapServer::start(Options::default()).await;
    server.deliver(&TokenMail::new(USER, &token(1), Timestamp::now()).bytes());
    let machine = watching::machine(&server, "");
    machine.set_secret(&format!("account/{USER}"), "sf-Pass word");
    machine.ok(&["run", "--once"]);

    let compositor = Compositor::start();
    let mut get = machine.command(&["credential", "get", USER]);
    let mut get = get.stdout(Stdio::piped()).spawn().unwrap();
    let mut copy = compositor.client("wl-copy");
    // It stays until the display goes, and says so.
    copy.stdin(get.stdout.take().unwrap()).stderr(Stdio::null());
    assert!(copy.status().unwrap().success());
    assert!(get.wait().unwrap().success());
    let mut paste = compositor.client("wl-paste");
    let pasted = paste.arg("--no-newline").output().unwrap().stdout;
    let pasted = String::from_utf8(pasted).unwrap();
    assert_eq!(pasted, format!("sf-Pass word{}", token(1)));
}

/// An engine that makes any container, and remembers what it was asked for.
fn engine() -> (u16, Arc<Mutex<Vec<Value>>>) {
    let made = Arc::<Mutex<Vec<Value>>>::default();
    let remember = Arc::clone(&made);
    let create = async move |body: String| {
        let container: Value = serde_json::from_str(&body).unwrap();
        remember.lock().unwrap().push(container);
        let answer = json!({"Id": "0123456789ab", "Warnings": []});
        (axum::http::StatusCode::CREATED, axum::Json(answer))
    };
    let ping = async || [("api-version", "1.41"), ("ostype", "linux")];
    let router = Router::new()
        .route("/_ping", any(ping))
        .route("/{version}/containers/create", post(create));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    (port, made)
}

#[tokio::test]
async fn docker_reads_the_env_file() {
    let recipe = "A Docker env file";
    let place = Place::new();
    let receiver = place.receiver(&block(recipe, "toml"), &[]).await;
    receiver.deliver(&credential(SECRET)).await.unwrap();

    let (port, made) = engine();
    let line = place.here(&block(recipe, "sh"));
    let words: Vec<_> = line.split_whitespace().collect();
    // `create` is the part of `run` that reads the file.
    assert_eq!((words[0], words[1], words[4]), ("docker", "run", "IMAGE"));
    let output = Command::new("docker")
        .args(["create", words[2], words[3], "image"])
        .env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}"))
        .env("DOCKER_CONFIG", place.path("docker"))
        .output()
        .expect("docker, which `tests/run` installs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let expected = json!([
        format!("SALESFORCE_USERNAME={USER}"),
        format!("SALESFORCE_PASSWORD={SECRET}"),
    ]);
    assert_eq!(made.lock().unwrap()[0]["Env"], expected);
}

#[tokio::test]
async fn kubectl_applies_the_secret() {
    let recipe = "A Kubernetes secret";
    let place = Place::new();
    let cluster = Kubernetes::new("kube-token");
    let server = Https::new(cluster.router());
    fs::write(place.path("ca.pem"), &server.authority).unwrap();
    let kubeconfig = |token: &str| {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": server.url(""), "certificate-authority": "ca.pem",
            }}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(place.path("kubeconfig"), config.to_string()).unwrap();
    };
    kubeconfig("kube-token");
    let script = place.path("to-kubernetes");
    // Neither reads what a person keeps at home.
    let text = place.here(&block(recipe, "sh"));
    let home = format!("export HOME={}\nset -eu\n", place.0.path().display());
    fs::write(&script, text.replace("set -eu\n", &home)).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();

    let receiver = place.receiver(&block(recipe, "toml"), &[]).await;
    // Somebody has made it by hand before.
    cluster.is_managed_by("exalate", "salesforce", "kubectl", json!({}));
    for secret in ["first", SECRET] {
        let delivered = receiver.deliver(&credential(secret)).await.unwrap();
        assert_eq!(delivered, Delivered::New);
        let kept = cluster.secret("exalate", "salesforce").unwrap();
        let data = json!({
            "username": STANDARD.encode(USER), "password": STANDARD.encode(secret),
        });
        assert_eq!(kept["data"], data);
        assert_eq!(kept["metadata"]["annotations"], Value::Null);
    }
    kubeconfig("another-token");
    let error = receiver.deliver(&credential("third")).await.unwrap_err();
    assert_eq!(
        (error.class(), error.code()),
        (Class::Transient, "exit-code")
    );
}

#[tokio::test]
async fn the_entry_in_openbao_is_written() {
    let recipe = "HashiCorp Vault or OpenBao";
    let command = block(recipe, "sh");
    let name = command.trim().rsplit(' ').next().unwrap();
    let place = Place::new();
    let kv2 = Kv2::new("hvs.token");
    let server = Https::new(kv2.router());
    fs::write(place.path("ca.pem"), &server.authority).unwrap();
    let sink = block(recipe, "toml").replace("https://vault.example.com:8200", &server.url(""));
    let sink = format!("{sink}ca-file = \"ca.pem\"\n");
    let receiver = place.receiver(&sink, &[(name, "hvs.token")]).await;
    let credential = credential(SECRET);
    for expected in [Delivered::New, Delivered::Already] {
        assert_eq!(receiver.deliver(&credential).await.unwrap(), expected);
    }
    let expected = json!({"username": USER, "password": SECRET});
    assert_eq!(kv2.versions(&format!("exalate/{USER}")), [expected]);
}

/// What Salesforce answers to a login (SOAP API Developer Guide, `login()`).
fn salesforce(password: &'static str) -> Https {
    let login = async move |body: String| {
        let text = |name: &str| {
            let (_, rest) = body.split_once(&format!(":{name}>")).unwrap();
            let text = rest.split("</").next().unwrap();
            quick_xml::escape::unescape(text).unwrap().into_owned()
        };
        let envelope = |inner: &str| {
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><soapenv:Envelope \
                xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
                xmlns:sf=\"urn:fault.partner.soap.sforce.com\" \
                xmlns=\"urn:partner.soap.sforce.com\"><soapenv:Body>{inner}</soapenv:Body>\
                </soapenv:Envelope>"
            )
        };
        let (status, answer) = if text("username") == USER && text("password") == password {
            let result = "<loginResponse><result>\
                <serverUrl>https://eu1.salesforce.com/services/Soap/u/59.0/00D</serverUrl>\
                <sessionId>00D!session</sessionId></result></loginResponse>";
            (200, result)
        } else {
            let fault = "<soapenv:Fault><faultcode>sf:INVALID_LOGIN</faultcode><faultstring>\
                INVALID_LOGIN</faultstring><detail><sf:LoginFault>\
                <sf:exceptionCode>INVALID_LOGIN</sf:exceptionCode>\
                <sf:exceptionMessage>Invalid username, password, security token; or user locked \
                out.</sf:exceptionMessage></sf:LoginFault></detail></soapenv:Fault>";
            (500, fault)
        };
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        (status, [("content-type", "text/xml")], envelope(answer))
    };
    Https::new(Router::new().route("/services/Soap/u/{version}", post(login)))
}

#[tokio::test]
async fn simple_salesforce_logs_in_with_the_file() {
    let recipe = "simple-salesforce";
    let place = Place::new();
    let receiver = place.receiver(&block(recipe, "toml"), &[]).await;
    let server = salesforce(SECRET);
    fs::write(place.path("ca.pem"), &server.authority).unwrap();
    // The library goes to login.salesforce.com, over a session; ours goes to loopback instead.
    let elsewhere = format!(
        "import requests\n\
        class Loopback(requests.Session):\n    \
            def post(self, url, *arguments, **named):\n        \
                url = url.replace('https://login.salesforce.com', '{}')\n        \
                return super().post(url, *arguments, **named)\n",
        server.url("")
    );
    let script = place.here(&block(recipe, "python"));
    let script = script.replace(
        "security_token=\"\",",
        "security_token=\"\", session=Loopback(),",
    );
    let script =
        format!("{elsewhere}{script}\nprint(salesforce.session_id, salesforce.sf_instance)\n");
    let folder = env!("CARGO_TARGET_TMPDIR");
    let python = Path::new(folder).join("simple-salesforce/bin/python");
    let log_in = || {
        Command::new(&python)
            .args(["-I", "-c", &script])
            .env("NO_PROXY", "localhost")
            .env("REQUESTS_CA_BUNDLE", place.path("ca.pem"))
            .output()
            .expect("simple-salesforce, which `tests/run` installs")
    };
    receiver.deliver(&credential("wrong")).await.unwrap();
    let refused = String::from_utf8(log_in().stderr).unwrap();
    assert!(refused.contains("INVALID_LOGIN"), "{refused}");

    receiver.deliver(&credential(SECRET)).await.unwrap();
    let output = log_in();
    let said = String::from_utf8(output.stderr).unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed, "00D!session eu1.salesforce.com\n", "{said}");
}
