//! The bytes of a mail → a judgement.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokenwatch::judge::Policy;
use tokenwatch_fuzz::{WORLD, policy};

static POLICY: LazyLock<Policy> = LazyLock::new(policy);

fuzz_target!(|mail: &[u8]| {
    let judgement = WORLD.judge(mail, &POLICY);
    WORLD.trusts_only_what_was_signed(&judgement);
});
