//! A network namespace that is a thread: what runs on it is in the namespace, and it goes when the thread ends.

use std::io::Write as _;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A namespace with `lo` up and nothing else. Nobody else can see it, so it needs no name and no clean-up.
pub struct Namespace {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    tid: i32,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Panics
    /// Without root.
    #[expect(clippy::new_without_default, reason = "making a namespace is not a default")]
    pub fn new() -> Self {
        let (jobs, queue) = channel::<Job>();
        let (ready, tid) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
            ready.send(nix::unistd::gettid().as_raw()).expect("the maker waits");
            queue.into_iter().for_each(|job| job());
        });
        let tid = tid.recv().expect("the namespace's thread started");
        let namespace = Self { jobs: Some(jobs), thread: Some(thread), tid };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `work` inside and returns what it returns; a panic inside is one here.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // The receiver waits below.
            let _ = done.send(outcome);
        };
        self.jobs.as_ref().expect("open until dropped").send(Box::new(job)).expect("the thread lives");
        match result.recv().expect("the job answers") {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs `ip` with these arguments inside.
    pub fn ip(&self, arguments: &str) {
        assert!(self.try_ip(arguments), "ip {arguments}");
    }

    /// As [`Self::ip`]; false if it fails, for what not every kernel has.
    pub fn try_ip(&self, arguments: &str) -> bool {
        let arguments = arguments.to_owned();
        self.run(move || run("ip", &arguments, None))
    }

    /// Loads nftables commands inside.
    pub fn nft(&self, commands: &str) {
        let input = commands.to_owned();
        assert!(self.run(move || run("nft", "-f -", Some(&input))), "nft: {commands}");
    }

    /// Packets counted by the first counting rule of the chain `inet test input` inside.
    pub fn nft_counter(&self) -> u64 {
        let list = ["-j", "list", "chain", "inet", "test", "input"];
        let listed = self.run(move || Command::new("nft").args(list).output().expect("nft runs"));
        let json: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("nft prints JSON");
        let rows = json["nftables"].as_array().expect("a list of objects");
        let statements = rows.iter().filter_map(|row| row["rule"]["expr"].as_array()).flatten();
        statements
            .filter_map(|statement| statement["counter"]["packets"].as_u64())
            .next()
            .expect("a rule counts")
    }

    /// Whether an XDP program is attached to a device in its driver, as `ip` tells.
    pub fn is_native_xdp(&self, device: &str) -> bool {
        let arguments = ["-j", "link", "show", device].map(str::to_owned);
        let shown = self.run(move || Command::new("ip").args(arguments).output().expect("ip runs"));
        let json: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("ip prints JSON");
        json[0]["xdp"]["mode"] == 1
    }

    /// Joins this namespace to `other` by a veth pair with these names, and brings both ends up.
    pub fn join(&self, name: &str, other: &Self, other_name: &str) {
        let place = format!("/proc/{}/task/{}/ns/net", std::process::id(), other.tid);
        self.ip(&format!("link add {name} type veth peer name {other_name} netns {place}"));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set {other_name} up"));
    }

    /// The index of a device inside.
    pub fn ifindex(&self, name: &str) -> u32 {
        let name = name.to_owned();
        self.run(move || nix::net::if_::if_nametoindex(name.as_str()).expect("the device exists"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A job's panic was passed on when it happened.
            let _ = thread.join();
        }
    }
}

/// Waits until `condition` holds, for at most five seconds.
///
/// # Panics
/// When it does not.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 5 s in vain for: {what}");
        std::thread::yield_now();
    }
}

fn run(program: &str, arguments: &str, input: Option<&str>) -> bool {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace()).stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.unwrap_or_default().as_bytes()).expect("the program reads its input");
    drop(stdin);
    child.wait().expect("it was started").success()
}
