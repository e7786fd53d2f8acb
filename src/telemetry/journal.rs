//! The journal, by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).
//!
//! Every field of an event is a field of the journal, `TOKENWATCH_` before its
//! name, so that a script can match it. The message is the event's own and
//! behind it the fields once more, for `journalctl` and `systemctl status`
//! show nothing else, and "the mailbox is not watched" without its reason helps
//! nobody at night. The crate made for this cannot do the second.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

const SOCKET: &str = "/run/systemd/journal/socket";

/// No value is longer, in bytes, nor is the message: a datagram has to fit into
/// the socket's buffer, some 200 KB, or it is refused.
const MAX_VALUE: usize = 8 * 1024;

/// The layer.
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// The journal, if it is there. Each entry is sent to its name anew, for a
    /// journald that was restarted listens on another socket.
    pub(super) fn new() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.send_to(&[], SOCKET)?;
        Ok(Self { socket })
    }
}

/// The fields of a span or an event, in order.
#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = cut(format!("{value:?}"));
        if field.name() == "message" {
            self.message = text;
        } else {
            self.rest.push((field.name(), text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.rest.extend(outer.rest.iter().cloned());
            }
        }
        let entry = entry(*event.metadata().level(), &fields);
        // A log that cannot be written has nowhere to say so.
        self.socket.send_to(&entry, SOCKET).unwrap_or_default();
    }
}

fn entry(level: Level, fields: &Fields) -> Vec<u8> {
    // syslog(3)
    let priority = match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    };
    let mut message = fields.message.clone();
    for (name, value) in fields.rest.iter().filter(|(name, _)| *name != "event") {
        // Writing to a String cannot fail.
        write!(message, " {name}={value}").unwrap_or_default();
    }
    let mut entry = Vec::with_capacity(512);
    put(&mut entry, "PRIORITY", priority);
    put(&mut entry, "SYSLOG_IDENTIFIER", "tokenwatch");
    put(&mut entry, "MESSAGE", &cut(message));
    for (name, value) in &fields.rest {
        let name: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        put(&mut entry, &format!("TOKENWATCH_{name}"), value);
    }
    entry
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_VALUE {
        let end = (0..=MAX_VALUE).rev().find(|n| text.is_char_boundary(*n));
        text.truncate(end.unwrap_or_default());
    }
    text
}

/// One field, its length in front of it, so that a line end in it ends nothing.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend(name.as_bytes());
    entry.push(b'\n');
    entry.extend(u64::try_from(value.len()).unwrap_or_default().to_le_bytes());
    entry.extend(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_fields_and_a_message_that_tells_all() {
        let fields = Fields {
            message: "it is so".into(),
            rest: vec![
                ("event", "a.b".into()),
                ("retry_in", "3\nPRIORITY=0".into()),
            ],
        };
        let entry = entry(Level::WARN, &fields);
        let text = String::from_utf8_lossy(&entry);
        for part in [
            "PRIORITY\n\u{1}\0\0\0\0\0\0\u{0}4\n",
            "MESSAGE\n\u{1e}\0\0\0\0\0\0\0it is so retry_in=3\nPRIORITY=0\n",
            "TOKENWATCH_EVENT\n\u{3}\0\0\0\0\0\0\0a.b\n",
            "TOKENWATCH_RETRY_IN\n\u{c}\0\0\0\0\0\0\u{0}3\nPRIORITY=0\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text:?}");
        }
    }
}
