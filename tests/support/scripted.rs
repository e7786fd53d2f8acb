//! A server that says what no real one says on demand: it follows a script, or
//! a function that answers each command by its text.
//!
//! In what it says `TAG` is the command's tag and `TODAY` is today, and
//! `HANGUP` at the end ends the connection. Each connection is served by
//! itself, whatever becomes of the others.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// One line of a script: what is heard (a part of the command), and what is
/// answered.
pub type Line = (&'static str, String);

/// The server. It ends with the last of its handles.
#[derive(Clone)]
pub struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: Arc<JoinSet<()>>,
}

/// Answers a connection, the first of which is 1, by a command's text. An empty
/// answer keeps it waiting.
type Answering = Box<dyn Fn(usize, &str) -> String + Send + Sync>;

/// How the server knows what to say.
enum Manner {
    Script(Vec<Line>),
    Answers(Answering),
}

/// What is peculiar about a server's connections.
pub struct Options {
    pub greeting: String,
    pub tls: Option<TlsAcceptor>,
    /// The first connection ends behind so many bytes of what it says.
    pub cut: Option<Cut>,
}

/// Where a connection ends, and whether it is reset, as a router does it, or
/// ended in good order.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub after: usize,
    pub reset: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            greeting: "* OK [CAPABILITY IMAP4rev1 IDLE ID] answering\r\n".to_owned(),
            tls: None,
            cut: None,
        }
    }
}

struct Shared {
    manner: Manner,
    options: Options,
    /// What was heard, by the connection; and the bell for it.
    heard: Mutex<Vec<(usize, String)>>,
    rings: watch::Sender<()>,
    /// How many bytes the first connection was told.
    said: AtomicUsize,
    /// What all connections are told.
    told: broadcast::Sender<String>,
}

impl Scripted {
    /// A server that follows the script from its beginning on each connection,
    /// and hangs up at its end.
    pub async fn start(script: Vec<Line>) -> Self {
        let greeting = "* OK [CAPABILITY IMAP4rev1 IDLE] scripted\r\n".to_owned();
        let options = Options {
            greeting,
            ..Options::default()
        };
        Self::serve(Manner::Script(script), options).await
    }

    /// A server that answers each command by its text.
    pub async fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::with(Options::default(), move |_, command| answer(command)).await
    }

    /// A server that answers by the connection and the command's text.
    pub async fn with(
        options: Options,
        answer: impl Fn(usize, &str) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Manner::Answers(Box::new(answer)), options).await
    }

    async fn serve(manner: Manner, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner,
            options,
            heard: Mutex::default(),
            rings: watch::Sender::default(),
            said: AtomicUsize::default(),
            told: broadcast::Sender::new(64),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            _tasks: Arc::new(tasks),
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Tells every connection something that was not asked for.
    pub fn tell(&self, text: &str) {
        // Without a connection nobody is told.
        self.shared.told.send(text.to_owned()).unwrap_or_default();
    }

    /// What the clients have said: the connection and the command, without its tag.
    pub fn heard(&self) -> Vec<(usize, String)> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// How many bytes the first connection was told.
    pub fn said(&self) -> usize {
        self.shared.said.load(SeqCst)
    }

    /// How many such commands were heard on this connection, or on any.
    pub fn count(&self, connection: impl Into<Option<usize>>, command: &str) -> usize {
        let connection = connection.into();
        self.heard()
            .iter()
            .filter(|(on, said)| connection.is_none_or(|c| c == *on) && said.starts_with(command))
            .count()
    }

    /// Waits until a connection has said such a command `times` times. What is
    /// told then comes behind the answer.
    pub async fn wait_heard(&self, connection: usize, command: &str, times: usize) {
        let mut rings = self.shared.rings.subscribe();
        let heard = |(): &()| self.count(connection, command) >= times;
        let waited = tokio::time::timeout(super::PATIENCE, rings.wait_for(heard)).await;
        assert!(
            waited.is_ok(),
            "no {command} on {connection}: {:?}",
            self.heard()
        );
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    for number in 1.. {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve_one(stream, number, Arc::clone(&shared)));
    }
}

async fn serve_one(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let cut = shared.options.cut.filter(|_| number == 1);
    if cut.is_some_and(|cut| cut.reset) {
        stream.set_zero_linger().unwrap();
    }
    // The client may hang up first: that ends the conversation.
    match &shared.options.tls {
        None => talk(stream, number, cut, &shared).await.unwrap_or_default(),
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                talk(stream, number, cut, &shared).await.unwrap_or_default();
            }
        }
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    number: usize,
    cut: Option<Cut>,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut voice = Voice {
        stream: BufReader::new(stream),
        tag: String::new(),
        told: shared.told.subscribe(),
        left: cut.map(|cut| cut.after),
        number,
        shared,
    };
    voice.say(&shared.options.greeting).await?;
    match &shared.manner {
        Manner::Script(script) => {
            for (heard, answer) in script {
                while !voice.hear().await?.contains(heard) {}
                voice.say(answer).await?;
            }
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
        Manner::Answers(answer) => loop {
            let command = voice.hear().await?;
            voice.say(&answer(number, &command)).await?;
        },
    }
}

/// One connection: it ends with an error, for nothing comes behind it.
struct Voice<'a, S> {
    stream: BufReader<S>,
    tag: String,
    told: broadcast::Receiver<String>,
    /// How much may still be said.
    left: Option<usize>,
    number: usize,
    shared: &'a Shared,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Voice<'_, S> {
    /// The next command; meanwhile what all are told is said.
    async fn hear(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            tokio::select! {
                read = self.stream.read_until(b'\n', &mut line) => {
                    if read? == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Ok(text) = self.told.recv() => self.say(&text).await?,
            }
        }
        let line = String::from_utf8_lossy(&line);
        // DONE has no tag: it ends the command before it.
        let command = match line.trim_end().split_once(' ') {
            Some((tag, command)) => {
                tag.clone_into(&mut self.tag);
                command
            }
            None => line.trim_end(),
        };
        let heard = (self.number, command.to_owned());
        self.shared.heard.lock().unwrap().push(heard);
        self.shared.rings.send_replace(());
        Ok(command.to_owned())
    }

    async fn say(&mut self, text: &str) -> std::io::Result<()> {
        let today = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now());
        let today = today.date().strftime("%d-%b-%Y").to_string();
        let text = text.replace("TAG", &self.tag).replace("TODAY", &today);
        let (text, ends) = match text.strip_suffix("HANGUP") {
            Some(text) => (text, true),
            None => (text.as_str(), false),
        };
        let length = self.left.map_or(text.len(), |left| left.min(text.len()));
        self.stream.write_all(&text.as_bytes()[..length]).await?;
        self.stream.flush().await?;
        if self.number == 1 {
            self.shared.said.fetch_add(length, SeqCst);
        }
        self.left = self.left.map(|left| left - length);
        if ends || self.left == Some(0) {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}
