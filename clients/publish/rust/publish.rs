//! Publishes one booking over HTTP: publish.rs [ID]. Answer on standard output; exit 0 stored, 65 refused, 69 not reached in five attempts.
use std::io::{Error, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::{env, process::exit, thread::sleep, time::Duration, time::SystemTime};

const WITHIN: Duration = Duration::from_secs(10);

/// Status, the pause that is asked for in seconds, and what was said. An error is no answer.
fn attempt(host: &str, token: &str, event: &str) -> Result<(u16, u64, String), Error> {
    let address = host.to_socket_addrs()?.next().ok_or_else(|| Error::other("no address of this name"))?;
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    write!(stream, "POST /v1/events HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{event}", event.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| Error::other("the answer is cut off"))?;
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(|| Error::other("no answer of HTTP"))?;
    let asked = head.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    Ok((status, asked.and_then(|(_, text)| text.trim().parse().ok()).unwrap_or(0), body.to_owned()))
}

fn publish() -> Result<i32, Error> {
    let (ingest, token) = (env::var("ROOMCAST_INGEST").map_err(Error::other)?, env::var("ROOMCAST_TOKEN").map_err(Error::other)?);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::other)?.as_nanos();
    // One id and the same bytes for every attempt: so it is stored once.
    let id = env::args().nth(1).unwrap_or_else(|| format!("bk-rs-{nanos}"));
    let event = format!(r#"{{"id":"{id}","type":"booking:new","room":"bookings","audience":"staff","data":{{"id":"{id}","customer":"Elif Kaya",
        "country":"TR","category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}}}"#);
    for pause in [1, 2, 4, 8, 0] {
        let answer = attempt(ingest.trim_start_matches("http://").trim_end_matches('/'), &token, &event);
        let after = answer.as_ref().map_or(0, |answer| answer.1);
        match answer {
            Ok((200, _, said)) => { println!("{said}"); return Ok(0) }
            Ok((status, _, said)) if status < 500 && status != 408 && status != 429 => { println!("{said}"); return Ok(65) }
            Ok((_, _, said)) => eprintln!("{said}"),
            Err(error) => eprintln!("{error}"),
        }
        // Who shall wait for longer than this comes back later: after two minutes a repeat is a new event.
        if pause == 0 || after > 15 { break }
        sleep(Duration::from_secs(after.max(pause)));
    }
    Ok(69)
}

fn main() {
    exit(publish().unwrap_or_else(|error| { eprintln!("{error}"); 69 }))
}
