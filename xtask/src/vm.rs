//! `vm`: a Debian kernel in qemu with this machine's own programs inside, for what the host's kernel lacks.
//!
//! The guest boots in seconds: a busybox initramfs with the modules we need, the host's root shared read-only over 9p under
//! an overlay in memory, one writable folder shared, one command. Its output arrives on the second serial port; the exit
//! status comes back in the shared folder. Software emulation (TCG) always: compare ratios there, never absolute figures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::step::{self, command, find, output};
use crate::test::Tally;

/// Modules that the lab and the node use, in no particular order: dependencies are resolved.
const MODULES: &str = "virtio_pci virtio_console 9pnet_virtio 9p overlay veth bridge tun wireguard udp_tunnel ip6_udp_tunnel \
    nf_tables nf_conntrack nf_nat nft_chain_nat nft_nat nft_masq nft_ct nft_limit nft_reject_inet nft_reject_ipv4 nft_fib_inet \
    nf_conntrack_netlink sch_netem sch_fq_codel sch_ingress cls_bpf dummy 8021q chacha20poly1305 algif_aead";

/// The first program in the guest: modules, mounts, then the shared folder's command.
const INIT: &str = r#"#!/bin/busybox sh
B=/bin/busybox
$B mkdir -p /proc /sys /dev /lower /over /root
$B mount -t proc p /proc; $B mount -t sysfs s /sys; $B mount -t devtmpfs d /dev
for m in /mod/*; do $B insmod $m || $B echo "insmod $m failed" > /dev/kmsg; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower
$B mount -t tmpfs t /over; $B mkdir /over/upper /over/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/over/upper,workdir=/over/work o /root
$B mkdir -p /root/share
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share /root/share
$B mount -t proc p /root/proc; $B mount -t sysfs s /root/sys; $B mount -t devtmpfs d /root/dev
$B mkdir -p /root/dev/pts; $B mount -t devpts d /root/dev/pts
for t in run tmp; do $B mount -t tmpfs t /root/$t; done
$B mount -t cgroup2 c /root/sys/fs/cgroup
$B chroot /root /bin/sh /share/command > /dev/ttyS1 2>&1 < /dev/null
$B echo $? > /root/share/status
$B sync; $B echo o > /proc/sysrq-trigger; $B sleep 10
"#;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series of Debian's archive
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Shell code to run inside; without it, the lab's tests
    command: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.command.is_empty() {
        let underpass = crate::build::underpass(true)?;
        let tally = lab(&args.kernel, &underpass, None)?;
        println!("{tally}");
        return Ok(());
    }
    let guest = Guest::prepare(&args.kernel)?;
    let status = guest.start(&args.command.join(" "))?.status()?;
    if !status.success() {
        bail!("qemu ended with {status}; its console is in {}", guest.folder.join("console").display());
    }
    std::process::exit(guest.exit_status()?);
}

/// Runs the lab's mesh tests on a guest kernel, with kernel WireGuard demanded.
pub(crate) fn lab(series: &str, underpass: &Path, filter: Option<&str>) -> anyhow::Result<Tally> {
    let guest = match Guest::prepare(series) {
        Ok(guest) => guest,
        Err(error) => {
            println!("SKIPPED: guest kernel {series}: {error:#}");
            return Ok(Tally::skipped());
        }
    };
    let test = test_binary("lab", "mesh")?;
    let command = format!(
        "export PATH={} HOME=/root UNDERPASS_BIN={} UNDERPASS_WIREGUARD=kernel\n{} {} --show-output --test-threads=1",
        step::path().to_string_lossy(),
        underpass.display(),
        test.display(),
        filter.unwrap_or_default(),
    );
    let tally = crate::test::count(&mut guest.start(&command)?)?;
    match guest.exit_status() {
        Ok(_) => Ok(tally),
        Err(error) => {
            bail!("the guest ended early: {error:#}; console: {}", guest.folder.join("console").display())
        }
    }
}

/// Builds the tests of `package` and returns the executable of its test file `name`.
fn test_binary(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let mut build = step::cargo();
    build.args([
        "test",
        "--locked",
        "--no-run",
        "--message-format=json",
        "--package",
        package,
        "--test",
        name,
    ]);
    let messages = output(build.stderr(Stdio::inherit()))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no test {name} in {package}"))
}

/// A prepared kernel and initramfs.
struct Guest {
    folder: PathBuf,
}

impl Guest {
    /// Downloads the newest plain kernel image of `series` and packs its initramfs, once.
    fn prepare(series: &str) -> anyhow::Result<Self> {
        for tool in ["qemu-system-x86_64", "busybox", "cpio", "xz", "modprobe", "dpkg-deb"] {
            find(tool).with_context(|| format!("{tool} is missing: cargo xtask setup"))?;
        }
        let guest = Self { folder: step::cache().join("guest").join(series) };
        let stamp = guest.folder.join("made-of");
        let recipe = format!("{MODULES}\n{INIT}");
        if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
            return Ok(guest);
        }
        let _ = fs::remove_dir_all(&guest.folder);
        fs::create_dir_all(guest.folder.join("initramfs/bin"))?;
        fs::create_dir_all(guest.folder.join("initramfs/mod"))?;
        let version = guest.unpack_kernel(series)?;
        guest.pack_initramfs(&version)?;
        fs::write(stamp, recipe)?;
        Ok(guest)
    }

    fn unpack_kernel(&self, series: &str) -> anyhow::Result<String> {
        let pattern = format!(r"^linux-image-{}\.[0-9].*-amd64$", series.replace('.', r"\."));
        let search = || output(command("apt-cache").args(["search", "--names-only", &pattern]));
        let mut names = search()?;
        if names.is_empty() {
            let _ = output(command("apt-get").args(["-qq", "update"]));
            names = search()?;
        }
        // The cloud flavor has no 9p, the rt flavor another scheduler.
        let package = names
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| !name.contains("cloud") && !name.contains("-rt-"))
            .max_by_key(|name| {
                name.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect::<Vec<u32>>()
            })
            .with_context(|| format!("this machine's apt knows no linux-image-{series}.*-amd64"))?
            .to_owned();
        step::run(
            &format!("download {package}"),
            command("apt-get")
                .args(["-qq", "-o", "APT::Sandbox::User=root", "download", &package])
                .current_dir(&self.folder),
        )?;
        let archive = self.entry(|name| name.ends_with(".deb"))?;
        output(command("dpkg-deb").arg("-x").arg(archive).arg(self.folder.join("kernel")))?;
        let image = fs::read_dir(self.folder.join("kernel/boot"))?
            .filter_map(Result::ok)
            .find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"))
            .context("the package has no vmlinuz")?;
        fs::copy(image.path(), self.folder.join("vmlinuz"))?;
        let name = image.file_name().to_string_lossy().into_owned();
        Ok(name.trim_start_matches("vmlinuz-").to_owned())
    }

    fn entry(&self, wanted: impl Fn(&str) -> bool) -> anyhow::Result<PathBuf> {
        fs::read_dir(&self.folder)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())))
            .context("the download left no file")
    }

    fn pack_initramfs(&self, version: &str) -> anyhow::Result<()> {
        let kernel = self.folder.join("kernel");
        if !kernel.join("lib/modules").exists() {
            std::os::unix::fs::symlink("usr/lib", kernel.join("lib"))?;
        }
        output(command("depmod").arg("-b").arg(&kernel).arg(version))?;
        let root = self.folder.join("initramfs");
        let mut seen = Vec::new();
        for module in MODULES.split_whitespace() {
            let mut modprobe = command("modprobe");
            modprobe.arg("-d").arg(&kernel).args(["-S", version, "--show-depends", module]);
            // Built in, or absent from this series: the tests that need it say so.
            let Ok(listing) = output(&mut modprobe) else { continue };
            // "insmod FILE OPTIONS": Debian sets options for some modules; we want none.
            for file in
                listing.lines().filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next())
            {
                let file = file.to_owned();
                if seen.contains(&file) {
                    continue;
                }
                self.unpack_module(&file, seen.len(), &root)?;
                seen.push(file);
            }
        }
        let busybox = find("busybox").context("busybox is missing")?;
        fs::copy(&busybox, root.join("bin/busybox"))
            .with_context(|| format!("copy {}", busybox.display()))?;
        fs::write(root.join("init"), INIT)?;
        let pack = "chmod +x init && find . | cpio -o -H newc --quiet | gzip -1 > ../initrd";
        output(command("sh").args(["-c", pack]).current_dir(&root))?;
        Ok(())
    }

    /// Debian compresses modules; busybox's insmod wants them plain, in order of their dependencies.
    fn unpack_module(&self, file: &str, index: usize, root: &Path) -> anyhow::Result<()> {
        let name = Path::new(file).file_name().context("a module has a name")?.to_string_lossy();
        let target = root.join("mod").join(format!("{index:03}-{}", name.trim_end_matches(".xz")));
        if file.ends_with(".xz") {
            let plain = Command::new("xz").args(["-dc", file]).stderr(Stdio::inherit()).output()?;
            fs::write(target, plain.stdout)?;
        } else {
            fs::copy(file, target).with_context(|| format!("copy the module {file}"))?;
        }
        Ok(())
    }

    /// The command that boots the guest, runs shell code in it and powers it off; its output is the guest's.
    fn start(&self, code: &str) -> anyhow::Result<Command> {
        let share = self.folder.join("share");
        fs::create_dir_all(&share)?;
        let _ = fs::remove_file(share.join("status"));
        let prologue = "ip link set lo up; mkdir -p /run/netns /run/wireguard /run/lock; stty -F /dev/ttyS1 raw -echo; cd /\n";
        fs::write(share.join("command"), format!("{prologue}{code}\n"))?;
        let mut qemu = command("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072"])
            .args(["-display", "none", "-nic", "none", "-monitor", "none", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", self.folder.join("console").display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(self.folder.join("vmlinuz"))
            .arg("-initrd")
            .arg(self.folder.join("initrd"))
            .args(["-append", "console=ttyS0 panic=-1 quiet loglevel=4 tsc=reliable clocksource=tsc"])
            .args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"])
            .arg("-virtfs")
            .arg(format!(
                "local,path={},mount_tag=share,security_model=none,multidevs=remap",
                share.display()
            ));
        Ok(qemu)
    }

    fn exit_status(&self) -> anyhow::Result<i32> {
        let text =
            fs::read_to_string(self.folder.join("share/status")).context("the guest wrote no exit status")?;
        text.trim().parse().with_context(|| format!("exit status {text:?}"))
    }
}
