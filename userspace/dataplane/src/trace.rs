//! The per-packet trace: what the programs log through aya-log, as typed records.
//!
//! The programs write numbers (`ebpf/programs/src/verdict.rs`); words are made here, from the same enums.
#![expect(unsafe_code, reason = "tokio cannot know that a descriptor stays open")]

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use abi::{Program, Reason};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Error;
use crate::error::chain;

/// Which packets to trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceSettings {
    /// Only packets from or to this address. A peer has one of each family; with neither, everything is traced.
    pub peer_v4: Option<Ipv4Addr>,
    /// As `peer_v4`.
    pub peer_v6: Option<Ipv6Addr>,
    /// Only packets that are dropped.
    pub drops_only: bool,
}

/// One packet that a program decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRecord {
    /// Which program.
    pub program: Program,
    /// What it decided, and why.
    pub reason: Reason,
    /// IANA protocol number.
    pub protocol: u8,
    /// Bytes at the hook.
    pub bytes: u32,
    /// Sender and its port; 0 where the protocol has none.
    pub source: (IpAddr, u16),
    /// Receiver and its port.
    pub destination: (IpAddr, u16),
}

impl TraceRecord {
    /// From the programs' line: program, reason, protocol, bytes, both ports, sender, receiver.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let program: usize = words.next()?.parse().ok()?;
        let reason: usize = words.next()?.parse().ok()?;
        let protocol = words.next()?.parse().ok()?;
        let bytes = words.next()?.parse().ok()?;
        let ports: u32 = words.next()?.parse().ok()?;
        let source = words.next()?.parse().ok()?;
        let destination = words.next()?.parse().ok()?;
        Some(Self {
            program: *Program::ALL.get(program)?,
            reason: *Reason::ALL.get(reason)?,
            protocol,
            bytes,
            source: (source, (ports >> 16) as u16),
            destination: (destination, ports as u16),
        })
    }
}

impl fmt::Display for TraceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, reason, protocol, bytes, source, destination } = self;
        let verdict = format!("{:?}", reason.verdict()).to_lowercase();
        write!(f, "{} {verdict} {} proto {protocol} ", program.name(), reason.label())?;
        write!(f, "[{}]:{} > [{}]:{} {bytes} bytes", source.0, source.1, destination.0, destination.1)
    }
}

/// Reads records as they come.
pub struct TraceReader {
    buffer: AsyncFd<EbpfLogger<Sink>>,
    records: Sink,
}

impl TraceReader {
    pub(crate) fn open(program_id: u32) -> Result<Self, Error> {
        let records = Sink::default();
        let logger = EbpfLogger::init_from_id_with_logger(program_id, records.clone())
            .map_err(|error| Error::Trace(chain(&error)))?;
        // SAFETY: the logger owns the ring buffer's descriptor, always returns that one, and closes it when it is dropped
        // with this `AsyncFd`.
        let buffer = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
            .map_err(|error| Error::Trace(error.to_string()))?;
        Ok(Self { buffer, records })
    }

    /// The next record. Can be dropped and called again without losing one.
    ///
    /// # Errors
    /// When the runtime cannot wait for the buffer.
    pub async fn next(&mut self) -> Result<TraceRecord, Error> {
        loop {
            if let Some(record) = self.records.lock().pop_front() {
                return Ok(record);
            }
            // Flushed before waiting: what was written before this reader came rouses nobody.
            self.buffer.get_mut().flush();
            if self.records.lock().is_empty() {
                let ready = self.buffer.readable_mut().await;
                let mut ready = ready.map_err(|error| Error::Trace(error.to_string()))?;
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }
    }
}

/// Where aya-log's records go.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<VecDeque<TraceRecord>>>);

impl Sink {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<TraceRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl log::Log for Sink {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.lock().extend(TraceRecord::parse(&record.args().to_string()));
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_from_numbers_and_shown_in_words() {
        let ports = 40_000_u32 << 16 | 22;
        let record = TraceRecord::parse(&format!("1 19 6 60 {ports} 100.64.0.1 100.64.0.2")).unwrap();
        assert_eq!(record.reason, Reason::Acl);
        assert_eq!(
            record.to_string(),
            "from_tunnel drop acl proto 6 [100.64.0.1]:40000 > [100.64.0.2]:22 60 bytes"
        );
    }

    #[test]
    fn a_line_that_is_no_record_is_none() {
        for line in ["", "1 2", "99 0 6 60 0 100.64.0.1 100.64.0.2", "1 999 6 60 0 100.64.0.1 100.64.0.2"] {
            assert_eq!(TraceRecord::parse(line), None, "{line:?}");
        }
    }
}
