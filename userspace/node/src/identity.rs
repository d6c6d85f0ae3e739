//! Identity: the node key's life, the core that belongs to it, and how both end.
//!
//! A new node key is another node to everybody, so it gets a core of its own and the device anew. Deliberately not here: how
//! control is told (`login`), where keys are kept (`state`, `store`).

use std::time::{Instant, SystemTime};

use node_core::{Clock, Node};
use types::{NodePrivate, NodePublic};
use wire::local::Prefs;

use crate::chores::Chore;
use crate::daemon::Daemon;
use crate::kernel::Command;
use crate::login::{Attempt, server_url};
use crate::random;

impl Daemon {
    /// Makes a new node key, to take the old one's place at control.
    pub(crate) fn rotate_key(&mut self) {
        self.login.old_key = self.state.node_key.public();
        self.state.node_key = NodePrivate::from_random(random());
        self.login.expired = false;
        self.save();
        self.new_core();
    }

    /// A core for the present node key, which knows nothing yet.
    pub(crate) fn new_core(&mut self) {
        self.regions.clear();
        self.derp_context = self.derp_context.with_key(self.state.node_key.clone());
        self.order(Command::Respec(Box::new(self.device_spec())));
        let now = Instant::now();
        let clock = Clock { now, wall: SystemTime::now() };
        self.node = Node::new(self.core_config(), clock, random());
        self.node.handle_underlay(self.underlay.underlay.clone(), now);
        self.node.handle_prefs(core_prefs(&self.state.prefs), now);
        self.tell_port_mapping(now);
    }

    /// The configuration of the core.
    pub(crate) fn core_config(&self) -> node_core::Config {
        core_config(&self.state, self.port(), self.loopback.port())
    }

    /// Tells control that this node key is of no use any more.
    pub(crate) fn begin_logout(&mut self, now: Instant) {
        match (&self.login.client, self.state.login.is_some()) {
            (Some((_, client)), true) => {
                client.logout(self.state.node_key.public());
                self.chores.ask(Chore::LogoutUnheard, now);
            }
            _ => self.logged_out(now),
        }
    }

    /// The settings name another server than the one that knows our node key: start there as a new node.
    pub(crate) fn leave_other_server(&mut self) {
        if self.login.client.as_ref().is_some_and(|(url, _)| url != server_url(&self.state.prefs)) {
            // Its last words, and the page it sent people to, are of no use.
            self.login.client = None;
            self.login.generation += 1;
            self.login.attempt = Attempt::None;
        }
        if self.state.login.is_some() && self.state.login_server != server_url(&self.state.prefs) {
            self.state.login = None;
            self.store.remove_netmap();
            self.rotate_key();
            self.login.old_key = NodePublic::default();
        }
    }

    /// Forgets the login, here and in the kernel.
    pub(crate) fn logged_out(&mut self, now: Instant) {
        self.chores.cancel(Chore::LogoutUnheard);
        self.chores.cancel(Chore::SaveNetmap);
        self.login.pause();
        self.state.login = None;
        (self.state.prefs.logged_out, self.state.prefs.want_running) = (true, false);
        (self.login.attempt, self.login.auth_key) = (Attempt::None, None);
        self.store.remove_netmap();
        self.order(Command::Remove);
        self.rotate_key();
        self.login.old_key = NodePublic::default();
        self.tell_prefs();
        self.announce(now);
        for reply in self.login.logging_out.drain(..) {
            self.waiting_for_down.push(Box::new(move |gone| _ = reply.send(gone)));
        }
    }
}

/// What the core needs of the state.
pub(crate) fn core_config(state: &crate::state::State, port: u16, loopback_port: u16) -> node_core::Config {
    node_core::Config {
        node_key: state.node_key.public(),
        disco: state.disco_key.clone(),
        wireguard_port: port,
        derp_loopback_port: loopback_port,
    }
}

/// The settings that the core decides on.
pub(crate) fn core_prefs(prefs: &Prefs) -> node_core::Prefs {
    node_core::Prefs {
        want_running: prefs.want_running && !prefs.logged_out,
        accept_routes: prefs.route_all,
        advertise_routes: prefs.advertise_routes.clone(),
        shields_up: prefs.shields_up,
        snat_subnet_routes: !prefs.no_snat,
    }
}
