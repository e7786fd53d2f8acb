//! Words from a configuration → a reader that never reads another token than
//! the one behind its label.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenwatch::notice::{Mail, Wording, Wordings, read};

const USERNAME: &str = "mariana@idalko.com";
const TOKEN: &str = "Efdli7MO6ISYJj5Jy3tSDc5";

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default().to_owned();
    let (username, token, subject) = (line(), line(), line());
    let wording = Wording {
        subject: (!subject.is_empty()).then_some(subject),
        username: username.clone(),
        token: token.clone(),
    };
    let Ok(wordings) = Wordings::new(&[wording]) else {
        return;
    };
    let mail = format!(
        "Subject: Your new Salesforce security token\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n\
         {username}: {USERNAME}\r\n{token}: {TOKEN}\r\n"
    );
    let mail = Mail::parse(mail.as_bytes(), &wordings);
    if let Ok(reading) = read(&mail, &wordings) {
        assert_eq!(reading.notice.username.as_str(), USERNAME);
        assert_eq!(reading.notice.token.expose(), TOKEN);
    }
});
