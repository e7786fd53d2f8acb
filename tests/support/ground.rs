//! Where a real server of the tests lives: a temporary folder that belongs to an unprivileged
//! user, and what it takes to run programs there.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::{fs::chown, process::CommandExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::authority::Certified;

pub struct Ground {
    folder: TempDir,
    user: String,
    /// User and group of the folder and of all processes.
    ids: [u32; 2],
}

impl Ground {
    /// An empty folder. Mail servers serve no mail as root: root becomes `nobody`, and everybody
    /// else stays who they are and takes the same path.
    pub fn new(prefix: &str) -> Self {
        // The usual folder for temporary files may have a long name, and the path of a Unix socket
        // has to do with about a hundred bytes.
        let folder = TempDir::with_prefix_in(prefix, "/tmp").unwrap();
        let me = id(&["-un"]);
        let user = if me == "root" { "nobody".into() } else { me };
        let ground = Self {
            folder,
            ids: ["-u", "-g"].map(|which| id(&[which, &user]).parse().unwrap()),
            user,
        };
        ground.own("");
        ground
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn group(&self) -> String {
        id(&["-gn", &self.user])
    }

    pub fn ids(&self) -> [u32; 2] {
        self.ids
    }

    /// Gives a file to the user.
    pub fn own(&self, name: &str) {
        let [uid, gid] = self.ids.map(Some);
        chown(self.path(name), uid, gid).unwrap();
    }

    /// Makes folders, with those that they lie in.
    pub fn folders(&self, names: &[&str]) {
        for name in names {
            let mut made = String::new();
            for part in name.split('/') {
                made = made + part + "/";
                fs::create_dir_all(self.path(&made)).unwrap();
                self.own(&made);
            }
        }
    }

    /// Makes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> File {
        let mut file = File::create_new(self.path(name)).unwrap();
        file.write_all(content.as_ref()).unwrap();
        self.own(name);
        file
    }

    /// Makes an authority in `ca.pem`, and a certificate of the server signed by it.
    pub fn certify(&self) {
        let certified = Certified::new(None);
        self.write("ca.pem", certified.authority);
        self.write("server.pem", certified.certificate);
        self.write("server.key", certified.key);
    }

    /// A program, run as the user and in the folder.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        // The programs of servers are not on everybody's search path.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
        command.uid(self.ids[0]).gid(self.ids[1]);
        command.current_dir(self.folder());
        command
    }
}

/// A port of loopback that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    free.unwrap().port()
}

/// The processes under another with such a name.
pub fn children(parent: u32, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = children.unwrap_or_default();
    let named = |child: &&str| {
        // One that has ended meanwhile has no name.
        let name = fs::read_to_string(format!("/proc/{child}/comm"));
        name.is_ok_and(|name| wanted(name.trim_end()))
    };
    let children = children.split_whitespace().filter(named);
    children.map(str::to_owned).collect()
}

/// Sends a signal: the standard library knows only the one that nobody can answer. Failure says
/// that a process has ended meanwhile, which is as good.
pub fn signal(name: &str, pids: &[String]) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill \"$@\"", "sh", name]).args(pids);
    kill.stderr(Stdio::null()).status().unwrap();
}

/// What `id` says of a user, which the standard library cannot ask for.
pub fn id(arguments: &[&str]) -> String {
    let output = Command::new("id").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
