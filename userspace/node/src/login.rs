//! Login: the control client's life, registration and its ends, and the state that follows.
//!
//! One [`Login`] a daemon; its client is made for one server and replaced with it. Deliberately not here: what the control
//! protocol says (`control`), the settings' edits (`requests`).

use std::time::Instant;

use types::NodePublic;
use wire::control::{AuthKey, MapResponse, RegisterResponse, UserProfile};
use wire::local::{Empty, Notify, Persist, Prefs};

use crate::Error;
use crate::backend::Facts;
use crate::chores::Chore;
use crate::control::{self, Client, Failure, Registration, ServerUrl};
use crate::daemon::Daemon;
use crate::event_loop::Input;
use crate::health::code;
use crate::kernel::Command;
use crate::sockets::BYPASS_MARK;

/// Where a node without another server's URL registers, as the stock command does.
pub(crate) const DEFAULT_CONTROL_URL: &str = "https://controlplane.tailscale.com";

/// How a registration stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// None is under way.
    #[default]
    None,
    /// One that needs no person.
    Alone,
    /// One that may need a person: at this page, once control has told.
    Interactive(Option<String>),
}

/// The way to control.
#[derive(Default)]
pub(crate) struct Login {
    /// The client and the URL it was made for.
    pub(crate) client: Option<(String, Client)>,
    /// Names the client: an old one's last words are not heard.
    pub(crate) generation: u64,
    /// How a registration stands.
    pub(crate) attempt: Attempt,
    /// The key to register with; given by `start`, gone when it was used.
    pub(crate) auth_key: Option<AuthKey>,
    /// The node key that the next registration replaces.
    pub(crate) old_key: NodePublic,
    /// The node key has expired.
    pub(crate) expired: bool,
    /// A map stream is open.
    pub(crate) online: bool,
    /// Answered when the logout is done.
    pub(crate) logging_out: Vec<crate::local_api::Reply<Result<(), crate::local_api::Refusal>>>,
}

impl Login {
    /// No login yet; `auth_key` is for the first one.
    pub(crate) fn with_key(auth_key: Option<AuthKey>) -> Self {
        Self { auth_key, ..Self::default() }
    }

    /// The network changed: the connection is probably dead.
    pub(crate) fn reconnect(&self) {
        if let Some((_, client)) = &self.client {
            client.reconnect();
        }
    }

    /// Ends the map stream; control counts us as offline.
    pub(crate) fn pause(&mut self) {
        self.online = false;
        if let Some((_, client)) = &self.client {
            client.pause();
        }
    }

    /// The page a person should open.
    pub(crate) fn auth_url(&self) -> Option<&str> {
        match &self.attempt {
            Attempt::Interactive(url) => url.as_deref(),
            _ => None,
        }
    }
}

/// The server of these settings.
pub(crate) fn server_url(prefs: &Prefs) -> &str {
    if prefs.control_url.is_empty() { DEFAULT_CONTROL_URL } else { &prefs.control_url }
}

impl Daemon {
    /// What the state depends on.
    pub(crate) fn facts(&self, now: Instant) -> Facts {
        let own = self.node.self_node();
        Facts {
            want_running: self.state.prefs.want_running,
            logged_out: self.state.prefs.logged_out,
            registered: self.state.login.is_some(),
            expired: self.login.expired || self.node.is_key_expired(now),
            logging_in: self.login.attempt == Attempt::Alone,
            authorized: own.is_some_and(|own| own.machine_authorized),
            has_netmap: own.is_some(),
            plane_up: self.plane.is_some(),
        }
    }

    /// Tells watchers the state when it is another than they know.
    pub(crate) fn announce(&mut self, now: Instant) {
        let state = self.facts(now).state();
        if state != self.announced {
            tracing::info!(from = %self.announced, to = %state, "the backend's state changed");
            self.announced = state;
            self.tell(Notify { state: Some(state), ..Notify::default() });
        }
    }

    /// Registers with control and streams the map, if the settings want that.
    pub(crate) fn connect(&mut self) {
        let prefs = &self.state.prefs;
        let wanted = prefs.want_running || matches!(self.login.attempt, Attempt::Interactive(_));
        let has_way = self.state.login.is_some() || self.login.attempt != Attempt::None;
        if !wanted || prefs.logged_out || !has_way {
            return self.login.pause();
        }
        if prefs.want_running && !matches!(self.login.attempt, Attempt::Interactive(_)) {
            // While control is asked there is time for it; a person may take for ever.
            self.order(Command::Prepare);
        }
        let registration = Registration {
            node_key: self.state.node_key.public(),
            old_node_key: self.login.old_key,
            auth_key: self.login.auth_key.clone(),
            ephemeral: false,
        };
        match self.client() {
            Ok(client) => client.register(registration),
            Err(error) => self.fail_login(error.to_string()),
        }
    }

    /// The client for the server of the settings, made anew when that is another.
    fn client(&mut self) -> Result<&Client, Error> {
        let url = server_url(&self.state.prefs).to_owned();
        if self.login.client.as_ref().is_none_or(|(current, _)| *current != url) {
            let server = url.parse::<ServerUrl>().map_err(|error| Error::Config(error.to_string()))?;
            let config = control::Config {
                server,
                machine: self.state.machine_key.clone(),
                trust: self.trust.clone(),
                mark: Some(BYPASS_MARK),
            };
            let (client, mut events) = Client::start(config, self.control_report());
            self.login.generation += 1;
            let (generation, inputs) = (self.login.generation, self.inputs.clone());
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    if inputs.send(Input::Control(generation, event)).await.is_err() {
                        return;
                    }
                }
            });
            self.login.client = Some((url, client));
        }
        let (_, client) = self.login.client.as_ref().expect("it was made just now");
        Ok(client)
    }

    fn control_report(&self) -> control::Report {
        let endpoints = self.node.endpoints().iter().map(|endpoint| (endpoint.addr, endpoint.kind));
        control::Report {
            hostinfo: self.machine.describe(&self.state.prefs, self.node.net_info().clone()),
            disco_key: self.state.disco_key.public(),
            endpoints: endpoints.collect(),
            debug_flags: Vec::new(),
        }
    }

    /// Tells control what changed about this node.
    pub(crate) fn report_to_control(&self) {
        if let Some((_, client)) = &self.login.client {
            client.report(self.control_report());
        }
    }

    /// The control client has something to say.
    pub(crate) fn on_control(&mut self, generation: u64, event: control::Event, now: Instant) {
        if generation != self.login.generation {
            return;
        }
        match event {
            control::Event::Connecting => {
                self.set_online(false);
                self.node.handle_stream_opened();
            }
            control::Event::Registered(response) => self.registered(&response),
            control::Event::AuthUrl(url) => {
                self.login.attempt = Attempt::Interactive(Some(url.clone()));
                self.tell(Notify { browse_to_url: Some(url), ..Notify::default() });
            }
            control::Event::KeyExpired => self.key_expired(),
            control::Event::Map(map) => self.take_map(*map, now),
            control::Event::Ping { ip, kind, reply } => self.ping(ip, kind, 0, reply, now),
            control::Event::LoggedOut => self.logged_out(now),
            control::Event::ClockOff(seconds) => {
                let text =
                    format!("This machine's clock is {} s off the control server's: set it.", seconds.abs());
                if self.health.set(code::CLOCK, text) {
                    self.tell_health();
                }
            }
            control::Event::Failed { failure, retry } => self.control_failed(&failure, retry, now),
        }
    }

    fn set_online(&mut self, online: bool) {
        if online != self.login.online {
            self.login.online = online;
            self.node.handle_control_state(online);
        }
    }

    fn registered(&mut self, response: &RegisterResponse) {
        let profile = UserProfile {
            id: response.user.id,
            login_name: response.login.login_name.clone(),
            display_name: response.user.display_name.clone(),
            profile_pic_url: response.user.profile_pic_url.clone(),
            ..UserProfile::default()
        };
        let node_id = self.state.login.take().map(|login| login.node_id).unwrap_or_default();
        self.state.login = Some(Persist::new(profile, node_id));
        self.state.login_server = server_url(&self.state.prefs).to_owned();
        self.state.prefs.logged_out = false;
        let was_attempt = std::mem::take(&mut self.login.attempt) != Attempt::None;
        (self.login.auth_key, self.login.old_key, self.login.expired) = (None, NodePublic::default(), false);
        self.save();
        if self.health.clear(code::LOGIN) {
            self.tell_health();
        }
        if was_attempt {
            self.tell(Notify { login_finished: Some(Empty {}), ..Notify::default() });
            self.tell_prefs();
        }
        if !self.state.prefs.want_running {
            self.login.pause();
        }
    }

    fn take_map(&mut self, map: MapResponse, now: Instant) {
        self.set_online(true);
        if self.health.clear(code::CONTROL) | self.health.clear(code::MAP) {
            self.tell_health();
        }
        let changes = Notify {
            peers_changed: map.peers_changed.to_vec(),
            peers_removed: map.peers_removed.clone(),
            peer_changed_patch: map.peers_changed_patch.to_vec(),
            ..Notify::default()
        };
        if changes != Notify::default() {
            self.tell(changes);
        }
        self.node.handle_map(map, now);
    }

    /// The core folded something new into its netmap.
    pub(crate) fn follow_netmap(&mut self, now: Instant) {
        let Some(own) = self.node.self_node().cloned() else { return };
        if let Some(login) = self.state.login.as_mut().filter(|login| login.node_id != own.stable_id) {
            login.node_id = own.stable_id.clone();
            if let Some(user) = self.node.user(own.user) {
                login.user_profile = user.clone();
            }
            self.save();
            self.tell_prefs();
        }
        self.chores.ask(Chore::SaveNetmap, now);
        self.tell(Notify { self_change: Some(Box::new(own)), ..Notify::default() });
    }

    /// Our node key is of no use any more: only a new login helps.
    pub(crate) fn key_expired(&mut self) {
        self.login.expired = true;
        // The configuration's key is there for logins nobody attends to.
        if self.login.auth_key.is_none() {
            self.login.auth_key = self.config_file.as_ref().and_then(|file| file.auth_key.clone());
        }
        // A login with a key at hand goes on by itself, with a new node key.
        if self.login.auth_key.is_some() {
            self.rotate_key();
            self.login.attempt = Attempt::Alone;
            self.connect();
        }
    }

    fn control_failed(&mut self, failure: &Failure, retry: bool, now: Instant) {
        self.set_online(false);
        let text = failure.to_string();
        if !self.login.logging_out.is_empty() {
            return self.logged_out(now);
        }
        if self.state.login.is_none() || !retry {
            self.fail_login(if retry { format!("{text}. The node keeps trying") } else { text });
        } else if self.health.set(code::CONTROL, text) {
            self.tell_health();
        }
        if !retry {
            (self.login.attempt, self.login.auth_key) = (Attempt::None, None);
            if self.state.login.is_none() {
                // What was prepared for this login.
                self.order(Command::Remove);
            }
        }
    }

    /// A login does not succeed: whoever waits for it is told why.
    fn fail_login(&mut self, text: String) {
        if self.health.set(code::LOGIN, text.clone()) {
            self.tell_health();
        }
        self.tell(Notify { err_message: Some(text), ..Notify::default() });
    }

    /// Begins a login: with the key at hand, else with a person's help.
    pub(crate) fn begin_login(&mut self, now: Instant) {
        if self.facts(now).expired {
            self.rotate_key();
        }
        self.state.prefs.logged_out = false;
        if self.health.clear(code::LOGIN) {
            self.tell_health();
        }
        self.login.attempt = match (&self.login.auth_key, &self.login.attempt) {
            (Some(_), _) => Attempt::Alone,
            (None, Attempt::Interactive(url)) => Attempt::Interactive(url.clone()),
            (None, _) => Attempt::Interactive(None),
        };
        self.connect();
    }

    /// Tells watchers the settings.
    pub(crate) fn tell_prefs(&self) {
        self.tell(Notify { prefs: Some(self.visible_prefs()), ..Notify::default() });
    }

    /// The settings as clients see them.
    pub(crate) fn visible_prefs(&self) -> Prefs {
        Prefs { persist: self.state.login.clone(), ..self.state.prefs.clone() }
    }
}
