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
use support::dns::Dns;
use support::mail::{TokenMail, newsletter, token};
use support::trust;
use tokenwatch::judge::{Finding, judge};
use tokenwatch::notice;
use tokenwatch::sender::{Keys, Verdict};

/// The name of a bench, and the mail that it judges.
type Case = (&'static str, Vec<u8>);

/// Mails that cost no look-up, so that the future is ready at its first poll.
fn without_keys() -> Vec<Case> {
    let body = "lorem ipsum dolor sit amet\r\n".repeat(2200);
    let mut plain = newsletter(1);
    plain.extend(body.bytes());
    let listed = b"List-Unsubscribe: <https://example.org/u>\r\n";
    let html = format!(
        "From: news@example.org\r\nSubject: what is new\r\nContent-Type: text/html\r\n\r\n{}",
        "<p>lorem <b>ipsum</b> dolor &amp; <a href=\"https://example.org\">sit</a> amet</p>\r\n"
            .repeat(85)
            + &body
    );
    vec![
        (
            "a notice, proved by our receiver",
            TokenMail::new("mariana@idalko.com", &token(1), Timestamp::UNIX_EPOCH).bytes(),
        ),
        (
            "a newsletter of 60 KB, by its headers",
            [listed.as_slice(), &plain].concat(),
        ),
        ("a newsletter of 60 KB without such headers", plain),
        ("a newsletter of 60 KB in HTML", html.into_bytes()),
    ]
}

/// A file of the corpus.
fn corpus(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/eml");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Signed mails, their keys in the cache from the second time on.
fn with_keys() -> Vec<Case> {
    let mail = |name: &str| corpus(name).replace('\n', "\r\n").into_bytes();
    vec![
        ("signed, Ed25519", mail("genuine/dkim-ed25519.eml")),
        ("signed, RSA of 2048 bits", mail("genuine/plain-7bit.eml")),
        (
            "sealed twice, RSA of 2048 bits",
            mail("genuine/arc-two-sets-list-footer.eml"),
        ),
    ]
}

fn one_mail(criterion: &mut Criterion) {
    let dns = Dns::serving(&corpus("zone"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let keys = runtime.block_on(async { Keys::new(&[dns.address()]).unwrap() });
    let policy = trust::policy();
    let mut group = criterion.benchmark_group("judge");
    group.throughput(Throughput::Elements(1));
    for (name, mail) in without_keys() {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                judge(black_box(&mail), &policy, &keys)
                    .now_or_never()
                    .unwrap()
            });
        });
    }
    for (name, mail) in with_keys() {
        let judged = runtime.block_on(judge(&mail, &policy, &keys));
        assert!(
            matches!(judged.finding, Finding::Notice(_, Verdict::Trusted(_))),
            "{name}: {judged:?}"
        );
        group.bench_function(name, |bench| {
            bench.iter(|| runtime.block_on(judge(black_box(&mail), &policy, &keys)));
        });
    }
    let fields = b"From: News <news@example.org>\r\nSubject: what is new\r\n\r\n";
    group.bench_function("two header fields, as the server lists them", |bench| {
        bench.iter(|| {
            notice::worth_reading(black_box(fields), &policy.trust.senders, &policy.wordings)
        });
    });
    group.finish();
}

criterion_group!(benches, one_mail);
criterion_main!(benches);
