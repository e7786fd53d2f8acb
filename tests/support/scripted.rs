//! A server that says what no real one says on demand: it follows a script.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One line of a script: what is heard (a part of the command), and what is
/// answered; `TAG` in it is the command's tag and `TODAY` is today.
pub type Line = (&'static str, String);

/// The server. It greets, follows the script from its beginning on each
/// connection, and hangs up at its end.
pub struct Scripted {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// Answers one command by its text.
type Answering = Box<dyn Fn(&str) -> String + Send + Sync>;

/// How the server knows what to say.
enum Manner {
    Script(Vec<Line>),
    Answers(Answering),
}

impl Scripted {
    pub async fn start(script: Vec<Line>) -> Self {
        Self::serve(Manner::Script(script)).await
    }

    /// A server that answers each command by its text; `TAG` is its tag.
    pub async fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::serve(Manner::Answers(Box::new(answer))).await
    }

    async fn serve(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let manner = Arc::new(manner);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut conversations = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let manner = Arc::clone(&manner);
                conversations.spawn(async move {
                    let spoken = match &*manner {
                        Manner::Script(script) => follow(stream, script).await,
                        Manner::Answers(answer) => converse(stream, answer).await,
                    };
                    // The client may hang up first: that ends the conversation.
                    spoken.unwrap_or_default();
                });
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

async fn follow(stream: tokio::net::TcpStream, script: &[Line]) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream
        .write_all(b"* OK [CAPABILITY IMAP4rev1 IDLE] scripted\r\n")
        .await?;
    let mut tag = String::new();
    for (heard, answer) in script {
        let mut line = String::new();
        while !line.contains(heard) {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
        }
        // DONE has no tag: it ends the command before it.
        if let Some((first, _)) = line.split_once(' ') {
            first.clone_into(&mut tag);
        }
        stream.write_all(fill(answer, &tag).as_bytes()).await?;
    }
    Ok(())
}

async fn converse(stream: tokio::net::TcpStream, answer: &Answering) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream
        .write_all(b"* OK [CAPABILITY IMAP4rev1 IDLE ID] answering\r\n")
        .await?;
    let (mut line, mut tag) = (String::new(), String::new());
    while stream.read_line(&mut line).await? > 0 {
        // DONE has no tag: it ends the command before it.
        let command = match line.trim_end().split_once(' ') {
            Some((first, command)) => {
                first.clone_into(&mut tag);
                command
            }
            None => line.trim_end(),
        };
        let answer = fill(&answer(command), &tag);
        stream.write_all(answer.as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

fn fill(answer: &str, tag: &str) -> String {
    let today = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now());
    let today = today.date().strftime("%d-%b-%Y").to_string();
    answer.replace("TAG", tag).replace("TODAY", &today)
}
