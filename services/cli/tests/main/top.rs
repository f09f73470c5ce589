//! `roomcast top` over a running system, piped and on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::system::{Dev, ROOMCAST, complaint, eventually, repository, roomcast};

fn policy() -> String {
    let path = repository().join("deploy/scenarios/bookings/policy.yaml");
    path.to_str().unwrap().to_owned()
}

/// A pseudo-terminal: our end and the program's.
fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize {
        ws_row: 40,
        ws_col: 160,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (File::from(ours), theirs)
}

#[test]
fn it_shows_every_service_piped_and_on_a_terminal() {
    let Some(dev) = Dev::start(&["--policy", &policy(), "--gateways", "2"]) else {
        return;
    };
    let folder = dev.folder.path();
    let gateways: Vec<&str> = ["gateway", "ingest"]
        .iter()
        .flat_map(|service| dev.ready["admin"][service].as_array().unwrap())
        .map(|url| url.as_str().unwrap().trim_start_matches("http://"))
        .collect();
    assert_eq!(gateways.len(), 3, "{}", dev.ready);

    let output = roomcast(folder, &["top", "--once", "--every", "500ms"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    assert!(
        shown.starts_with(
            "Roomcast · 2 gateways · 1 ingest · 0 aggregators · 0 clients, 0 slow · rates over 0."
        ),
        "{shown}"
    );
    for address in &gateways {
        let line = shown.lines().find(|line| line.starts_with(address));
        assert!(
            line.is_some_and(|line| line.contains("ready")),
            "{address}: {shown}"
        );
    }
    assert!(!shown.contains('\x1b'), "{shown}");

    // One of them gone is a line, not the end.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let some = format!("http://{gone},http://{}", gateways[0]);
    let output = roomcast(folder, &["top", "--once", "--every", "500ms", "--admin", &some]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && shown.contains("refused") && shown.contains("1 gateway "),
        "{shown}"
    );
    // Nobody there, or no entry, is.
    let output = roomcast(folder, &["top", "--once", "--admin", &format!("http://{gone}")]);
    assert_eq!(output.status.code(), Some(69));
    let output = Command::new(ROOMCAST)
        .current_dir(folder)
        .args(["top", "--once"])
        .env("ROOMCAST_ADMIN_TOKEN", "no.such.token")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(complaint(&output).contains("401"), "{}", complaint(&output));

    on_a_terminal(folder);
}

fn on_a_terminal(folder: &std::path::Path) {
    let (mut ours, theirs) = terminal();
    let before = tcgetattr(&theirs).unwrap().local_modes;
    assert!(before.contains(LocalModes::ECHO | LocalModes::ISIG));
    let mut child = Command::new(ROOMCAST)
        .current_dir(folder)
        .args(["top", "--every", "500ms"])
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .stdin(Stdio::from(theirs.try_clone().unwrap()))
        .stdout(Stdio::from(theirs.try_clone().unwrap()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (send, chunks) = channel();
    let mut reading = ours.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(read) = reading.read(&mut chunk) {
            if read == 0 || send.send(chunk[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut shown = String::new();
    let mut see = |what: &str| {
        eventually(what, || {
            chunks
                .try_iter()
                .for_each(|chunk| shown.push_str(&String::from_utf8_lossy(&chunk)));
            shown.contains(what)
        });
    };
    see("2 gateways");
    // The second look has rates.
    see("rates over");
    // Neither is a key shown, nor does one stop or kill it.
    let modes = tcgetattr(&theirs).unwrap().local_modes;
    assert!(
        !modes.intersects(LocalModes::ECHO | LocalModes::ISIG),
        "{modes:?}"
    );
    ours.write_all(b"\x1b[A\x1a\x1cq").unwrap();
    eventually("q ends it", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // The page before is back, and so is the terminal.
    see("\x1b[?1049l");
    assert!(shown.starts_with("\x1b[?1049h"), "{shown:?}");
    assert_eq!(tcgetattr(&theirs).unwrap().local_modes, before);
}
