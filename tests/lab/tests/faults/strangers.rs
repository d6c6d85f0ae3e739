//! Strangers at the server's door: what they send is capped, and how long they take.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::Bench;

/// What each stranger says before falling silent.
const SILENT: [&str; 5] = [
    "",
    "GET /key HTTP/1.1\r\nHost: 203.0.113.10\r\n",
    "POST /verify HTTP/1.1\r\nHost: 203.0.113.10\r\nContent-Length: 100\r\n\r\n{",
    "GET /derp HTTP/1.1\r\nHost: 203.0.113.10\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n",
    "GET /derp HTTP/1.1\r\nHost: 203.0.113.10\r\nConnection: Upgrade\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n",
];

fn connect(bench: &Bench, port: u16) -> anyhow::Result<TcpStream> {
    let stream = bench.host.enter(|| TcpStream::connect(("203.0.113.10", port)))??;
    stream.set_read_timeout(Some(crate::SOON))?;
    Ok(stream)
}

#[test]
fn silent_strangers_are_cut_off() -> anyhow::Result<()> {
    if lab::skipped("silent_strangers_are_cut_off") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let _secure = bench.server(&[])?;
    let _plain = bench.another_server("http://203.0.113.10:8080", 8080, &["--tls", "off"])?;
    let mut strangers = vec![("no TLS handshake", connect(&bench, 443)?)];
    for said in SILENT {
        let mut stream = connect(&bench, 8080)?;
        stream.write_all(said.as_bytes())?;
        strangers.push((said, stream));
    }
    for (said, mut stream) in strangers {
        // Whatever is answered, the connection ends; a reset is an end.
        if let Err(error) = stream.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {said:?}: {error}");
        }
    }
    Ok(())
}

#[test]
fn what_strangers_send_is_capped() -> anyhow::Result<()> {
    if lab::skipped("what_strangers_send_is_capped") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let _plain = bench.another_server("http://203.0.113.10:8080", 8080, &["--tls", "off"])?;
    let body = "POST /verify HTTP/1.1\r\nHost: 203.0.113.10\r\nContent-Length: 1000000000\r\n\r\n";
    let head = "GET /key HTTP/1.1\r\nHost: 203.0.113.10\r\nX-Filler: ";
    for (said, refusal) in [(body, "HTTP/1.1 413 "), (head, "HTTP/1.1 431 ")] {
        let mut stream = connect(&bench, 8080)?;
        stream.write_all(said.as_bytes())?;
        let mut feed = stream.try_clone()?;
        // 64 MiB and no more: the server has to end this, not the test.
        let feeder = std::thread::spawn(move || (0..1024).try_for_each(|_| feed.write_all(&[b'a'; 1 << 16])));
        let mut start = [0; 13];
        stream.read_exact(&mut start)?;
        assert_eq!(String::from_utf8_lossy(&start), refusal, "after {said:?}");
        drop(stream);
        let fed = feeder.join().map_err(|_| anyhow::anyhow!("the feeder panicked"))?;
        assert!(fed.is_err(), "the server read 64 MiB after {said:?}");
    }
    Ok(())
}
