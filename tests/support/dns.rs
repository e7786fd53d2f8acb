//! A DNS server for DKIM keys: UDP, TXT records, and the ways to fail.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

/// What the server answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// The record, or NXDOMAIN.
    Well,
    /// SERVFAIL to everything.
    Servfail,
}

/// The server; it ends with the test process.
pub struct Dns {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    mood: Mood,
    records: HashMap<String, String>,
    failing: HashSet<String>,
    asked: usize,
}

impl Dns {
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            mood: Mood::Well,
            records: HashMap::new(),
            failing: HashSet::new(),
            asked: 0,
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = answer(&buffer[..length], &mut shared.lock().unwrap()) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Self { address, state }
    }

    /// A server of this zone: a name and its record, or SERVFAIL, a line.
    pub fn serving(zone: &str) -> Self {
        let dns = Self::start();
        for line in zone.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once(' ').unwrap() {
                (name, "SERVFAIL") => dns.fail(name),
                (name, record) => dns.publish(name, record),
            }
        }
        dns
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// `name` without a dot at its end.
    pub fn publish(&self, name: &str, text: &str) {
        let mut state = self.state.lock().unwrap();
        state.records.insert(name.to_lowercase(), text.to_owned());
    }

    /// SERVFAIL to this name.
    pub fn fail(&self, name: &str) {
        self.state
            .lock()
            .unwrap()
            .failing
            .insert(name.to_lowercase());
    }

    pub fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }
}

/// RFC 1035, section 4: the header, the question, one answer.
fn answer(query: &[u8], state: &mut State) -> Option<Vec<u8>> {
    state.asked += 1;
    let (mut name, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let question = query.get(12..at + 4)?;
    let is_txt = question[question.len() - 4..question.len() - 2] == [0, 16];
    let name = name.join(".");
    let record = state.records.get(&name);
    let (code, record) = match (state.mood, record) {
        (Mood::Servfail, _) => (2, None),
        _ if state.failing.contains(&name) => (2, None),
        (Mood::Well, None) => (3, None),
        (Mood::Well, Some(record)) => (0, is_txt.then_some(record)),
    };
    let mut out = query.get(..2)?.to_vec();
    let answers = u8::from(record.is_some());
    out.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    out.extend(question);
    if let Some(record) = record {
        let mut data = Vec::new();
        for part in record.as_bytes().chunks(255) {
            data.push(u8::try_from(part.len()).unwrap());
            data.extend(part);
        }
        // The name by reference, TXT, IN, a minute to live.
        out.extend([0xC0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
    Some(out)
}
