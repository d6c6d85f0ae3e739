//! A site: a thread in a network namespace of its own, which runs what a test hands to it.

use std::future::Future;
use std::io::Write as _;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce(&tokio::runtime::Runtime) + Send>;

/// Ends with its value; its devices go with the namespace.
pub(crate) struct Site {
    jobs: Sender<Job>,
    thread: i32,
}

/// False without root, after saying so where xtask counts it.
pub(crate) fn can_run(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped(test, "it makes network namespaces, which needs root");
    }
    root
}

/// Says where xtask counts it that a test could not run.
pub(crate) fn skipped(test: &str, why: &str) {
    // Past the test harness, which swallows what print! writes.
    let line = format!("SKIPPED: {test}: {why}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

impl Site {
    pub(crate) fn new() -> Self {
        let (jobs, inbox) = channel::<Job>();
        let (started, thread) = channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            started.send(nix::unistd::gettid().as_raw()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            inbox.into_iter().for_each(|job| job(&runtime));
        });
        let site = Self { jobs, thread: thread.recv().unwrap() };
        site.sh("ip link set lo up");
        site
    }

    /// Two sites on one wire: 192.0.2.1 and 192.0.2.2, 2001:db8::1 and ::2.
    pub(crate) fn pair() -> (Self, Self) {
        let (a, b) = (Self::new(), Self::new());
        a.sh(&format!("ip link add wire type veth peer name wire netns {}", b.thread));
        for (site, n) in [(&a, 1), (&b, 2)] {
            site.sh(&format!("ip address add 192.0.2.{n}/24 dev wire"));
            site.sh(&format!("ip address add 2001:db8::{n}/64 dev wire nodad"));
            site.sh("ip link set wire up");
        }
        (a, b)
    }

    /// Runs a future on the site's thread.
    pub(crate) fn run<T, F>(&self, job: impl FnOnce() -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let (done, result) = channel();
        let job = move |runtime: &tokio::runtime::Runtime| {
            let _ = done.send(runtime.block_on(async { job().await }));
        };
        self.jobs.send(Box::new(job)).unwrap();
        result.recv().expect("the job of the site ended in a panic, printed above")
    }

    /// Runs a command (split at spaces, no shell) and returns what it printed; panics when it fails.
    pub(crate) fn sh(&self, command: &str) -> String {
        let (text, good) = self.try_sh(command);
        assert!(good, "{command}: {text}");
        text
    }

    /// Runs a command; false when it failed.
    pub(crate) fn try_sh(&self, command: &str) -> (String, bool) {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        self.run(move || async move {
            let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            (String::from_utf8_lossy(&text).into_owned(), output.status.success())
        })
    }

    /// Pings until an answer comes; panics after ten seconds.
    pub(crate) fn ping(&self, address: &str) {
        wait_for(&format!("answer of {address}"), || self.try_sh(&format!("ping -c 1 -W 1 {address}")).1);
    }
}

/// Waits for a condition, ten seconds at most.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "no {what} within ten seconds");
        std::thread::yield_now();
    }
}
