//! The documents of SOAP 1.1: what is sent, and what is found in what comes back.
//!
//! An answer is looked at by local names, because the prefixes are the server's to choose, and by
//! where they stand, because a word anywhere else is not Salesforce's answer. A document type is
//! refused, so there are no entities but XML's own.

use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_xml_entity};
use quick_xml::events::{BytesRef, Event};
use zeroize::Zeroizing;

use super::Answer;
use crate::secret::Secret;

/// What an answer comes to.
pub(super) struct Reply {
    pub(super) answer: Answer,
    /// Salesforce's exception code, where there is one.
    pub(super) code: Option<Code>,
    /// The session that was opened, where one was.
    pub(super) session: Option<Session>,
}

/// A session, and the server that it is on.
pub(super) struct Session {
    pub(super) id: Secret,
    pub(super) server_url: String,
}

/// An exception code, which may be any text.
pub(super) struct Code(Zeroizing<String>);

impl Code {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The code for the log: a plain word that says nothing of what was sent.
    pub(super) fn shown(&self, sent: &Secret) -> &str {
        let is_plain = self.0.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        if is_plain && (1..=64).contains(&self.0.len()) && !sent.expose().contains(&**self.0) {
            &self.0
        } else {
            "(no plain word)"
        }
    }
}

/// The request that logs in.
pub(super) fn login(username: &str, password: &Secret) -> Zeroizing<String> {
    document(
        [
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
             <s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">\
             <s:Body><login xmlns=\"urn:partner.soap.sforce.com\"><username>",
            "</username><password>",
            "</password></login></s:Body></s:Envelope>",
        ],
        &[username, password.expose()],
    )
}

/// The request that ends a session.
pub(super) fn logout(session: &Secret) -> Zeroizing<String> {
    document(
        [
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
             <s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:p=\"urn:partner.soap.sforce.com\">\
             <s:Header><p:SessionHeader><p:sessionId>",
            "</p:sessionId></p:SessionHeader></s:Header><s:Body><p:logout/></s:Body></s:Envelope>",
        ],
        &[session.expose()],
    )
}

/// Markup with a text behind each piece but the last. The buffer never moves, so that wiping it
/// wipes every copy; so each character is escaped by itself.
fn document<const N: usize>(markup: [&str; N], texts: &[&str]) -> Zeroizing<String> {
    const LONGEST: usize = "&quot;".len();
    let length = |pieces: &[&str]| pieces.iter().map(|piece| piece.len()).sum::<usize>();
    let room = length(texts).saturating_mul(LONGEST);
    let room = room.saturating_add(length(&markup));
    let mut whole = Zeroizing::new(String::with_capacity(room));
    let mut texts = texts.iter();
    for piece in markup {
        whole.push_str(piece);
        for character in texts.next().into_iter().flat_map(|text| text.chars()) {
            whole.push_str(&escape(&*character.encode_utf8(&mut [0; 4])));
        }
    }
    whole
}

/// What an answer to a login comes to. Only a document that is whole counts.
pub(super) fn reply(status: u16, body: &[u8]) -> Reply {
    let found = std::str::from_utf8(body).ok().and_then(find);
    let found = found.unwrap_or_default();
    let session = found.session.filter(|id| !id.expose().is_empty());
    let answer = match (found.is_fault, found.is_login, status) {
        (true, false, _) => found.code.as_ref().map_or(Answer::Unknown, Answer::of),
        (false, true, 200) => match (found.expired, &session) {
            (Some(true), _) => Answer::PasswordExpired,
            (Some(false), Some(_)) => Answer::Works,
            (Some(false) | None, _) => Answer::Unknown,
        },
        (false, false, status) => Answer::of_status(status),
        (_, true, _) => Answer::Unknown,
    };
    Reply {
        answer,
        code: found.code,
        session: session
            .zip(found.server_url)
            .map(|(id, server_url)| Session { id, server_url }),
    }
}

/// What stands in a document.
#[derive(Default)]
struct Found {
    is_fault: bool,
    is_login: bool,
    code: Option<Code>,
    expired: Option<bool>,
    session: Option<Secret>,
    server_url: Option<String>,
}

/// The local names that mean something; any other is an empty word.
const NAMES: [&str; 10] = [
    "Envelope",
    "Body",
    "Fault",
    "detail",
    "exceptionCode",
    "loginResponse",
    "result",
    "passwordExpired",
    "sessionId",
    "serverUrl",
];

/// Goes through a document; `None` where it is no XML, is not whole, or says a thing twice.
fn find(document: &str) -> Option<Found> {
    let mut reader = Reader::from_str(document);
    reader.config_mut().expand_empty_elements = true;
    let mut found = Found::default();
    let mut path = Vec::new();
    // Any of the texts may be a secret; no text is longer than the document, and all of the buffer is
    // wiped at the end.
    let mut text = Zeroizing::new(String::with_capacity(document.len()));
    let mut is_over = false;
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) if !is_over => {
                let name = tag.local_name();
                let known = NAMES.iter().find(|known| **known == name.as_ref());
                path.push(known.copied().unwrap_or_default());
                found.enter(&path)?;
                text.clear();
            }
            Event::End(_) => {
                found.leave(&path, text.trim())?;
                text.clear();
                path.pop()?;
                is_over = path.is_empty();
            }
            Event::Text(part) if !path.is_empty() => text.push_str(&part),
            Event::Text(part) if part.trim().is_empty() => {}
            Event::CData(part) if !path.is_empty() => text.push_str(&part),
            Event::GeneralRef(reference) if !path.is_empty() => {
                push_reference(&mut text, &reference)?;
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return is_over.then_some(found),
            // What stands outside the one root, and a document type.
            Event::Start(_)
            | Event::Empty(_)
            | Event::Text(_)
            | Event::CData(_)
            | Event::GeneralRef(_)
            | Event::DocType(_) => return None,
        }
    }
}

fn push_reference(text: &mut String, reference: &BytesRef) -> Option<()> {
    match reference.resolve_char_ref().ok()? {
        Some(character) => text.push(character),
        None => text.push_str(resolve_xml_entity(reference)?),
    }
    Some(())
}

impl Found {
    fn enter(&mut self, path: &[&str]) -> Option<()> {
        match path {
            ["Envelope", "Body", "Fault"] => once(&mut self.is_fault),
            ["Envelope", "Body", "loginResponse"] => once(&mut self.is_login),
            _ => Some(()),
        }
    }

    fn leave(&mut self, path: &[&str], text: &str) -> Option<()> {
        match path {
            ["Envelope", "Body", "Fault", "detail", .., "exceptionCode"] => {
                let code = Code(Zeroizing::new(text.to_owned()));
                set(&mut self.code, code)
            }
            ["Envelope", "Body", "loginResponse", "result", name] => match *name {
                // The two ways to write each (XML Schema, part 2, section 3.2.2).
                "passwordExpired" => match text {
                    "true" | "1" => set(&mut self.expired, true),
                    "false" | "0" => set(&mut self.expired, false),
                    _ => None,
                },
                "sessionId" => set(&mut self.session, Secret::new(text.to_owned())),
                "serverUrl" => set(&mut self.server_url, text.to_owned()),
                _ => Some(()),
            },
            _ => Some(()),
        }
    }
}

fn once(said: &mut bool) -> Option<()> {
    (!std::mem::replace(said, true)).then_some(())
}

fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}
