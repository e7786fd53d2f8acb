//! A network of the test's own that fails when it is told to.
//!
//! Two network namespaces and a line between them: the test and its server are at one end, the
//! daemon at the other. They are made without a name and end with the processes in them; the
//! machine's own network is neither used nor changed. Root makes them as they are, everybody else
//! within a user namespace. Packets are lost at the end where they arrive, so neither end is told.
//!
//! Deliberately absent: `tc netem`, which not every kernel has. A narrow line delays as well.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use crate::support::ground::id;

/// Says to a process that it is the test within the namespace.
const WITHIN: &str = "TOKENWATCH_TEST_NETWORK";

/// The address of this end.
pub const HERE: Ipv4Addr = Ipv4Addr::new(10, 87, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 87, 0, 2);

/// The line.
pub struct Network {
    /// Holds the namespace of the other end; it ends when its input does.
    there: Child,
}

impl Network {
    /// Runs the calling test once more, within a network of its own: there it gets the line, and
    /// here it gets nothing, after that one has passed. The name is the test's whole name.
    pub fn enter(test: &str) -> Option<Self> {
        if std::env::var_os(WITHIN).is_some() {
            return Some(Self::new());
        }
        let mut again = Command::new("unshare");
        let user: &[_] = match id(&["-u"]).as_str() {
            "0" => &[],
            _ => &["--user", "--map-root-user"],
        };
        again.args(user).arg("--net");
        again.arg(std::env::current_exe().unwrap());
        again
            .args(["--exact", test, "--nocapture"])
            .env(WITHIN, "1");
        let output = again.output().expect("unshare (Debian: util-linux)");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        // A name that is no test's would run none, and pass.
        let passed = output.status.success() && told.contains("1 passed");
        assert!(
            passed,
            "{test}, which needs to make a network namespace:\n{told}"
        );
        None
    }

    fn new() -> Self {
        let mut there = Command::new("unshare");
        there.args(["--net", "sh", "-c", "echo; exec cat"]);
        let there = there.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut there = there.spawn().unwrap();
        // It has a namespace of its own when it speaks.
        let mut line = String::new();
        let mut spoken = BufReader::new(there.stdout.take().unwrap());
        spoken.read_line(&mut line).unwrap();
        let network = Self { there };
        let pid = network.there.id().to_string();
        let here = |command: &str| must(&mut Command::new("ip"), command);
        let there = |command: &str| must(&mut network.within("ip"), command);
        here(&format!("link add tw0 type veth peer name tw1 netns {pid}"));
        here(&format!("address add {HERE}/24 dev tw0"));
        there(&format!("address add {THERE}/24 dev tw1"));
        here("link set lo up");
        here("link set tw0 up");
        there("link set tw1 up");
        network
    }

    /// The same command at the other end of the line, with its arguments and its environment and
    /// nothing of ours.
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = self.within(command.get_program().to_str().unwrap());
        inside.args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            inside.env(name, value.unwrap());
        }
        inside
    }

    /// Drops every packet in both directions, without a word to anybody.
    pub fn drop_packets(&self) {
        self.filter("counter drop");
    }

    /// Takes the way to this end from the other: there, nothing can be sent.
    pub fn unreachable(&self) {
        must(&mut self.within("ip"), "link set tw1 down");
    }

    /// Makes the line narrow, in thousands of bits a second, and has it lose one packet in so many.
    pub fn slow(&self, kbit: u32, one_in: u32) {
        let narrow = format!("root tbf rate {kbit}kbit burst 2000 latency 2s");
        must(
            &mut Command::new("tc"),
            &format!("qdisc replace dev tw0 {narrow}"),
        );
        must(
            &mut self.within("tc"),
            &format!("qdisc replace dev tw1 {narrow}"),
        );
        self.filter(&format!("numgen inc mod {one_in} 0 counter drop"));
    }

    /// Mends the line.
    pub fn restore(&self) {
        self.filter("accept");
        must(&mut self.within("ip"), "link set tw1 up");
        for (mut tc, end) in [(Command::new("tc"), "tw0"), (self.within("tc"), "tw1")] {
            // Without a queue of ours there is nothing to delete.
            let tc = tc.args(["qdisc", "del", "dev", end, "root"]);
            tc.stderr(Stdio::null()).status().unwrap();
        }
    }

    /// How many packets were dropped since the line was made so, in both directions.
    pub fn dropped(&self) -> u64 {
        let ends = [Command::new("nft"), self.within("nft")];
        let counts = ends.map(|mut nft| {
            let output = nft.args(["list", "table", "ip", "line"]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let (_, count) = text.split_once("counter packets ").expect("a counter");
            let count = count.split_whitespace().next().unwrap();
            count.parse::<u64>().unwrap()
        });
        counts.iter().sum()
    }

    /// Puts this rule, alone, upon what arrives at either end.
    fn filter(&self, rule: &str) {
        let rules = format!(
            "table ip line\ndelete table ip line\ntable ip line {{\nchain arriving {{\n\
             type filter hook prerouting priority raw\niifname {{ tw0, tw1 }} {rule}\n}}\n}}\n"
        );
        for mut nft in [Command::new("nft"), self.within("nft")] {
            let nft = nft.args(["-f", "-"]).stdin(Stdio::piped());
            let mut nft = nft.spawn().expect("nft (Debian: nftables)");
            let mut input = nft.stdin.take().unwrap();
            input.write_all(rules.as_bytes()).unwrap();
            drop(input);
            assert!(nft.wait().unwrap().success(), "nft: {rule}");
        }
    }

    /// A program at the other end of the line.
    fn within(&self, program: &str) -> Command {
        let pid = self.there.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--net", "--", program]);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.there.stdin.take());
        self.there.wait().unwrap();
    }
}

/// Runs a command that must succeed, with these words for arguments.
fn must(command: &mut Command, words: &str) {
    let output = command.args(words.split(' ')).output();
    let output = output.expect("ip and tc (Debian: iproute2)");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}
