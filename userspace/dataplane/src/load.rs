//! Loading the programs, or finding them where an earlier process left them.
//!
//! The first start pins maps, programs and links. A later one with the same object adopts all of it without touching what
//! is attached; one with another object loads it over the same maps and moves each link to the new program in one step.
//! Every step can be interrupted: the object's hash is written last, so the next start does the rest again.
//!
//! Verifying is most of a start, so a tunnel waits only for its own programs and for `steer`, which are verified side by side;
//! those ahead of the stack and of the LAN follow ([`Programs::rest`]). Deliberately not here: attaching (`attach`), filters (`install`).

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use abi::{Hook, Next, Program, TRACE_DROPS, TRACE_ON};
use aya::maps::ProgramArray;
use aya::programs::{
    ProgramError, ProgramInfo, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp,
};
use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::chroot;

use crate::disco::seed_nonces;
use crate::error::{chain, errno};
use crate::maps::{Maps, NAMES, gone_is_fine};
use crate::pins::{self, Pins};
use crate::relay::RelayTable;
use crate::{Error, TraceReader, TraceSettings, object};

/// The kernel programs of one node and their maps. Dropping it leaves everything attached.
pub struct Programs {
    pub(crate) pins: Pins,
    pub(crate) maps: Maps,
    pub(crate) relay: RelayTable,
    /// Devices that this process has XDP on.
    pub(crate) steered_by_xdp: BTreeSet<u32>,
    /// Devices that are ends of veth pairs.
    pub(crate) veths: BTreeSet<u32>,
    origin: Origin,
    /// The object, until somebody takes the rest of it to finish it.
    unfinished: Option<Ebpf>,
    /// Whether the programs ahead of the stack are in place.
    pub(crate) is_complete: bool,
}

/// Where the programs in the kernel came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was there; they were loaded. No filter is in force: nothing comes in.
    Loaded,
    /// The same object was there already; nothing was touched.
    Adopted,
    /// Another version was there; its links now run ours, with the filter and the flows kept.
    Replaced,
}

impl Programs {
    /// Loads the programs for `device` in the calling thread's network namespace, or takes over those that are there. The
    /// trace is off afterwards.
    ///
    /// # Errors
    /// No rights, no BPF file system, or a kernel that refuses the programs.
    pub fn load_or_adopt(device: &str) -> Result<Self, Error> {
        let mut programs = Self::load_spare_or_adopt(device, None)?;
        if let Some(rest) = programs.rest() {
            let (rest, refused) = rest.verify();
            refused.into_iter().next().map_or(Ok(()), Err)?;
            programs.complete(rest)?;
        }
        Ok(programs)
    }

    /// The same, but only what a tunnel needs; [`Self::rest`] is the rest. With programs that were verified before, which
    /// are of use only where nothing is there yet.
    ///
    /// # Errors
    /// As [`Self::load_or_adopt`].
    pub fn load_spare_or_adopt(device: &str, spare: Option<Spare>) -> Result<Self, Error> {
        let pins = Pins::of(device)?;
        pins.prepare()?;
        let wanted = object::identity();
        let known = Maps::open(&pins).ok().and_then(|maps| maps.object.get(&0, 0).ok());
        if known == Some(wanted) {
            let maps = Maps::open(&pins)?;
            let mut adopted = Self::new(pins, maps, Origin::Adopted)?;
            adopted.trace(None)?;
            return Ok(adopted);
        }
        let mut ebpf = match spare {
            Some(Spare(ebpf)) if pins.is_empty()? => pin_maps(ebpf, &pins)?,
            _ => load(&pins)?,
        };
        pin_programs(&mut ebpf, &pins, Stage::Tunnel)?;
        let maps = Maps::open(&pins)?;
        let origin = if known.is_some_and(|object| object.hash != [0; 32]) {
            Origin::Replaced
        } else {
            Origin::Loaded
        };
        let mut loaded = Self::new(pins, maps, origin)?;
        seed_nonces(&mut loaded.maps)?;
        (loaded.unfinished, loaded.is_complete) = (Some(ebpf), false);
        loaded.reattach(Stage::Tunnel)?;
        loaded.trace(None)?;
        Ok(loaded)
    }

    fn new(pins: Pins, maps: Maps, origin: Origin) -> Result<Self, Error> {
        let relay = match origin {
            Origin::Loaded => RelayTable::empty(),
            Origin::Adopted | Origin::Replaced => RelayTable::read(&maps)?,
        };
        Ok(Self {
            pins,
            maps,
            relay,
            steered_by_xdp: BTreeSet::new(),
            veths: BTreeSet::new(),
            origin,
            unfinished: None,
            is_complete: true,
        })
    }

    /// What was put off, once: to be verified, on whatever thread, and given to [`Self::complete`]. Without it everything
    /// works in TC.
    pub fn rest(&mut self) -> Option<Rest> {
        self.unfinished.take().map(Rest)
    }

    /// Brings the programs ahead of the stack into place.
    ///
    /// # Errors
    /// When a pin or a map refuses; the next start tries again.
    pub fn complete(&mut self, rest: Rest) -> Result<(), Error> {
        let Rest(mut ebpf) = rest;
        pin_programs(&mut ebpf, &self.pins, Stage::Rest)?;
        fill_places(&mut ebpf)?;
        self.is_complete = true;
        self.reattach(Stage::Rest)?;
        self.maps.object.set(0, object::identity(), 0).map_err(Error::map("OBJECT"))
    }

    /// Whether all of them are in place.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// How this process got the programs.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Tells `steer` which UDP port is WireGuard's and which one the controller's sockets are bound to (without
    /// `SO_REUSEPORT`). Zero for WireGuard's switches steering off.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn set_ports(&mut self, wireguard: u16, controller: u16) -> Result<(), Error> {
        self.maps.configure(|config| {
            config.wireguard_port = wireguard.to_be_bytes();
            config.controller_port = controller.to_be_bytes();
        })
    }

    /// Switches the per-packet trace on or off. Read it with [`Self::trace_reader`].
    ///
    /// # Errors
    /// When the map refuses.
    pub fn trace(&mut self, settings: Option<&TraceSettings>) -> Result<(), Error> {
        self.maps.configure(|config| {
            config.trace = match settings {
                None => 0,
                Some(settings) if settings.drops_only => TRACE_ON | TRACE_DROPS,
                Some(_) => TRACE_ON,
            };
            config.trace_v4 = settings
                .and_then(|settings| settings.peer_v4)
                .map_or(0, |ip| u32::from_ne_bytes(ip.octets()));
            config.trace_v6 = settings
                .and_then(|settings| settings.peer_v6)
                .map_or([0; 4], |ip| crate::maps::address(ip.into()).1);
        })
    }

    /// Reads the trace's records, wherever the programs were loaded. One reader at a time: records go to whoever reads.
    ///
    /// # Errors
    /// When the record buffer cannot be opened; needs a tokio runtime.
    pub fn trace_reader(&self) -> Result<TraceReader, Error> {
        TraceReader::open(self.program(Program::FromTunnel)?.id())
    }

    /// Runs a program on a packet with an Ethernet header, `repeat` times, without a device: its return code and the mean
    /// time a run takes. Only the first run of a program that rewrites sees the packet as it is here.
    ///
    /// # Errors
    /// When the kernel refuses the packet (it must hold an Ethernet header), or the object has no such program.
    pub fn test_run(&self, program: Program, packet: &[u8], repeat: u32) -> Result<(i32, Duration), Error> {
        let options = TestRunOptions { data_in: Some(packet), repeat, ..Default::default() };
        let result = self.run(program, options)?;
        Ok((result.return_value as i32, result.duration))
    }

    /// Runs a program once on a packet with an Ethernet header: its return code and what it made of the packet.
    ///
    /// # Errors
    /// As [`Self::test_run`].
    pub fn test_packet(&self, program: Program, packet: &[u8]) -> Result<(i32, Vec<u8>), Error> {
        let mut made = vec![0; packet.len() + 512];
        let options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut made), ..Default::default() };
        let result = self.run(program, options)?;
        made.truncate(result.data_size_out as usize);
        Ok((result.return_value as i32, made))
    }

    fn run(&self, program: Program, options: TestRunOptions<'_>) -> Result<TestRunResult, Error> {
        let result = match program.hook() {
            Hook::Xdp => Xdp::from_pin(self.pins.program(program), XdpAttachType::Interface)
                .and_then(|program| program.test_run(options)),
            Hook::Ingress | Hook::Egress => self.classifier(program)?.test_run(options),
        };
        result.map_err(|error| Error::attach(program, 0)(chain(&error)))
    }

    /// Takes everything away that [`Self::load_or_adopt`] and attaching made for `device` in this namespace.
    ///
    /// # Errors
    /// When something cannot be removed; the rest may still be there.
    pub fn remove_all(device: &str) -> Result<(), Error> {
        let pins = Pins::of(device)?;
        if let Ok(maps) = Maps::open(&pins) {
            Self::new(pins.clone(), maps, Origin::Adopted)?.detach_everything()?;
        }
        pins.remove()
    }

    /// The loaded program, from its pin.
    pub(crate) fn program(&self, program: Program) -> Result<ProgramInfo, Error> {
        let path = self.pins.program(program);
        ProgramInfo::from_pin(&path).map_err(|error| Error::Pin { path, cause: chain(&error) })
    }

    /// The loaded TC program, from its pin.
    pub(crate) fn classifier(&self, program: Program) -> Result<SchedClassifier, Error> {
        let path = self.pins.program(program);
        SchedClassifier::from_pin(&path).map_err(|error| Error::Pin { path, cause: chain(&error) })
    }
}

/// Programs that the kernel has verified, with maps that are nobody's yet: verifying takes longer than all the rest of a
/// start, so whoever knows that a start will come does it before. Dropping it leaves nothing.
pub struct Spare(Ebpf);

impl Spare {
    /// Loads the programs, for no device.
    ///
    /// # Errors
    /// No rights, or a kernel that refuses the programs.
    pub fn load() -> Result<Self, Error> {
        let mut ebpf = create(&mut loader())?;
        must_verify(&mut ebpf, Stage::Tunnel)?;
        must_verify(&mut ebpf, Stage::Rest)?;
        Ok(Self(ebpf))
    }
}

/// The programs ahead of the stack and of the LAN, in the making.
pub struct Rest(Ebpf);

impl Rest {
    /// Has them verified, which takes longer than all the rest of a start. Also what the kernel refused, each with the reason:
    /// the stack does without them what they only shorten.
    pub fn verify(mut self) -> (Self, Vec<Error>) {
        let refused = verify(&mut self.0, Stage::Rest);
        (self, refused)
    }
}

/// What is verified and pinned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// On the WireGuard device, and what finds its direct paths: no tunnel without them.
    Tunnel,
    /// Everything else.
    Rest,
}

impl Stage {
    /// Whose part `program` is.
    pub(crate) fn of(program: Program) -> Self {
        match program {
            Program::FromTunnel | Program::IntoTunnel | Program::Steer => Self::Tunnel,
            _ => Self::Rest,
        }
    }

    fn programs(self) -> impl Iterator<Item = Program> {
        Program::ALL.into_iter().filter(move |program| Self::of(*program) == self)
    }
}

/// A loader that knows nothing of the kernel's own types. aya's reads them as it is made, whether or not they are wanted: 5 MB
/// parsed into 13 MB of heap in 12 ms, more on a busy machine, for relocations that our programs do not have. So it is made by a thread whose
/// root has no `/sys`; where the kernel does not allow that, it only takes longer.
fn loader() -> EbpfLoader<'static> {
    let blind = || {
        _ = unshare(CloneFlags::CLONE_FS).and_then(|()| chroot(Path::new(pins::BPF_FS)));
        EbpfLoader::new()
    };
    thread::spawn(blind).join().unwrap_or_else(|_| EbpfLoader::new())
}

/// Loads the object over the pinned maps, making those that are missing; a tunnel's programs are verified.
fn load(pins: &Pins) -> Result<Ebpf, Error> {
    let mut loader = loader();
    for name in NAMES {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = create(&mut loader)?;
    must_verify(&mut ebpf, Stage::Tunnel)?;
    Ok(ebpf)
}

/// Pins the maps of an object that has its own.
fn pin_maps(ebpf: Ebpf, pins: &Pins) -> Result<Ebpf, Error> {
    for name in NAMES {
        let missing = || Error::Load(format!("the object has no map {name}"));
        let path = pins.map(name);
        let pinned = ebpf.map(name).ok_or_else(missing)?.pin(&path);
        pinned.map_err(|error| Error::Pin { path, cause: chain(&error) })?;
    }
    Ok(ebpf)
}

/// Pins programs in the place of older ones.
fn pin_programs(ebpf: &mut Ebpf, pins: &Pins, stage: Stage) -> Result<(), Error> {
    for program in stage.programs() {
        let Some(loaded) = ebpf.program_mut(program.name()) else { continue };
        if loaded.fd().is_err() {
            // Refused. An older version's must not be taken for it.
            pins::remove(&pins.program(program))?;
            continue;
        }
        pins::replace(&pins.program(program), |path| loaded.pin(path).map_err(|error| chain(&error)))?;
    }
    Ok(())
}

/// Puts the programs that others jump to into their places.
fn fill_places(ebpf: &mut Ebpf) -> Result<(), Error> {
    let behind_underlay = Next::ALL.map(|next| (next as u32, next.program()));
    fill(ebpf, "NEXT", &behind_underlay)?;
    fill(ebpf, "FORWARD", &[(0, Program::Forward)])
}

fn fill(ebpf: &mut Ebpf, map: &'static str, programs: &[(u32, Program)]) -> Result<(), Error> {
    let missing = || Error::Load(format!("the object has no map {map}"));
    let mut places =
        ProgramArray::try_from(ebpf.take_map(map).ok_or_else(missing)?).map_err(Error::map(map))?;
    for (place, program) in programs {
        let changed = match ebpf.program(program.name()).map(aya::programs::Program::fd) {
            Some(Ok(loaded)) => places.set(*place, loaded, 0),
            Some(Err(_)) | None => gone_is_fine(places.clear_index(place)),
        };
        changed.map_err(Error::map(map))?;
    }
    Ok(())
}

/// The object's maps in the kernel, no program yet.
fn create(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, Error> {
    loader.load(object::bytes()).map_err(|error| refused(chain(&error)))
}

/// Has the programs of a stage verified, side by side; the answer is what the kernel refused.
fn verify(ebpf: &mut Ebpf, stage: Stage) -> Vec<Error> {
    let wanted = |name: &str| stage.programs().any(|program| program.name() == name);
    thread::scope(|scope| {
        let programs = ebpf.programs_mut().filter(|(name, _)| wanted(name));
        let threads: Vec<_> =
            programs.map(|(name, program)| scope.spawn(move || verify_program(name, program))).collect();
        let died = |_| Err(Error::Load("the thread that loaded it died".to_owned()));
        threads.into_iter().filter_map(|thread| thread.join().unwrap_or_else(died).err()).collect()
    })
}

fn must_verify(ebpf: &mut Ebpf, stage: Stage) -> Result<(), Error> {
    verify(ebpf, stage).into_iter().next().map_or(Ok(()), Err)
}

fn verify_program(name: &str, program: &mut aya::programs::Program) -> Result<(), Error> {
    let loaded = match program {
        // Verified before, as a spare.
        program if program.fd().is_ok() => Ok(()),
        aya::programs::Program::Xdp(program) => program.load(),
        aya::programs::Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.map_err(|error| match errno(&error) {
        Some(errno) if errno == nix::Error::EPERM as i32 => {
            Error::NotPermitted { doing: "loading eBPF programs" }
        }
        _ => Error::Load(format!("{name}: {}", verdict(&error))),
    })
}

/// The verifier's verdict is the end of its log; all of it is thousands of lines.
fn verdict(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return chain(error) };
    let log = verifier_log.to_string();

    let lines: Vec<&str> = log.lines().rev().filter(|line| !line.is_empty()).take(4).collect();
    let end: Vec<&str> = lines.into_iter().rev().collect();
    format!("{io_error}; the verifier: {}", end.join(" / "))
}

fn refused(cause: String) -> Error {
    let eperm = std::io::Error::from(nix::Error::EPERM).to_string();
    if cause.contains(&eperm) {
        Error::NotPermitted { doing: "creating eBPF maps" }
    } else {
        Error::Load(cause)
    }
}
