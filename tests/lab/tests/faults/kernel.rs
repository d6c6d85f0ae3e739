//! Machines that lack something: root, a WireGuard module, the BPF file system.

use lab::{Server, node};

use crate::{Bench, complains, ended};

#[test]
fn without_root_the_node_says_what_it_needs() -> anyhow::Result<()> {
    if lab::skipped("without_root_the_node_says_what_it_needs") {
        return Ok(());
    }
    let bench = Bench::build()?;
    // The unprivileged user can execute a copy of the program, and has a folder.
    let folder = bench.lab.folder().join("nobody");
    std::fs::create_dir_all(&folder)?;
    let binary = folder.join("underpass");
    std::fs::copy(lab::underpass()?, &binary)?;
    let lab = bench.lab.folder().display();
    bench.host.sh(&format!("chmod 755 {lab}; chown -R 65534:65534 {}", folder.display()))?;
    let mut node = bench.host.command("setpriv")?;
    node.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
    node.arg("node").arg("--state").arg(folder.join("state")).arg("--socket").arg(folder.join("s"));
    let output = ended(&mut node)?;
    complains(&output, &["needs root", "sudo", "CAP_NET_ADMIN"]);
    assert_eq!(output.status.code(), Some(3));
    Ok(())
}

#[test]
fn without_kernel_wireguard_its_flag_says_how_to_get_it() -> anyhow::Result<()> {
    let name = "without_kernel_wireguard_its_flag_says_how_to_get_it";
    if lab::skipped(name) {
        return Ok(());
    }
    let bench = Bench::build()?;
    if bench.host.ip("link add probe type wireguard").is_ok() {
        println!("SKIPPED: {name}: this kernel has WireGuard");
        return Ok(());
    }
    let server = bench.server(&[])?;
    let key = server.auth_key("alice", &[])?;
    let flags = ["--wireguard".to_owned(), "kernel".to_owned()].into();
    let node = bench.node_on(&bench.host, &server, node::Options { flags, ..node::Options::default() })?;
    let output =
        node.cli(&["up", "--login-server", &Server::url(), "--auth-key", &key, "--timeout", "10s"])?;
    complains(&output, &["no WireGuard", "modprobe wireguard", "--wireguard embedded"]);
    Ok(())
}

#[test]
fn a_missing_bpf_file_system_is_mounted() -> anyhow::Result<()> {
    if lab::skipped("a_missing_bpf_file_system_is_mounted") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let key = server.auth_key("alice", &[])?;
    // A mount namespace of its own, so that nothing of it is seen outside.
    let strip = "while umount -l /sys/fs/bpf 2>/dev/null; do :; done; exec \"$@\"";
    let wrapper = ["unshare", "--mount", "sh", "-c", strip, "sh"].map(str::to_owned).into();
    let node = bench.node_on(&bench.host, &server, node::Options { wrapper, ..node::Options::default() })?;
    node.up(&key, &[])?;
    let process = format!("/proc/{}", node.process.id());
    let mounts = std::fs::read_to_string(format!("{process}/mounts"))?;
    let mounted = mounts.lines().filter(|line| line.contains(" /sys/fs/bpf bpf ")).count();
    assert_eq!(mounted, 1, "{mounts}");
    let pins = std::fs::read_dir(format!("{process}/root/sys/fs/bpf/underpass/v2"))?.count();
    assert_eq!(pins, 1);
    Ok(())
}
