//! The answer to a login → what it means, and "works" only where it says so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenwatch::salesforce::{Answer, read};

const STATUSES: [u16; 6] = [200, 302, 429, 500, 502, 503];

fuzz_target!(|body: &[u8]| {
    for status in STATUSES {
        match read(status, body) {
            Answer::Works | Answer::PasswordExpired => {
                assert_eq!(status, 200);
                // Names cannot be written in any other way.
                let said = std::str::from_utf8(body).unwrap();
                for word in [
                    "Envelope",
                    "Body",
                    "loginResponse",
                    "result",
                    "passwordExpired",
                ] {
                    assert!(said.contains(word), "without {word}: {said:?}");
                }
            }
            Answer::Refused | Answer::Locked | Answer::Restricted | Answer::NotAvailable => {
                let said = std::str::from_utf8(body).unwrap();
                for word in ["Envelope", "Body", "Fault", "detail", "exceptionCode"] {
                    assert!(said.contains(word), "without {word}: {said:?}");
                }
            }
            Answer::RateLimited | Answer::Unreachable | Answer::Unknown => {}
        }
    }
});
