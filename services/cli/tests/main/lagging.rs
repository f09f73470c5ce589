//! A replica that has less than its leader, as commands meet it that read a stream to its end: no part is taken for the whole.
//!
//! Real replicas lag for milliseconds that no test can choose, so here a server of our own speaks as much of NATS as is asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::system::{ROOMCAST, complaint};

/// One stream, as its leader and its only answering replica have it.
struct Stream {
    subject: &'static str,
    /// Messages by position, from 1.
    messages: Vec<String>,
    /// Messages that were taken out at the end.
    taken_out: usize,
    /// The replica has so many, until it was asked in vain so often.
    replica_has: usize,
    in_vain: AtomicU32,
    stored_at: String,
}

impl Stream {
    /// Answers one request: each answer is its header block and its body.
    fn answer(&self, subject: &str, request: &Value) -> Vec<(String, String)> {
        let from = usize::try_from(request["seq"].as_u64().unwrap_or(1)).unwrap();
        let call = |answer: Value| vec![(String::new(), answer.to_string())];
        if subject.contains(".STREAM.INFO.") {
            let last = self.messages.len() + self.taken_out;
            let state = json!({
                "messages": self.messages.len(), "bytes": 1, "first_seq": 1, "last_seq": last, "first_ts": self.stored_at,
            });
            return call(json!({ "config": {}, "created": self.stored_at, "state": state }));
        }
        if subject.contains(".STREAM.MSG.GET.") {
            return call(match self.messages.get(from - 1) {
                Some(message) => json!({ "message": {
                    "subject": self.subject, "seq": from, "data": STANDARD.encode(message), "time": self.stored_at,
                }}),
                None => {
                    json!({ "error": { "code": 404, "err_code": 10_037, "description": "no message found" } })
                }
            });
        }
        assert!(subject.contains(".DIRECT.GET."), "{subject}");
        let has = match self.in_vain.load(Ordering::Relaxed) {
            0 => self.messages.len(),
            _ => self.replica_has,
        };
        if from > has {
            let count = |left: u32| Some(left.saturating_sub(1));
            let _ = self
                .in_vain
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
            return vec![("NATS/1.0 404 Message Not Found\r\n\r\n".to_owned(), String::new())];
        }
        let message = |position: usize| {
            let before = if position == from { 0 } else { position - 1 };
            let headers = format!(
                "NATS/1.0\r\nNats-Stream: S\r\nNats-Subject: {}\r\nNats-Sequence: {position}\r\nNats-Time-Stamp: {}\r\n\
                 Nats-Last-Sequence: {before}\r\n\r\n",
                self.subject, self.stored_at
            );
            (headers, self.messages[position - 1].clone())
        };
        let end = format!("NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: {has}\r\n\r\n");
        (from..=has).map(message).chain([(end, String::new())]).collect()
    }

    /// Serves it; answers with the address.
    fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let stream = Arc::new(self);
            for socket in listener.incoming() {
                let stream = Arc::clone(&stream);
                std::thread::spawn(move || stream.speak(&socket.unwrap()));
            }
        });
        format!("nats://{address}")
    }

    /// One connection, until the other side ends it.
    fn speak(&self, socket: &TcpStream) -> Option<()> {
        let mut write = socket;
        let information = json!({ "server_id": "s", "version": "2.15.1", "headers": true, "max_payload": 1 << 20, "proto": 1 });
        write!(write, "INFO {information}\r\n").ok()?;
        let mut read = BufReader::new(socket);
        let mut subscriptions: Vec<(String, String)> = Vec::new();
        loop {
            let mut line = String::new();
            if read.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["PING"] => write.write_all(b"PONG\r\n").ok()?,
                ["SUB", subject, id] => {
                    let entry = (subject.trim_end_matches('*').to_owned(), id.to_owned());
                    subscriptions.push(entry);
                }
                ["PUB", subject, reply, bytes] => {
                    let mut body = vec![0; bytes.parse::<usize>().unwrap() + 2];
                    read.read_exact(&mut body).ok()?;
                    let request = serde_json::from_slice(&body).unwrap_or_default();
                    let (_, id) = subscriptions
                        .iter()
                        .find(|(subject, _)| reply.starts_with(subject.as_str()))?;
                    for (headers, body) in self.answer(subject, &request) {
                        let (of_headers, all) = (headers.len(), headers.len() + body.len());
                        match of_headers {
                            0 => write!(write, "MSG {reply} {id} {all}\r\n{body}\r\n"),
                            _ => write!(
                                write,
                                "HMSG {reply} {id} {of_headers} {all}\r\n{headers}{body}\r\n"
                            ),
                        }
                        .ok()?;
                    }
                }
                _ => {}
            }
        }
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn run(folder: &Path, url: &str, arguments: &[&str]) -> Output {
    Command::new(ROOMCAST)
        .current_dir(folder)
        .args(arguments)
        .env("NO_COLOR", "1")
        .env("ROOMCAST_NATS", url)
        .env("ROOMCAST_NATS_READER_USER", "reader")
        .env("ROOMCAST_NATS_READER_PASSWORD", "test-only")
        .output()
        .unwrap()
}

#[test]
fn a_record_is_whole_when_its_end_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let check = |replica_has: usize, in_vain: u32, taken_out: usize, code: i32, words: &str| {
        let entry =
            |life: u8| json!({ "life": format!("{life:032x}"), "number": 1, "previous": "" }).to_string();
        let url = Stream {
            subject: "audit.ingest.a",
            messages: (1..=3).map(entry).collect(),
            taken_out,
            replica_has,
            in_vain: AtomicU32::new(in_vain),
            stored_at: now(),
        }
        .serve();
        let output = run(folder.path(), &url, &["audit", "verify", "--nats", &url]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &complaint(&output);
        let case = format!("{replica_has} {in_vain} {taken_out}");
        assert_eq!(output.status.code(), Some(code), "{case}: {said}");
        assert!(said.contains(words), "{case}: {said}");
    };
    check(3, 0, 0, 0, "whole 3 entries of 3 processes");
    // It catches up while it is asked.
    check(2, 3, 0, 0, "whole 3 entries of 3 processes");
    check(0, 3, 0, 0, "whole 3 entries of 3 processes");
    check(2, u32::MAX, 0, 69, "positions 3 to 3 could not be read");
    // Nobody has them.
    check(3, u32::MAX, 2, 69, "positions 4 to 5 of the stream are missing");
}

#[test]
fn a_recording_that_was_not_read_whole_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let record = |in_vain: u32| {
        let event =
            |id: u8| json!({ "id": id.to_string(), "source": "s", "type": "t", "time": now() }).to_string();
        let url = Stream {
            subject: "evt.03.main.bookings.staff",
            messages: (1..=3).map(event).collect(),
            taken_out: 0,
            replica_has: 2,
            in_vain: AtomicU32::new(in_vain),
            stored_at: now(),
        }
        .serve();
        run(folder, &url, &["record", "--since", "1h", "--out", "day.ndjson"])
    };
    let files = || std::fs::read_dir(folder).unwrap().count();
    let output = record(u32::MAX);
    assert_eq!(output.status.code(), Some(69), "{}", complaint(&output));
    assert!(
        complaint(&output).contains("positions 3 to 3 could not be read"),
        "{}",
        complaint(&output)
    );
    assert_eq!(files(), 0);
    // Done again, it is done; and what the stream does not have is not claimed.
    let output = record(2);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let said = complaint(&output);
    assert!(said.contains("3 events in day.ndjson, since 20"), "{said}");
    assert!(said.contains("where the stream begins"), "{said}");
    let written = std::fs::read_to_string(folder.join("day.ndjson")).unwrap();
    assert_eq!((written.lines().count(), files()), (3, 1));
    let output = record(0);
    assert_eq!(output.status.code(), Some(69), "what is there stays");
    assert_eq!(
        std::fs::read_to_string(folder.join("day.ndjson")).unwrap(),
        written
    );
}
