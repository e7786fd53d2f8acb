//! The world of the corpus in `tests/eml`, as a policy: who is believed there.

use tokenwatch::judge::Policy;
use tokenwatch::notice::Wordings;
use tokenwatch::sender;

/// The default senders, our receiver, our forwarders, every kind of proof.
pub fn policy() -> Policy {
    let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect();
    Policy {
        trust: sender::Policy {
            senders: texts(&[
                "support@salesforce.com",
                "support@emea.salesforce.com",
                "noreply@salesforce.com",
            ]),
            dkim: true,
            receiver: true,
            sender_address: false,
            receivers: texts(&["mx.example.com"]),
            arc_sealers: texts(&["forwarder.example", "lists.example"]),
        },
        wordings: Wordings::default(),
        max_size: 256 * 1024,
    }
}
