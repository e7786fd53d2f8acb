//! What one mail costs, without the network: `cargo bench --bench judge`

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench fails by a panic; criterion's macros make undocumented items"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt;
use jiff::Timestamp;
use support::mail::{RECEIVER, TokenMail, newsletter, token};
use tokenwatch::judge::{Policy, judge};
use tokenwatch::notice::{self, Mail, Wordings};
use tokenwatch::sender::{self, Keys};

fn policy() -> Policy {
    Policy {
        trust: sender::Policy {
            senders: vec!["support@salesforce.com".into()],
            dkim: true,
            receiver: true,
            sender_address: false,
            receivers: vec![RECEIVER.into()],
            arc_sealers: Vec::new(),
        },
        wordings: Wordings::default(),
        max_size: 256 * 1024,
    }
}

fn one_mail(criterion: &mut Criterion) {
    let keys = Keys::new(&["127.0.0.1:9".parse().unwrap()]).unwrap();
    let policy = policy();
    let genuine = TokenMail::new("mariana@idalko.com", &token(1), Timestamp::UNIX_EPOCH).bytes();
    let fields = b"From: News <news@example.org>\r\nSubject: what is new\r\n\r\n";
    let mut large = newsletter(1);
    large.extend("lorem ipsum dolor sit amet\r\n".repeat(2200).into_bytes());

    let mut group = criterion.benchmark_group("judge");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a notice, proved by our receiver", |bench| {
        // No DNS is asked, so the future is ready at its first poll.
        bench.iter(|| {
            judge(black_box(&genuine), &policy, &keys)
                .now_or_never()
                .unwrap()
        });
    });
    group.bench_function("a notice, read only", |bench| {
        bench.iter(|| {
            let mail = Mail::parse(black_box(&genuine), &policy.wordings);
            notice::read(&mail, &policy.wordings).unwrap()
        });
    });
    group.bench_function("a newsletter of 60 KB", |bench| {
        bench.iter(|| {
            judge(black_box(&large), &policy, &keys)
                .now_or_never()
                .unwrap()
        });
    });
    group.bench_function("a newsletter, by its fields", |bench| {
        bench.iter(|| notice::worth_reading(black_box(fields), &policy.trust.senders));
    });
    group.finish();
}

criterion_group!(benches, one_mail);
criterion_main!(benches);
