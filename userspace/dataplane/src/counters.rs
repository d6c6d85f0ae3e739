//! What the programs counted.

use abi::{Program, Reason};

use crate::{Error, Programs};

/// One counter, summed over the CPUs; it counts from the first load and survives restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Which program.
    pub program: Program,
    /// What it decided, and why.
    pub reason: Reason,
    /// Packets; a super-packet counts once.
    pub packets: u64,
    /// Bytes at the hook.
    pub bytes: u64,
}

impl Programs {
    /// Every counter that is not zero, by program and reason.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Vec<Count>, Error> {
        let mut counts = Vec::new();
        for program in Program::ALL {
            for reason in Reason::ALL {
                let cpus =
                    self.maps.counters.get(&reason.counter(program), 0).map_err(Error::map("COUNTERS"))?;
                let packets = cpus.iter().map(|cpu| cpu.packets).sum();
                if packets > 0 {
                    let bytes = cpus.iter().map(|cpu| cpu.bytes).sum();
                    counts.push(Count { program, reason, packets, bytes });
                }
            }
        }
        Ok(counts)
    }
}
