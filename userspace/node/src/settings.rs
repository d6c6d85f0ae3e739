//! Settings: what a user may change, whether this node can follow, and what follows.
//!
//! Edits come by the local API and from the configuration file; a locked file wins. Deliberately not here: the preferences'
//! form (`wire::local`), registration (`login`).

use std::time::Instant;

use wire::control::AuthKey;
use wire::local::{MaskedPrefs, Options, Pref, Prefs, ReloadConfigResponse};

use crate::config_file::ConfigFile;
use crate::daemon::Daemon;
use crate::identity::core_prefs;
use crate::kernel::Command;
use crate::local_api::{Refusal, Reply};
use crate::login::{Attempt, server_url};
use crate::peer_relay;

impl Daemon {
    /// Changes some settings; answers when they are stored, or when the data plane is gone.
    pub(crate) fn edit_prefs(
        &mut self,
        edit: &MaskedPrefs,
        reply: Reply<Result<Prefs, Refusal>>,
        now: Instant,
    ) {
        let mut prefs = self.state.prefs.clone();
        prefs.apply(edit);
        let allowed =
            self.unlocked(&edit.set.iter().copied().collect::<Vec<_>>()).and_then(|()| check(&prefs));
        if let Err(refusal) = allowed {
            _ = reply.send(Err(refusal));
            return;
        }
        let goes_down = self.state.prefs.want_running && !prefs.want_running;
        self.take_prefs(prefs, now);
        let prefs = self.visible_prefs();
        if goes_down {
            // `down` returns when nothing is left.
            self.waiting_for_down.push(Box::new(move |gone| _ = reply.send(gone.map(|()| prefs))));
            self.order(Command::Remove);
        } else {
            _ = reply.send(Ok(prefs));
        }
    }

    /// Stores the settings and follows them.
    fn take_prefs(&mut self, prefs: Prefs, now: Instant) {
        if prefs == self.state.prefs {
            return;
        }
        let before = std::mem::replace(&mut self.state.prefs, prefs);
        let prefs = &self.state.prefs;
        let reconnects =
            prefs.want_running != before.want_running || server_url(prefs) != server_url(&before);
        self.leave_other_server();
        self.save();
        self.node.handle_prefs(core_prefs(&self.state.prefs), now);
        self.report_to_control();
        self.follow_relay();
        self.tell_prefs();
        if reconnects {
            self.connect();
        }
    }

    /// Whether the configuration file leaves these settings to the user.
    fn unlocked(&self, changed: &[Pref]) -> Result<(), Refusal> {
        let Some(file) = self.config_file.as_ref().filter(|file| file.locked) else { return Ok(()) };
        match changed.iter().find(|pref| file.edit.set.contains(pref)) {
            None => Ok(()),
            Some(pref) => Err(Refusal::Invalid(format!(
                "{} is set by the configuration file; change it there and run `underpass debug reload-config`, or set \
                 \"Locked\": false in the file",
                pref.name()
            ))),
        }
    }

    /// Takes settings and auth key of an `up`, and begins to log in.
    pub(crate) fn start(&mut self, options: Options, now: Instant) -> Result<(), Refusal> {
        if let Some(prefs) = options.update_prefs {
            check(&prefs)?;
            let changed: Vec<Pref> =
                Pref::ALL.iter().copied().filter(|pref| !prefs.agrees(&self.state.prefs, *pref)).collect();
            self.unlocked(&changed)?;
            self.take_prefs(Prefs { persist: None, ..prefs }, now);
        }
        if !options.auth_key.is_empty() {
            self.login.auth_key = Some(AuthKey(options.auth_key));
        }
        let needs_login =
            self.state.login.is_none() || self.facts(now).expired || self.state.prefs.logged_out;
        if needs_login && self.login.auth_key.is_some() {
            self.login.attempt = Attempt::Alone;
            self.begin_login(now);
        }
        Ok(())
    }

    /// Reads the configuration file again.
    pub(crate) fn reload_config(&mut self, now: Instant) -> ReloadConfigResponse {
        let Some(path) = &self.config.config_file else { return ReloadConfigResponse::default() };
        let taken = ConfigFile::read(path).and_then(|file| {
            let mut prefs = self.state.prefs.clone();
            prefs.apply(&file.edit);
            check(&prefs).map_err(|refusal| refusal.to_string())?;
            Ok((file, prefs))
        });
        match taken {
            Ok((file, prefs)) => {
                self.config_file = Some(file);
                self.take_prefs(prefs, now);
                ReloadConfigResponse { reloaded: true, err: String::new() }
            }
            Err(err) => ReloadConfigResponse { reloaded: false, err },
        }
    }
}

/// Whether this node can do what the settings ask.
pub(crate) fn check(prefs: &Prefs) -> Result<(), Refusal> {
    let refuse = |text: String| Err(Refusal::Invalid(text));
    if prefs.run_ssh {
        return refuse("this node has no SSH server: leave --ssh out and use the system's sshd".into());
    }
    if !prefs.exit_node_id.0.is_empty() || prefs.exit_node_ip.0.is_some() || !prefs.auto_exit_node.is_empty()
    {
        return refuse("this node cannot use an exit node yet: leave --exit-node out".into());
    }
    if let Some(route) = prefs.advertise_routes.iter().find(|route| route.trunc() != **route) {
        return refuse(format!("{route} has bits behind its prefix; did you mean {}?", route.trunc()));
    }
    if let Some(tag) = prefs.advertise_tags.iter().find(|tag| !tag.starts_with("tag:")) {
        return refuse(format!("{tag:?} is not a tag: tags begin with \"tag:\""));
    }
    if let Err(why) = peer_relay::check(prefs) {
        return refuse(why);
    }
    if !prefs.control_url.is_empty()
        && let Err(error) = prefs.control_url.parse::<crate::control::ServerUrl>()
    {
        return refuse(error.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn settings_this_node_cannot_follow_are_refused_by_name() {
        let fresh = Prefs::new;
        assert_eq!(check(&fresh()), Ok(()));
        let cases = [
            (Prefs { run_ssh: true, ..fresh() }, "--ssh"),
            (Prefs { exit_node_ip: IpAddr::from([100, 64, 0, 9]).into(), ..fresh() }, "--exit-node"),
            (Prefs { advertise_routes: vec!["10.0.0.1/8".parse().unwrap()], ..fresh() }, "10.0.0.0/8"),
            (Prefs { advertise_tags: vec!["gw".into()], ..fresh() }, "tag:"),
            (Prefs { control_url: "control.example".into(), ..fresh() }, "https://"),
        ];
        for (prefs, wanted) in cases {
            let refusal = check(&prefs).unwrap_err().to_string();
            assert!(refusal.contains(wanted), "{refusal}");
        }
    }
}
