//! `underpass up`: from whatever state to Running, with a person's help where one is needed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout_at};
use wire::local::{MaskedPrefs, Notify, NotifyMask, Options, Pref, Prefs, State, Status, WarningResponse};

use crate::client::{Client, Stream};
use crate::exit::TimedOut;
use crate::setting::{self, Settings};
use crate::{duration, output};

/// After this long without news, `up` says what it waits for.
const QUIET: Duration = Duration::from_secs(1);
/// What "no timeout" is: beyond any patience, and still a valid instant.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// `underpass up`
#[derive(Args)]
#[command(
    after_help = crate::exit::HELP,
    long_about = "Connect this machine to its network, logging in if needed.\n\nWithout flags it brings the node up \
as it was. With flags, they are all the settings: one that was made before and is not mentioned now is an error, \
unless --reset puts it back to its default. To change one setting, use `underpass set`."
)]
pub(crate) struct Up {
    /// URL of the coordination server, such as https://vpn.example.com.
    #[arg(long, value_name = "URL")]
    login_server: Option<String>,
    /// Auth key that admits this node without a person; `file:PATH` reads it from a file.
    #[arg(long, value_name = "KEY", env = "UNDERPASS_AUTH_KEY", hide_env_values = true)]
    auth_key: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Put settings that are not mentioned back to their defaults.
    #[arg(long)]
    reset: bool,
    /// Log in again although the node is logged in.
    #[arg(long)]
    force_reauth: bool,
    /// Give up after this long, such as 30s; 0 waits forever.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    output: output::Json,
}

/// What `--json` prints, one block an event, as the stock command does.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Block {
    #[serde(rename = "AuthURL", skip_serializing_if = "String::is_empty")]
    auth_url: String,
    backend_state: &'static str,
}

/// How to reach the state that is asked for.
enum Plan {
    /// Only these settings change; the node is and stays up.
    Edit(Box<MaskedPrefs>),
    /// Up as it was.
    Resume,
    /// Log in, or start anew with these settings.
    Start(Box<Prefs>),
}

impl Up {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let deadline =
            Instant::now() + if self.timeout.is_zero() { FOREVER } else { self.timeout.min(FOREVER) };
        let auth_key = self.auth_key.as_deref().map(read_key).transpose()?.unwrap_or_default();
        let status = node.status(false).await?;
        let current = node.prefs().await?;
        let plan = self.plan(&status, &current)?;
        // From before the change, so that nothing it causes is missed.
        let mut bus = node.watch(NotifyMask::default()).await?;
        match plan {
            Plan::Edit(edit) => {
                node.edit_prefs(&edit).await?;
            }
            Plan::Resume => {
                let prefs = Prefs { want_running: true, ..Prefs::default() };
                let edit = MaskedPrefs { prefs, set: [Pref::WantRunning].into(), ..MaskedPrefs::default() };
                node.edit_prefs(&edit).await?;
            }
            Plan::Start(prefs) => {
                node.check_prefs(&prefs).await?;
                let interactive = self.force_reauth || (auth_key.is_empty() && !status.have_node_key);
                let options = Options { update_prefs: Some(*prefs), auth_key, ..Options::default() };
                node.post_json("start", &options).await?;
                if interactive {
                    node.post_unit("login-interactive").await?;
                }
            }
        }
        self.wait(node, &mut bus, deadline).await?;
        warn_of_forwarding(node, &node.prefs().await?).await;
        Ok(())
    }

    fn plan(&self, status: &Status, current: &Prefs) -> anyhow::Result<Plan> {
        let edit = self.settings.edit();
        let known = !current.control_url.is_empty();
        let logged_in = status.have_node_key && status.backend_state != State::NeedsLogin;
        let bare = edit.is_empty() && self.login_server.is_none() && self.auth_key.is_none();
        if bare && logged_in && !self.reset && !self.force_reauth {
            return Ok(Plan::Resume);
        }
        let server = self.server(current)?;
        let mut prefs = current.clone();
        if self.reset {
            setting::reset(&mut prefs, &edit);
        } else if known && !bare {
            self.check_mentioned(current, &edit)?;
        }
        prefs.apply(&edit);
        prefs.want_running = true;
        prefs.logged_out = false;
        prefs.control_url = server;
        let moved = prefs.control_url != current.control_url;
        if moved && known && status.backend_state == State::Running && !self.force_reauth {
            bail!("this node is up at {}; to move it, add --force-reauth", current.control_url);
        }
        let tags_moved = !prefs.agrees(current, Pref::AdvertiseTags);
        let running = status.backend_state == State::Running;
        if running && !moved && !tags_moved && self.auth_key.is_none() && !self.force_reauth {
            let set = Pref::ALL.iter().copied().filter(|&pref| !prefs.agrees(current, pref)).collect();
            return Ok(Plan::Edit(Box::new(MaskedPrefs { prefs, set, ..MaskedPrefs::default() })));
        }
        Ok(Plan::Start(Box::new(prefs)))
    }

    fn server(&self, current: &Prefs) -> anyhow::Result<String> {
        let url = match &self.login_server {
            Some(url) => url.trim_end_matches('/'),
            None if current.control_url.is_empty() => {
                bail!("--login-server is missing: give the URL of the network's server, https://HOST")
            }
            None => &current.control_url,
        };
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if host.is_none_or(str::is_empty) {
            bail!("--login-server {url}: not a URL; give it as https://HOST or https://HOST:PORT");
        }
        Ok(url.to_owned())
    }

    /// Refuses to lose settings in silence.
    fn check_mentioned(&self, current: &Prefs, edit: &MaskedPrefs) -> anyhow::Result<()> {
        let lost = setting::unmentioned(current, edit);
        if lost.is_empty() {
            return Ok(());
        }
        let server = self.login_server.iter().map(|url| format!("--login-server={url}"));
        let flags: Vec<String> = server.chain(setting::mentioned(edit)).chain(lost).collect();
        bail!(
            "changing settings via `underpass up` requires mentioning all non-default flags.\nEither run it again \
             with --reset, or mention all current settings:\n\n\tunderpass up {}\n\n(`underpass set` changes \
             single settings.)",
            flags.join(" ")
        )
    }

    /// Follows the bus until the node is up.
    async fn wait(&self, node: &Client, bus: &mut Stream, deadline: Instant) -> anyhow::Result<()> {
        let mut progress = Progress { json: self.output.json, ..Progress::default() };
        // What was asked for may be so already, and then no message comes.
        let mut status = node.status(false).await?;
        if !status.auth_url.is_empty() && self.auth_key.is_none() {
            progress.auth_url(&status.auth_url, status.backend_state)?;
        }
        let mut quiet = Instant::now() + QUIET;
        while status.backend_state != State::Running {
            tokio::select! {
                notify = timeout_at(deadline, bus.notify()) => match notify {
                    Ok(notify) => self.heed(&notify?, &mut progress, status.backend_state)?,
                    Err(_) => return Err(late(self.timeout, &status).into()),
                },
                () = sleep_until(quiet) => {
                    progress.waiting(&status);
                    quiet = Instant::now() + FOREVER;
                    continue;
                }
            }
            status = node.status(false).await?;
        }
        progress.done()
    }

    fn heed(&self, notify: &Notify, progress: &mut Progress, state: State) -> anyhow::Result<()> {
        if let Some(message) = &notify.err_message {
            bail!("{message}");
        }
        match &notify.browse_to_url {
            // With a key, a URL can only be left from an earlier login that was not finished.
            Some(url) if self.auth_key.is_none() && !url.is_empty() => progress.auth_url(url, state),
            _ => Ok(()),
        }
    }
}

/// What the user has been told so far.
#[derive(Default)]
struct Progress {
    json: bool,
    shown_url: String,
    talked: bool,
}

impl Progress {
    fn auth_url(&mut self, url: &str, state: State) -> anyhow::Result<()> {
        if self.shown_url == url {
            return Ok(());
        }
        url.clone_into(&mut self.shown_url);
        self.talked = true;
        if self.json {
            return output::json(&Block { auth_url: url.to_owned(), backend_state: state.name() });
        }
        eprintln!("\nTo authenticate, visit:\n\n\t{url}\n");
        Ok(())
    }

    fn waiting(&mut self, status: &Status) {
        if !self.json && self.shown_url.is_empty() {
            self.talked = true;
            let why = status.health.first().map(|problem| format!(": {problem}")).unwrap_or_default();
            eprintln!("Waiting, the node is in state {}{why}", status.backend_state);
        }
    }

    fn done(&self) -> anyhow::Result<()> {
        if self.json {
            return output::json(&Block { backend_state: State::Running.name(), ..Block::default() });
        }
        if self.talked {
            eprintln!("Success.");
        }
        Ok(())
    }
}

fn late(timeout: Duration, status: &Status) -> TimedOut {
    let problems: String = status.health.iter().map(|problem| format!("\n  - {problem}")).collect();
    TimedOut(format!(
        "the node is not up after {}: its state is {}{problems}\nSee `underpass status` and the node's log.",
        duration::rough(timeout),
        status.backend_state
    ))
}

/// The key itself, or the file's first word.
fn read_key(text: &str) -> anyhow::Result<String> {
    let Some(path) = text.strip_prefix("file:") else { return Ok(text.to_owned()) };
    let path = PathBuf::from(path);
    let key =
        std::fs::read_to_string(&path).with_context(|| format!("--auth-key file {}", path.display()))?;
    let key = key.trim();
    if key.is_empty() {
        bail!("--auth-key file {} is empty", path.display());
    }
    Ok(key.to_owned())
}

/// Says so when the machine would not forward what was promised to the network.
pub(super) async fn warn_of_forwarding(node: &Client, prefs: &Prefs) {
    if prefs.advertise_routes.is_empty() {
        return;
    }
    // A warning that cannot be had is none: what was asked for is done.
    if let Ok(WarningResponse { warning }) = node.get("check-ip-forwarding").await
        && !warning.is_empty()
    {
        eprintln!("warning: {warning}");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: Up,
    }

    fn up(flags: &[&str]) -> Up {
        Line::try_parse_from([&["up"], flags].concat()).unwrap().up
    }

    fn at(state: State) -> Status {
        Status { backend_state: state, have_node_key: state != State::NeedsLogin, ..Status::default() }
    }

    fn joined() -> Prefs {
        Prefs { control_url: "https://a".into(), hostname: "gw".into(), ..Prefs::new() }
    }

    #[test]
    fn the_first_up_starts_with_what_is_given_over_the_defaults() {
        let plan =
            up(&["--login-server=https://a/", "--hostname=gw"]).plan(&at(State::NeedsLogin), &Prefs::new());
        let Ok(Plan::Start(prefs)) = plan else { panic!("not a start") };
        assert_eq!(*prefs, Prefs { want_running: true, ..joined() });
    }

    #[test]
    fn a_bare_up_resumes_and_without_a_login_starts() {
        assert!(matches!(up(&[]).plan(&at(State::Stopped), &joined()), Ok(Plan::Resume)));
        assert!(matches!(up(&[]).plan(&at(State::NeedsLogin), &joined()), Ok(Plan::Start(_))));
    }

    #[test]
    fn while_running_only_what_differs_is_edited() {
        let plan = up(&["--hostname=gw", "--accept-routes"]).plan(&at(State::Running), &joined());
        let Ok(Plan::Edit(edit)) = plan else { panic!("not an edit") };
        assert!(edit.set.contains(&Pref::RouteAll) && !edit.set.contains(&Pref::Hostname));
    }

    #[track_caller]
    fn refused(flags: &[&str], state: State, prefs: &Prefs) -> String {
        match up(flags).plan(&at(state), prefs) {
            Ok(_) => panic!("{flags:?} was accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn settings_are_not_lost_in_silence() {
        let text = refused(&["--accept-routes"], State::Running, &joined());
        assert!(text.contains("underpass up --accept-routes --hostname=gw"), "{text}");
        let plan = up(&["--accept-routes", "--reset"]).plan(&at(State::Running), &joined());
        let Ok(Plan::Edit(edit)) = plan else { panic!("not an edit") };
        assert!(edit.set.contains(&Pref::Hostname) && edit.prefs.hostname.is_empty());
    }

    #[test]
    fn servers_are_urls_and_are_not_changed_by_the_way() {
        assert!(refused(&[], State::NeedsLogin, &Prefs::new()).contains("--login-server is missing"));
        assert!(refused(&["--login-server=gw"], State::NeedsLogin, &Prefs::new()).contains("https://HOST"));
        let text = refused(&["--login-server=https://b", "--hostname=gw"], State::Running, &joined());
        assert!(text.contains("https://a") && text.contains("--force-reauth"), "{text}");
    }

    #[test]
    fn keys_come_from_files_without_their_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "secret\n").unwrap();
        let argument = format!("file:{}", path.display());
        assert_eq!(read_key(&argument).unwrap(), "secret");
        std::fs::write(&path, "\n").unwrap();
        assert!(read_key(&argument).unwrap_err().to_string().contains("empty"));
        assert!(read_key("file:/nowhere/key").unwrap_err().to_string().contains("/nowhere/key"));
        assert_eq!(read_key("plain").unwrap(), "plain");
    }
}
