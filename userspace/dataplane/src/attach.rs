//! Attaching programs to devices, and finding them attached.
//!
//! TCX where the kernel has it (6.6): a link, pinned, which nobody else can detach and which is moved to another version of
//! a program in one step. XDP is always such a link, and always native: where the driver or somebody else's program is in the
//! way it is not attached, and `steer` does everything in TC. Before TCX there is a clsact filter, which has no link: we choose its priority and handle, so it is found
//! again, replaced in place and removed; the `CLSACT` map remembers on which devices. An empty clsact qdisc is left behind,
//! because somebody else may use it.

use std::os::fd::AsFd as _;
use std::path::Path;

use abi::{Hook, Program};
use aya::programs::links::{FdLink, LinkType};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{LinkOrder, TcAttachType};
use aya::util::KernelVersion;

use crate::error::{chain, errno};
use crate::link;
use crate::load::Stage;
use crate::maps::gone_is_fine;
use crate::pins::{self, pin_error};
use crate::{Error, Programs};

/// Our filters' priority on clsact: "UP" in ASCII.
const CLSACT_PRIORITY: u16 = 0x5550;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// A pinned bpf_link on the driver's XDP hook.
    Xdp,
    /// A pinned bpf_link (Linux 6.6 and newer).
    Tcx,
    /// A classifier of the clsact qdisc.
    Clsact,
}

impl Mechanism {
    /// What this kernel offers for TC programs.
    pub fn of_kernel() -> Self {
        let has_links = KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0));
        if has_links { Self::Tcx } else { Self::Clsact }
    }
}

/// One program on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The device.
    pub ifindex: u32,
    /// The program.
    pub program: Program,
    /// How.
    pub mechanism: Mechanism,
}

/// Why a device has no XDP of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NoXdp {
    /// `--steer tc`.
    #[error("asked for")]
    Asked,
    /// Tags that a card takes off are invisible to XDP.
    #[error("VLAN devices are on top of it")]
    Vlans,
    /// Peers may be there, but not many.
    #[error("no route leads on from it")]
    NoUplink,
    /// The other end would have to cut what it sends into packets.
    #[error("a veth: XDP would switch segmentation offload off at its other end")]
    Veth,
    /// Bridges, VLANs, tunnels, PPP, and some network cards.
    #[error("its driver has no native XDP")]
    Driver,
    /// It keeps its place.
    #[error("another XDP program is attached")]
    Foreign,
    /// Or too few queues; the kernel's text does not come with a link.
    #[error("its driver refuses XDP with its present MTU, queues or offloads")]
    Settings,
    /// It follows in a moment; or the log has the verifier's words.
    #[error("the kernel has not verified its programs")]
    Unverified,
}

impl NoXdp {
    /// What the kernel's refusal means (`net/core/dev.c`, `dev_xdp_attach`, and the drivers' `ndo_bpf`).
    fn from_errno(error: &std::io::Error) -> Option<Self> {
        use nix::errno::Errno;
        match Errno::from_raw(error.raw_os_error()?) {
            Errno::EOPNOTSUPP => Some(Self::Driver),
            Errno::EBUSY | Errno::EEXIST => Some(Self::Foreign),
            Errno::EINVAL | Errno::ERANGE | Errno::ENOSPC | Errno::ENOTCONN | Errno::E2BIG => {
                Some(Self::Settings)
            }
            _ => None,
        }
    }
}

impl Programs {
    /// Attaches `from_tunnel` and `into_tunnel` to the WireGuard device, before it is brought up. Does nothing where they
    /// are attached already. What an older version with other maps left goes then, filter and flows included.
    ///
    /// # Errors
    /// When the kernel refuses; names device and program.
    pub fn attach_tunnel(&mut self, ifindex: u32) -> Result<(), Error> {
        self.attach(Program::FromTunnel, ifindex)?;
        self.attach(Program::IntoTunnel, ifindex)?;
        // Only now: the tunnel is never without a filter.
        for other in self.pins.of_other_versions()? {
            other.links()?.iter().try_for_each(|(_, _, path)| remove_link(path))?;
            other.remove()?;
        }
        Ok(())
    }

    /// Attaches `steer` to a device of the underlay. Does nothing where it is attached already.
    ///
    /// # Errors
    /// As [`Self::attach_tunnel`].
    pub fn attach_underlay(&mut self, ifindex: u32) -> Result<(), Error> {
        self.attach(Program::Steer, ifindex)
    }

    /// Attaches `wrap` to the far end of our own veth pair. Does nothing where it is attached already.
    ///
    /// # Errors
    /// As [`Self::attach_tunnel`].
    pub(crate) fn attach_wrap(&mut self, ifindex: u32) -> Result<(), Error> {
        self.attach(Program::Wrap, ifindex)
    }

    /// Attaches `egress` to a device of the underlay, or takes it off.
    ///
    /// # Errors
    /// As [`Self::attach_tunnel`].
    pub(crate) fn attach_egress(&mut self, ifindex: u32, wanted: bool) -> Result<(), Error> {
        if wanted {
            self.attach(Program::Egress, ifindex)
        } else {
            self.detach_programs(ifindex, &[Program::Egress])
        }
    }

    /// Attaches `underlay` to a device ahead of `steer`, natively. Does nothing where it is attached already; says why it
    /// cannot be where it cannot.
    ///
    /// # Errors
    /// As [`Self::attach_tunnel`].
    pub fn attach_xdp(&mut self, ifindex: u32) -> Result<Result<(), NoXdp>, Error> {
        if !self.is_complete || !self.pins.program(Program::Underlay).exists() {
            return Ok(Err(NoXdp::Unverified));
        }
        let path = self.pins.link(Program::Underlay, ifindex);
        let program = self.program(Program::Underlay)?;
        let failed = Error::attach(Program::Underlay, ifindex);
        let program_fd = program.fd().map_err(|error| failed(chain(&error)))?;
        match live_link(ifindex, &path)? {
            Some(running) if running == program.id() => return Ok(Ok(())),
            Some(_) => {
                link::update(&path, program_fd.as_fd()).map_err(|error| failed(error.to_string()))?;
                return Ok(Ok(()));
            }
            None => pins::remove(&path)?,
        }
        match link::attach_xdp(program_fd.as_fd(), ifindex, &path) {
            Ok(()) => Ok(Ok(())),
            Err(error) => NoXdp::from_errno(&error).map(Err).ok_or_else(|| failed(error.to_string())),
        }
    }

    /// Takes `underlay` off a device; `steer` stays.
    ///
    /// # Errors
    /// When the pin cannot be removed.
    pub fn detach_xdp(&mut self, ifindex: u32) -> Result<(), Error> {
        remove_link(&self.pins.link(Program::Underlay, ifindex))
    }

    /// Attaches `to_tunnel` and `into_lan` to a device of the LAN side. Does nothing where they are attached already.
    ///
    /// # Errors
    /// As [`Self::attach_tunnel`].
    pub(crate) fn attach_lan(&mut self, ifindex: u32) -> Result<(), Error> {
        // Translation out before answers in: nothing leaves untranslated.
        self.attach(Program::IntoLan, ifindex)?;
        self.attach(Program::ToTunnel, ifindex)
    }

    /// Takes the gateway's programs off a device; fine if the device or the programs are gone.
    ///
    /// # Errors
    /// When a pin or the bookkeeping cannot be removed.
    pub(crate) fn detach_lan(&mut self, ifindex: u32) -> Result<(), Error> {
        self.detach_programs(ifindex, &[Program::ToTunnel, Program::IntoLan])
    }

    /// Takes every program of ours off a device; fine if the device or the programs are gone.
    ///
    /// # Errors
    /// When a pin or the bookkeeping cannot be removed.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        self.detach_programs(ifindex, &Program::ALL)
    }

    fn detach_programs(&mut self, ifindex: u32, programs: &[Program]) -> Result<(), Error> {
        for program in programs {
            remove_link(&self.pins.link(*program, ifindex))?;
        }
        self.detach_clsact(ifindex, programs)
    }

    /// What is attached where, as the kernel has it now.
    ///
    /// # Errors
    /// When the pins cannot be read.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        let mut found = Vec::new();
        for (program, ifindex, path) in self.pins.links()? {
            if live_link(ifindex, &path)?.is_some() {
                let mechanism = if program.hook() == Hook::Xdp { Mechanism::Xdp } else { Mechanism::Tcx };
                found.push(Attachment { ifindex, program, mechanism });
            }
        }
        for entry in self.maps.clsact.iter() {
            let (ifindex, programs) = entry.map_err(Error::map("CLSACT"))?;
            // A device that is gone took its filters along.
            let exists = interface(ifindex).is_some();
            let attached = Program::ALL.into_iter().filter(|program| exists && programs & bit(*program) != 0);
            found.extend(attached.map(|program| Attachment {
                ifindex,
                program,
                mechanism: Mechanism::Clsact,
            }));
        }
        found.sort();
        Ok(found)
    }

    /// Moves what is attached of a stage to the programs just loaded, each in one step.
    pub(crate) fn reattach(&mut self, stage: Stage) -> Result<(), Error> {
        let links = self.pins.links()?.into_iter();
        for (program, ifindex, path) in links.filter(|(program, _, _)| Stage::of(*program) == stage) {
            if live_link(ifindex, &path)?.is_none() {
                pins::remove(&path)?;
            } else if program.hook() == Hook::Xdp {
                // It is attached: nothing can be in the way.
                _ = self.attach_xdp(ifindex)?;
            } else {
                self.attach(program, ifindex)?;
            }
        }
        for attachment in self.attachments()? {
            if attachment.mechanism == Mechanism::Clsact && Stage::of(attachment.program) == stage {
                self.attach(attachment.program, attachment.ifindex)?;
            }
        }
        Ok(())
    }

    /// For removal.
    pub(crate) fn detach_everything(&mut self) -> Result<(), Error> {
        for (_, _, path) in self.pins.links()? {
            remove_link(&path)?;
        }
        let devices: Vec<u32> = self.maps.clsact.keys().filter_map(Result::ok).collect();
        devices.into_iter().try_for_each(|ifindex| self.detach_clsact(ifindex, &Program::ALL))
    }

    fn attach(&mut self, program: Program, ifindex: u32) -> Result<(), Error> {
        let Some(name) = interface(ifindex) else {
            // The device is gone, and what was attached to it with it.
            pins::remove(&self.pins.link(program, ifindex))?;
            gone_is_fine(self.maps.clsact.remove(&ifindex)).map_err(Error::map("CLSACT"))?;
            return Err(Error::attach(program, ifindex)("there is no such device".to_owned()));
        };
        if Mechanism::of_kernel() == Mechanism::Tcx {
            self.attach_tcx(program, ifindex, &name)
        } else {
            self.attach_clsact(program, ifindex, &name)
        }
    }

    fn attach_tcx(&self, program: Program, ifindex: u32, name: &str) -> Result<(), Error> {
        let failed = Error::attach(program, ifindex);
        let path = self.pins.link(program, ifindex);
        let mut loaded = self.classifier(program)?;
        if let Some(running) = live_link(ifindex, &path)? {
            if running != self.program(program)?.id() {
                let fd = loaded.fd().map_err(|error| failed(chain(&error)))?;
                link::update(&path, fd.as_fd()).map_err(|error| failed(error.to_string()))?;
            }
            return Ok(());
        }
        // A pin without a link behind it: the device was deleted and its index used again.
        pins::remove(&path)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let attached = loaded
            .attach_with_options(name, direction(program), options)
            .map_err(|error| failed(chain(&error)))?;
        let link = loaded.take_link(attached).map_err(|error| failed(chain(&error)))?;
        let link = FdLink::try_from(link).map_err(|error| failed(chain(&error)))?;
        let kind = link.info().and_then(|info| info.link_type()).map_err(|error| failed(chain(&error)))?;
        if kind != LinkType::Tcx {
            return Err(failed(format!("the kernel made a link of type {kind:?}, not TCX")));
        }
        link.pin(&path).map_err(|error| Error::Pin { path, cause: chain(&error) })?;
        Ok(())
    }

    fn attach_clsact(&mut self, program: Program, ifindex: u32, name: &str) -> Result<(), Error> {
        let failed = Error::attach(program, ifindex);
        // Written first: a crash in between leaves a note too much, never a filter that nobody removes.
        let known = self.maps.clsact.get(&ifindex, 0).unwrap_or(0);
        self.maps.clsact.insert(ifindex, known | bit(program), 0).map_err(Error::map("CLSACT"))?;
        match tc::qdisc_add_clsact(name) {
            Ok(()) => {}
            // The qdisc is there already, ours of an earlier run or somebody else's.
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(nix::Error::EEXIST as i32) => {}
            Err(error) => return Err(failed(chain(&error))),
        }
        let mut loaded = self.classifier(program)?;
        let place = classifier(program, name).map_err(|error| failed(error.to_string()))?;
        let attached = match loaded.attach_to_link(place) {
            Err(error) if errno(&error) == Some(nix::Error::ENOENT as i32) => {
                let (priority, handle) = (CLSACT_PRIORITY, handle(program));
                let options = TcAttachOptions::Netlink(NlOptions { priority, handle, classid: None });
                loaded.attach_with_options(name, direction(program), options)
            }
            replaced => replaced,
        };
        let link = attached.and_then(|id| loaded.take_link(id)).map_err(|error| failed(chain(&error)))?;
        // Dropping it would detach; the filter is to outlive this process, and is found again by its handle.
        std::mem::forget(link);
        Ok(())
    }

    fn detach_clsact(&mut self, ifindex: u32, programs: &[Program]) -> Result<(), Error> {
        let Ok(attached) = self.maps.clsact.get(&ifindex, 0) else { return Ok(()) };
        let mut left = attached;
        for program in programs.iter().filter(|program| attached & bit(**program) != 0) {
            // Detaches on drop. A device that is gone took its filters along; a filter that somebody removed is as wanted.
            drop(interface(ifindex).map(|name| classifier(*program, &name)));
            left &= !bit(*program);
        }
        match left {
            0 => gone_is_fine(self.maps.clsact.remove(&ifindex)).map_err(Error::map("CLSACT")),
            left => self.maps.clsact.insert(ifindex, left, 0).map_err(Error::map("CLSACT")),
        }
    }
}

/// The id of the program that the pinned link holds on that device; none if the device is gone or there is no pin.
fn live_link(ifindex: u32, path: &Path) -> Result<Option<u32>, Error> {
    match link::held(path) {
        Ok(held) => Ok((held.ifindex == ifindex).then_some(held.program)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(pin_error(path, &error)),
    }
}

/// Detaches the link and removes its pin. A link whose device is gone, or no link at all, is as good as detached.
fn remove_link(path: &Path) -> Result<(), Error> {
    if let Err(error) = link::detach(path) {
        tracing::debug!(path = %path.display(), %error, "no link to detach");
    }
    pins::remove(path)
}

fn direction(program: Program) -> TcAttachType {
    match program.hook() {
        Hook::Egress => TcAttachType::Egress,
        Hook::Ingress | Hook::Xdp => TcAttachType::Ingress,
    }
}

fn bit(program: Program) -> u32 {
    1 << program as u32
}

fn handle(program: Program) -> TcHandle {
    TcHandle::new(0, 1 + program as u16)
}

/// Our filter of `program` on a device, whether or not it is there.
fn classifier(program: Program, name: &str) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(name, direction(program), CLSACT_PRIORITY, handle(program), None)
}

fn interface(ifindex: u32) -> Option<String> {
    nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok()
}
