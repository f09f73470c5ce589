//! Publishes one booking over HTTP. Answer on standard output; exit 0 stored, 65 refused, 69 not reached.
use std::io::{Error, Read, Write};
use std::{env::var, net::TcpStream, process::exit, time::Duration, time::SystemTime};

fn publish() -> Result<i32, Error> {
    let (ingest, token) = (var("ROOMCAST_INGEST").map_err(Error::other)?, var("ROOMCAST_TOKEN").map_err(Error::other)?);
    let host = ingest.trim_start_matches("http://").trim_end_matches('/');
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::other)?.as_nanos();
    let event = format!(r#"{{"id":"bk-rs-{nanos}","type":"booking:new","room":"bookings","audience":"staff","data":{{"id":"bk-rs-{nanos}","customer":"Elif Kaya",
        "country":"TR","category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}}}"#);
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "POST /v1/events HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{event}", event.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| Error::other("the answer is cut off"))?;
    println!("{body}");
    Ok(match head.split(' ').nth(1) { Some("200") => 0, Some(status) if status == "429" || status.starts_with('5') => 69, _ => 65 })
}

fn main() {
    exit(publish().unwrap_or_else(|error| { eprintln!("{error}"); 69 }))
}
