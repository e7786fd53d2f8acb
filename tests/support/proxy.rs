//! A proxy on loopback that speaks SOCKS5 (RFC 1928, 1929) and CONNECT, told
//! apart by the first byte. It asks for a password where it is told to, refuses
//! where it is told to, and remembers what it was asked for.
//!
//! Its answer and the server's first words go out in one packet, as they do
//! where a proxy is near its server.

use std::io::{Error, Result};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

/// How the proxy meets its clients.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// User and password, where it asks for them.
    pub password: Option<(&'static str, &'static str)>,
    /// It lets nobody through.
    pub refuses: bool,
    /// It waits for the server's first words and sends them behind its answer.
    pub greets: bool,
}

/// The proxy. Whatever is asked for, it connects to this port of 127.0.0.1.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    manners: Manners,
    server: u16,
    /// `kind host:port` of everything that was asked for.
    asked: Mutex<Vec<String>>,
}

impl Proxy {
    pub async fn start(server: u16, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            manners,
            server,
            asked: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // A client that hangs up ends its connection and no more.
                clients.spawn(async move { state.serve(client).await.unwrap_or_default() });
            }
        });
        Self {
            port,
            state,
            _tasks: tasks,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What was asked for, as `socks5 host:port` or `connect host:port`.
    pub fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }
}

impl State {
    async fn serve(&self, client: TcpStream) -> Result<()> {
        let mut client = BufReader::new(client);
        let answer = if client.fill_buf().await?.first() == Some(&5) {
            self.socks(&mut client).await?
        } else {
            self.connect(&mut client).await?
        };
        if self.manners.refuses {
            return client.write_all(answer.refused).await;
        }
        let mut server = TcpStream::connect(("127.0.0.1", self.server)).await?;
        let mut first = answer.granted.to_vec();
        if self.manners.greets {
            let reading = server.read_buf(&mut first);
            timeout(Duration::from_secs(10), reading).await??;
        }
        client.write_all(&first).await?;
        copy_bidirectional(&mut client, &mut server).await.map(drop)
    }

    async fn socks(&self, client: &mut BufReader<TcpStream>) -> Result<Answer> {
        let mut methods = vec![0; usize::from(take(client, 2).await?[1])];
        client.read_exact(&mut methods).await?;
        let method = if self.manners.password.is_some() {
            2
        } else {
            0
        };
        if !methods.contains(&method) {
            client.write_all(&[5, 0xff]).await?;
            return Err(Error::other("no method"));
        }
        client.write_all(&[5, method]).await?;
        if let Some(password) = self.manners.password {
            take(client, 1).await?;
            let user = counted(client).await?;
            let right = (user.as_str(), counted(client).await?.as_str()) == password;
            client.write_all(&[1, u8::from(!right)]).await?;
            if !right {
                return Err(Error::other("wrong password"));
            }
        }
        let host = match take(client, 4).await?[3] {
            1 => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(take(client, 4).await?).unwrap())
                .to_string(),
            3 => counted(client).await?,
            _ => return Err(Error::other("no such address")),
        };
        let port = client.read_u16().await?;
        self.asked
            .lock()
            .unwrap()
            .push(format!("socks5 {host}:{port}"));
        Ok(Answer {
            granted: &[5, 0, 0, 1, 127, 0, 0, 1, 0, 0],
            refused: &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0],
        })
    }

    async fn connect(&self, client: &mut BufReader<TcpStream>) -> Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if client.read_line(&mut head).await? == 0 {
                return Err(Error::other("no request"));
            }
        }
        if let Some((user, password)) = self.manners.password {
            let basic = BASE64.encode(format!("{user}:{password}"));
            if !head.contains(&format!("Proxy-Authorization: Basic {basic}\r\n")) {
                client
                    .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                    .await?;
                return Err(Error::other("wrong password"));
            }
        }
        let wanted = head.split(' ').nth(1).unwrap_or_default();
        self.asked.lock().unwrap().push(format!("connect {wanted}"));
        Ok(Answer {
            granted: b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n",
            refused: b"HTTP/1.1 403 Forbidden\r\n\r\n",
        })
    }
}

struct Answer {
    granted: &'static [u8],
    refused: &'static [u8],
}

async fn take(client: &mut BufReader<TcpStream>, n: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; n];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// A text behind its length in one byte.
async fn counted(client: &mut BufReader<TcpStream>) -> Result<String> {
    let length = client.read_u8().await?;
    let bytes = take(client, usize::from(length)).await?;
    String::from_utf8(bytes).map_err(Error::other)
}
