//! The value of an `Authentication-Results` field → trusted or not.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokenwatch::judge::{Finding, Policy};
use tokenwatch::sender::Verdict;
use tokenwatch_fuzz::{WORLD, policy};

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let mut policy = policy();
    policy.trust.receiver = true;
    policy.trust.dkim = false;
    policy.trust.arc_sealers.clear();
    policy
});

fuzz_target!(|value: &[u8]| {
    // One field only: a line end must be followed by a blank.
    let value: Vec<u8> = value
        .iter()
        .filter(|b| **b != b'\r')
        .flat_map(|b| {
            if *b == b'\n' {
                b"\r\n ".to_vec()
            } else {
                vec![*b]
            }
        })
        .collect();
    let mut mail = b"Authentication-Results: ".to_vec();
    mail.extend(&value);
    mail.extend_from_slice(
        b"\r\nFrom: support@salesforce.com\r\n\
        Subject: Your new Salesforce security token\r\n\r\n\
        Username: a@b.co\r\nSecurity token: Efdli7MO6ISYJj5Jy3tSDc5\r\n",
    );
    let judgement = WORLD.judge(&mail, &POLICY);
    if let Finding::Notice(_, Verdict::Trusted(proof)) = &judgement.finding {
        // Without these words it says nothing that could be a pass.
        let said = String::from_utf8(value).unwrap().to_lowercase();
        for word in ["mx.example.com", "pass", "=", ";", "header."] {
            assert!(said.contains(word), "{proof:?} without {word}: {said:?}");
        }
        assert!(said.contains("dkim") || said.contains("dmarc"), "{said:?}");
        assert!(said.contains("salesforce.com"), "{said:?}");
    }
});
