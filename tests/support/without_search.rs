//! A go-between that stands before a real server and refuses every SEARCH in
//! its place; all else passes as it is. TLS on both sides.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every target that includes this file uses a part of it, and fails by a panic"
)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The go-between; dropped, it ends its connections.
pub struct WithoutSearch {
    port: u16,
    _tasks: JoinSet<()>,
}

impl WithoutSearch {
    /// Stands before the server on `port`, whose certificate `ca_file` has
    /// signed, and shows the certificate and key of `folder` itself.
    pub async fn start(port: u16, ca_file: &Path, folder: PathBuf) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca_file).unwrap())
            .unwrap();
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (client, server) = (
            TlsConnector::from(Arc::new(client)),
            TlsAcceptor::from(Arc::new(server)),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (client, server) = (client.clone(), server.clone());
                // Either side may hang up: that ends the conversation.
                connections.spawn(async move {
                    relay(stream, port, server, client)
                        .await
                        .unwrap_or_default();
                });
            }
        });
        Self {
            port: own_port,
            _tasks: tasks,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn relay(
    stream: TcpStream,
    port: u16,
    server: TlsAcceptor,
    client: TlsConnector,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let near = server.accept(stream).await?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    let far = client.connect(name, stream).await?;
    let (near_reader, mut near_writer) = split(near);
    let (mut far_reader, mut far_writer) = split(far);
    let (refusals, mut refused) = mpsc::channel::<String>(1);
    let asking = async {
        let mut lines = BufReader::new(near_reader);
        let mut line = String::new();
        while lines.read_line(&mut line).await? > 0 {
            match line.split_once(' ') {
                Some((tag, command)) if command.starts_with("UID SEARCH") => {
                    let refusal = format!("{tag} NO I do not search\r\n");
                    refusals.send(refusal).await.unwrap();
                }
                _ => {
                    far_writer.write_all(line.as_bytes()).await?;
                    far_writer.flush().await?;
                }
            }
            line.clear();
        }
        Ok(())
    };
    let answering = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            tokio::select! {
                read = far_reader.read(&mut buffer) => match read? {
                    0 => return Ok(()),
                    n => near_writer.write_all(buffer.get(..n).unwrap()).await?,
                },
                // The server is silent while it is not asked.
                Some(refusal) = refused.recv() => near_writer.write_all(refusal.as_bytes()).await?,
            }
            near_writer.flush().await?;
        }
    };
    tokio::select! { ended = asking => ended, ended = answering => ended }
}
