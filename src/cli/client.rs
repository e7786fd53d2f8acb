//! The way to a running daemon: HTTP over its control socket.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::error::CliError;
use crate::api::{ErrorBody, STATE_DIR_HEADER};
use crate::config::{self, Config};

/// How long a daemon may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answers.
enum Spoken {
    /// The daemon of our configuration.
    Ours(Client),
    /// That of another one, with this state folder.
    Other(PathBuf),
}

/// A connection to the daemon of our configuration.
pub(super) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Client {
    /// The daemon, if one runs. A daemon of another configuration is not ours.
    pub(super) async fn find(config: &Config) -> anyhow::Result<Option<Self>> {
        let mut denied: Option<PathBuf> = None;
        let mut other: Option<CliError> = None;
        for path in config::sockets(&config.state_dir) {
            match UnixStream::connect(&path).await {
                // One that does not answer as a daemon of ours is none of ours.
                Ok(stream) => match Self::speak(stream, config).await {
                    Ok(Spoken::Ours(client)) => return Ok(Some(client)),
                    Ok(Spoken::Other(theirs)) => {
                        other = Some(CliError::OtherState {
                            socket: path,
                            ours: config.state_dir.clone(),
                            theirs,
                        });
                    }
                    Err(error) => tracing::debug!(event = "control.strange", %error,
                        socket = %path.display(), "no answer of a daemon"),
                },
                // Who may not look there cannot know whether a daemon runs.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    denied.get_or_insert(path);
                }
                Err(_) => {}
            }
        }
        if let Some(path) = denied {
            return Err(CliError::NotAllowed(path).into());
        }
        // The usual socket with another state folder: two configurations for
        // one daemon, most likely, and a second vault in the making.
        match other {
            Some(other) if config.names_no_state_dir => Err(other.into()),
            _ => Ok(None),
        }
    }

    /// As [`find`](Self::find), where nothing can be done without.
    pub(super) async fn require(config: &Config) -> anyhow::Result<Self> {
        Ok(Self::find(config).await?.ok_or(CliError::NoDaemon)?)
    }

    /// Asks who is there, and does not wait for long.
    async fn speak(stream: UnixStream, config: &Config) -> anyhow::Result<Spoken> {
        tokio::time::timeout(PATIENCE, Self::greet(stream, config)).await?
    }

    async fn greet(stream: UnixStream, config: &Config) -> anyhow::Result<Spoken> {
        use std::os::unix::ffi::OsStrExt;

        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the connection is driven for as long as this command runs, and ends with it"
        )]
        tokio::spawn(connection);
        let mut client = Self { sender };
        let greeting = client.send(Method::GET, "/healthz", Bytes::new()).await?;
        let theirs = greeting
            .headers()
            .get(STATE_DIR_HEADER)
            .map(|dir| PathBuf::from(OsStr::from_bytes(dir.as_bytes())))
            .ok_or(CliError::Answer)?;
        greeting.into_body().collect().await?;
        Ok(if theirs == config.state_dir {
            Spoken::Ours(client)
        } else {
            Spoken::Other(theirs)
        })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "tokenwatch")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Calls; an error of the daemon's becomes ours. `None`: there is no such
    /// thing.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Option<Response<Incoming>>> {
        let response = self.send(method, path, body.into()).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if response.status().is_success() {
            return Ok(Some(response));
        }
        let bytes = response.into_body().collect().await?.to_bytes();
        let body: ErrorBody = serde_json::from_slice(&bytes).map_err(|_| CliError::Answer)?;
        Err(CliError::Daemon(body).into())
    }

    /// Reads something.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        let answer = self.ask(Method::GET, path).await?;
        Ok(answer.ok_or(CliError::Answer)?)
    }

    /// Calls, and reads the answer; `None`: there is no such thing.
    pub(super) async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
    ) -> anyhow::Result<Option<T>> {
        let Some(response) = self.call(method, path, Bytes::new()).await? else {
            return Ok(None);
        };
        let bytes = response.into_body().collect().await?.to_bytes();
        let answer = serde_json::from_slice(&bytes).map_err(|_| CliError::Answer)?;
        Ok(Some(answer))
    }

    /// Reads lines of JSON as they come.
    pub(super) async fn lines<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
        mut each: impl FnMut(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let response = self
            .call(method, path, body)
            .await?
            .ok_or(CliError::Answer)?;
        let mut body = response.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                pending.extend_from_slice(&data);
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                each(serde_json::from_slice(&line).map_err(|_| CliError::Answer)?)?;
            }
        }
        Ok(())
    }
}

/// A name as a segment of a URL's path (RFC 3986, section 2.1).
pub(super) fn segment(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
