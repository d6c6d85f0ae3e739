//! Damaged files and files of a newer version: never replaced silently.

use lab::{Node, until};

use crate::{Bench, SOON, complains};

/// A node that was in the network and was killed.
fn killed<'lab>(
    bench: &'lab Bench,
    server: &lab::Server<'_>,
) -> anyhow::Result<(Node<'lab>, std::net::IpAddr)> {
    let mut node = bench.node(server)?;
    node.up(&server.auth_key("alice", &[])?, &[])?;
    let address = node.address(false)?;
    node.process.kill()?;
    Ok((node, address))
}

/// Starts the daemon again and returns what it says as it ends.
fn relaunched(node: &mut Node<'_>) -> anyhow::Result<(Option<i32>, String)> {
    node.relaunch()?;
    let status = until("the node ends", SOON, || node.process.ended())?;
    Ok((status.code(), node.process.log()))
}

#[test]
fn a_torn_state_file_is_never_replaced_silently() -> anyhow::Result<()> {
    if lab::skipped("a_torn_state_file_is_never_replaced_silently") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let (mut node, before) = killed(&bench, &server)?;
    let [file, previous] =
        ["underpass.state", "underpass.state.previous"].map(|name| node.state().join(name));
    let whole = std::fs::read(&file)?;
    std::fs::write(&file, &whole[..whole.len() / 2])?;
    node.relaunch()?;
    node.ready()?;
    until("the previous generation is used", SOON, || (node.address(false).ok()? == before).then_some(()))?;
    crate::warns(&node, &["underpass.state", "torn", "previous generation"])?;

    node.process.kill()?;
    let torn = [&whole[..whole.len() / 3], &whole[..whole.len() / 2]];
    std::fs::write(&file, torn[0])?;
    std::fs::write(&previous, torn[1])?;
    let (code, said) = relaunched(&mut node)?;
    assert_eq!(code, Some(7), "{said}");
    for word in ["underpass.state", "torn", "restore one from a backup", "remove both"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert_eq!([std::fs::read(&file)?, std::fs::read(&previous)?], torn);
    Ok(())
}

#[test]
fn a_state_file_of_a_newer_version_is_left_alone() -> anyhow::Result<()> {
    if lab::skipped("a_state_file_of_a_newer_version_is_left_alone") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let (mut node, _) = killed(&bench, &server)?;
    let file = node.state().join("underpass.state");
    let newer = std::fs::read_to_string(&file)?.replacen("\"version\":1,", "\"version\":99,", 1);
    assert!(newer.contains("99"), "the file has no version");
    std::fs::write(&file, &newer)?;
    let (code, said) = relaunched(&mut node)?;
    assert_eq!(code, Some(7), "{said}");
    for word in ["underpass.state", "newer version", "format 99", "install that version"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert_eq!(std::fs::read_to_string(&file)?, newer);
    Ok(())
}

#[test]
fn a_database_that_cannot_be_used_is_named_and_left_alone() -> anyhow::Result<()> {
    if lab::skipped("a_database_that_cannot_be_used_is_named_and_left_alone") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let database = bench.lab.folder().join("failing/state.db");
    let garbage = "this is no database ".repeat(1000);
    std::fs::create_dir_all(bench.lab.folder().join("failing"))?;
    std::fs::write(&database, &garbage)?;
    complains(&bench.failed_server(&[])?, &["failing/state.db", "not a database"]);
    assert_eq!(std::fs::read_to_string(&database)?, garbage);
    Ok(())
}
