//! What Salesforce has said is not lost, and what `status` says of it leads on: the real binary,
//! and a Salesforce whose answers the test holds back.

use crate::checking::{Rig, account, checked, problem};
use crate::process::Daemon;
use crate::support::mail::token;
use crate::support::salesforce::{Order, Salesforce};

const USER: &str = "mariana@idalko.com";
const PASSWORD: &str = "sf-Pass word";

fn composite(password: &str, seed: u64) -> Option<String> {
    Some(format!("{password}{}", token(seed)))
}

/// An account whose password is known, and a Salesforce that takes its first token.
async fn rig() -> (Salesforce, Rig) {
    let salesforce = Salesforce::start().await;
    salesforce.set(USER, PASSWORD, &token(1));
    let rig = Rig::new(&checked(USER, salesforce.url(), "")).await;
    rig.set_password(USER, PASSWORD);
    rig.deliver(USER, &token(1), 30);
    (salesforce, rig)
}

/// Puts the state folder away, or back.
fn put(rig: &Rig, is_there: bool) {
    let state = rig.machine.state_dir();
    let away = state.with_extension("away");
    let (from, to) = if is_there {
        (&away, &state)
    } else {
        (&state, &away)
    };
    std::fs::rename(from, to).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_published_before_anybody_logs_out() {
    let (salesforce, rig) = rig().await;
    salesforce.stall_logouts();
    let daemon = rig.machine.daemon();
    salesforce.wait_for_a_stalled_logout().await;
    assert_eq!(rig.machine.credential(USER), composite(PASSWORD, 1));
    daemon.kill();
    let daemon = rig.machine.daemon();
    let status = rig
        .machine
        .wait_status(|status| status["state"] == "healthy");
    assert_eq!(account(&status, USER)["verified"], true);
    assert_eq!(rig.machine.credential(USER), composite(PASSWORD, 1));
    assert!(daemon.stop().0.success());
    assert_eq!(salesforce.attempts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_down_is_written_later_and_the_session_is_closed() {
    for works in [true, false] {
        let (salesforce, rig) = rig().await;
        salesforce.order(Order::Hold);
        if !works {
            rig.set_password(USER, "wrong");
        }
        let daemon = rig.machine.daemon();
        salesforce.wait_for_attempts(1).await;
        put(&rig, false);
        salesforce.let_go();
        let answer = if works { "works" } else { "refused" };
        let line = daemon.wait_for("salesforce.unwritten", |line| line["answer"] == answer);
        assert_eq!(line["level"], "ERROR");
        daemon.wait_for_nth("salesforce.unwritten", 2, |_| true);
        put(&rig, true);
        let (event, state) = if works {
            ("credential.verified", "current")
        } else {
            ("credential.refused", "login-refused")
        };
        daemon.wait_for(event, |line| line["username"] == USER);
        let status = rig.machine.wait_status(|status| {
            let mut problems = status["problems"].as_array().unwrap().iter();
            problems.all(|problem| problem["code"] == "login-refused")
        });
        assert_eq!(account(&status, USER)["state"], state);
        let opened = usize::from(works);
        assert_eq!(salesforce.sessions(), [opened, opened, 0]);
        assert!(daemon.stop().0.success());
        assert_eq!(salesforce.attempts().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_by_itself_tries_to_write_it_down_and_says_that_it_could_not() {
    for mends in [true, false] {
        let (salesforce, rig) = rig().await;
        salesforce.order(Order::Hold);
        let command = ["--log-format", "json", "run", "--once"];
        let mut run = Daemon::start(rig.machine.command(&command));
        salesforce.wait_for_attempts(1).await;
        put(&rig, false);
        salesforce.let_go();
        run.wait_for("salesforce.unwritten", |_| true);
        if mends {
            put(&rig, true);
        } else {
            run.wait_for_nth("salesforce.unwritten", 2, |_| true);
        }
        let code = run.wait().code();
        if mends {
            assert_eq!(code, Some(0));
        } else {
            put(&rig, true);
            assert_eq!(code, Some(69), "{}", run.log());
            assert!(run.log().contains("1 credential could not be checked"));
        }
        let known = mends.then(|| composite(PASSWORD, 1)).flatten();
        assert_eq!(rig.machine.credential(USER), known);
        assert_eq!(salesforce.attempts().len(), 1);
    }
}

/// Its certificates are not there, which is nothing that the network has done.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_which_nobody_can_log_in_is_named_and_goes_on_when_it_is_mended() {
    let salesforce = Salesforce::start_tls().await;
    salesforce.set(USER, PASSWORD, &token(1));
    let more = "ca-file = \"FOLDER/later.pem\"";
    let rig = Rig::new(&checked(USER, salesforce.url(), more)).await;
    rig.set_password(USER, PASSWORD);
    rig.deliver(USER, &token(1), 30);
    let daemon = rig.machine.daemon();
    daemon.wait_for("salesforce.unusable", |line| {
        line["error"].as_str().unwrap().contains("later.pem")
    });
    let status = rig
        .machine
        .wait_status(|status| problem(status, USER).is_some());
    assert_eq!(account(&status, USER)["state"], "checking");
    assert_eq!(account(&status, USER)["answer"], "not-made");
    let problem = problem(&status, USER).unwrap();
    assert_eq!(problem["code"], "login-unchecked");
    let said = format!("{} {}", problem["title"], problem["hint"]);
    assert!(
        said.contains("configured") && said.contains("ca-file") && !said.contains("reached"),
        "{said}"
    );
    let file = rig.machine.folder.path().join("later.pem");
    std::fs::write(file, salesforce.ca_pem()).unwrap();
    daemon.wait_for("credential.verified", |_| true);
    assert_eq!(rig.machine.credential(USER), composite(PASSWORD, 1));
    assert_eq!(salesforce.attempts().len(), 1);
}

/// Unlocking the user is not enough, for the pair is not tried again: the hint says what is.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_lock_out_the_hint_leads_to_a_credential_that_works() {
    for resets in [true, false] {
        let (salesforce, rig) = rig().await;
        salesforce.order(Order::Fault("PASSWORD_LOCKOUT"));
        let daemon = rig.machine.daemon();
        daemon.wait_for("credential.refused", |line| line["answer"] == "locked");
        let status = rig.machine.status();
        assert_eq!(account(&status, USER)["state"], "login-refused");
        let hint = problem(&status, USER).unwrap()["hint"].as_str().unwrap();
        let set = format!("`tokenwatch secret set account/{USER}`");
        for part in ["unlock", "reset the security token", "password", &set] {
            assert!(hint.contains(part), "{part}: {hint}");
        }
        // Salesforce takes the pair again, and nobody asks it.
        rig.set_password(USER, PASSWORD);
        assert!(hint.contains("not tried together again"), "{hint}");
        let status = rig.machine.status();
        assert_eq!(account(&status, USER)["state"], "login-refused");

        let (password, seed) = if resets { (PASSWORD, 2) } else { ("newer", 1) };
        salesforce.set(USER, password, &token(seed));
        if resets {
            rig.deliver(USER, &token(seed), 0);
        } else {
            rig.set_password(USER, password);
        }
        daemon.wait_for("credential.verified", |_| true);
        let status = rig
            .machine
            .wait_status(|status| status["state"] == "healthy");
        assert_eq!(account(&status, USER)["state"], "current");
        assert_eq!(rig.machine.credential(USER), composite(password, seed));
        assert_eq!(salesforce.attempts().len(), 2);
    }
}
