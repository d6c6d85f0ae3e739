//! Raw requests to the socket, as a client that is not ours would send them.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No answer takes this long; a test that waits longer has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// An answer: status, head and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

/// One request with the right Host header and `headers` besides.
pub(crate) fn request(socket: &Path, line: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("Host: local-tailscaled.sock\r\n{headers}");
    raw(socket, line, &headers, body)
}

/// One request with exactly these headers.
pub(crate) fn raw(socket: &Path, line: &str, headers: &str, body: &str) -> Answer {
    let mut stream = open(socket, line, headers, body);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Answer { status: status.unwrap(), head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// A stream of JSON lines, after its head.
pub(crate) fn lines(socket: &Path, path: &str) -> impl FnMut() -> Option<serde_json::Value> + use<> {
    let stream = open(socket, &format!("GET /localapi/v0/{path}"), "Host: local-tailscaled.sock\r\n", "");
    let mut reader = BufReader::new(stream);
    move || {
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // Between the lines are the head and the sizes of the chunks.
            if line.starts_with('{') {
                return serde_json::from_str(&line).ok();
            }
        }
    }
}

fn open(socket: &Path, line: &str, headers: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    match stream.write_all((head + body).as_bytes()) {
        // A server may answer before it has read everything, and that answer is what the test is about.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.unwrap(),
    }
    stream
}
