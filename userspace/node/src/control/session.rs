//! One session: from the server's key to the map stream, until something fails.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use types::{CapabilityVersion, NodePublic};
use wire::control::{MapRequest, MapResponse, PingRequest, RegisterAuth, RegisterRequest, RegisterResponse};

use super::connection::{self, Connection, ServerKey, within};
use super::map_stream::MapStream;
use super::{Config, Event, Failure, Registration, Report, ping};

const REGISTER: &str = "/machine/register";
const MAP: &str = "/machine/map";
/// For a request the server answers at once.
const DEADLINE: Duration = Duration::from_secs(30);
/// A server that answers a follow-up at once instead of holding it is asked again so often.
const FOLLOWUP_PAUSE: Duration = Duration::from_secs(2);
/// For a ping of a peer that the server asks for.
const PING_DEADLINE: Duration = Duration::from_secs(10);
/// More than this between the clocks is worth telling.
const MAX_CLOCK_OFF: i64 = 600;
/// A registration that expires here is a logout (`controlclient/direct.go`).
const LOGOUT: i64 = 123;

/// Why a session ended without failing: what comes next is a person's turn.
pub(super) enum Turn {
    /// A new node key is wanted.
    KeyExpired,
    /// The logout is done.
    LoggedOut,
}

/// What outlives a session.
pub(super) struct Session {
    config: Config,
    events: mpsc::Sender<Event>,
    report: watch::Receiver<Report>,
    server_key: Option<ServerKey>,
    /// The key the server is known to know.
    registered: Option<NodePublic>,
    /// The page the user is sent to, while that is under way.
    followup: Option<String>,
    /// Questions come again until answered; the URL tells them apart.
    answered: String,
    /// A map has come: the next failure is a new one.
    pub(super) progress: bool,
}

impl Session {
    pub(super) fn new(config: Config, events: mpsc::Sender<Event>, report: watch::Receiver<Report>) -> Self {
        Self {
            config,
            events,
            report,
            server_key: None,
            registered: None,
            followup: None,
            answered: String::new(),
            progress: false,
        }
    }

    /// A new order: the server is to be asked again.
    pub(super) fn forget_registration(&mut self) {
        self.registered = None;
        self.followup = None;
    }

    /// Registers if need be and streams the map. Can be dropped at any point; the connection goes with it.
    pub(super) async fn run(&mut self, registration: &mut Registration) -> Result<Turn, Failure> {
        let mut tasks = JoinSet::new();
        let connection = self.connect(&mut tasks).await?;
        if self.registered != Some(registration.node_key) {
            let answer = self.register(&connection, registration).await;
            if matches!(answer, Err(Failure::Rejected(_))) {
                self.followup = None;
            }
            let answer = answer?;
            if answer.node_key_expired {
                return Ok(Turn::KeyExpired);
            }
            self.registered = Some(registration.node_key);
            self.followup = None;
            // Its use is counted; a server that forgets the node must ask for another login.
            registration.auth_key = None;
            self.emit(Event::Registered(Box::new(answer))).await;
        }
        let failure = self.stream(&connection, registration.node_key, tasks).await;
        if matches!(failure, Failure::Unknown(_)) {
            self.registered = None;
        }
        Err(failure)
    }

    /// Ends the login of `node_key`.
    pub(super) async fn logout(&mut self, node_key: NodePublic) -> Result<Turn, Failure> {
        let mut tasks = JoinSet::new();
        let connection = self.connect(&mut tasks).await?;
        self.forget_registration();
        let expiry = Timestamp::from_second(LOGOUT).ok().into();
        let request = RegisterRequest { expiry, ..self.registration_of(node_key) };
        let asking = connection.ask::<_, RegisterResponse>(REGISTER, node_key, &request, Failure::Rejected);
        let answer = within(DEADLINE, asking).await?;
        if answer.error.is_empty() { Ok(Turn::LoggedOut) } else { Err(Failure::Rejected(answer.error)) }
    }

    async fn connect(&mut self, tasks: &mut JoinSet<Result<(), Failure>>) -> Result<Connection, Failure> {
        self.progress = false;
        self.emit(Event::Connecting).await;
        // Taken: should the key have changed, opening fails and the next session asks again.
        let key = match self.server_key.take() {
            Some(key) => key,
            None => {
                let key = connection::fetch_key(&self.config).await?;
                if let Some(ahead) = key.ahead.filter(|ahead| ahead.abs() > MAX_CLOCK_OFF) {
                    self.emit(Event::ClockOff(ahead)).await;
                }
                key
            }
        };
        let connection = connection::open(&self.config, &key, tasks).await?;
        self.server_key = Some(key);
        Ok(connection)
    }

    /// Asks until the server has decided, which may wait for a person.
    async fn register(
        &mut self,
        connection: &Connection,
        registration: &Registration,
    ) -> Result<RegisterResponse, Failure> {
        loop {
            let request = RegisterRequest {
                old_node_key: registration.old_node_key,
                auth: registration.auth_key.clone().map(|auth_key| RegisterAuth { auth_key }),
                ephemeral: registration.ephemeral,
                followup: self.followup.clone().unwrap_or_default(),
                ..self.registration_of(registration.node_key)
            };
            let asking = connection.ask(REGISTER, registration.node_key, &request, Failure::Rejected);
            // A follow-up is held by the server for as long as the person takes.
            let answer: RegisterResponse =
                if self.followup.is_some() { asking.await? } else { within(DEADLINE, asking).await? };
            if !answer.error.is_empty() {
                return Err(Failure::Rejected(answer.error));
            }
            if answer.auth_url.is_empty() || answer.node_key_expired {
                return Ok(answer);
            }
            if self.followup.as_ref() == Some(&answer.auth_url) {
                sleep(FOLLOWUP_PAUSE).await;
            } else {
                self.emit(Event::AuthUrl(answer.auth_url.clone())).await;
            }
            self.followup = Some(answer.auth_url);
        }
    }

    fn registration_of(&self, node_key: NodePublic) -> RegisterRequest {
        RegisterRequest {
            version: CapabilityVersion::CURRENT,
            node_key,
            hostinfo: Some(self.report.borrow().hostinfo.clone()),
            ..RegisterRequest::default()
        }
    }

    /// Streams the map, with reports and answers beside it.
    async fn stream(
        &mut self,
        connection: &Connection,
        node_key: NodePublic,
        mut tasks: JoinSet<Result<(), Failure>>,
    ) -> Failure {
        let request = MapRequest { stream: true, ..map_request(&self.report.borrow(), node_key) };
        tasks.spawn(keep_reporting(connection.clone(), node_key, self.report.clone()));
        let opening = connection.post(MAP, node_key, &request, Failure::Unknown);
        let mut stream = match within(DEADLINE, opening).await {
            Ok(answer) => MapStream::new(answer.into_body()),
            Err(failure) => return failure,
        };
        loop {
            let message = tokio::select! {
                message = stream.next() => message,
                Some(ended) = tasks.join_next() => match ended {
                    Ok(Ok(())) => continue,
                    Ok(Err(failure)) => return failure,
                    Err(error) => return Failure::Lost(error.to_string()),
                },
            };
            match message {
                Ok(message) => self.take(message, connection, &mut tasks).await,
                Err(failure) => return failure,
            }
        }
    }

    async fn take(
        &mut self,
        mut message: MapResponse,
        connection: &Connection,
        tasks: &mut JoinSet<Result<(), Failure>>,
    ) {
        self.progress = true;
        if let Some(question) = message.ping_request.take()
            && question.url != self.answered
        {
            self.answered.clone_from(&question.url);
            self.take_question(question, connection, tasks).await;
        }
        self.emit(Event::Map(Box::new(message))).await;
    }

    async fn take_question(
        &self,
        question: PingRequest,
        connection: &Connection,
        tasks: &mut JoinSet<Result<(), Failure>>,
    ) {
        if ping::is_ours(&question) {
            tasks.spawn(answer(self.config.clone(), connection.clone(), question));
            return;
        }
        let Some(ip) = question.ip.0 else { return };
        for kind in ping::kinds(&question) {
            let (reply, result) = oneshot::channel();
            self.emit(Event::Ping { ip, kind, reply }).await;
            let (config, connection, question) = (self.config.clone(), connection.clone(), question.clone());
            tasks.spawn(async move {
                // Without a result nothing is told, as by Tailscale's nodes.
                if let Ok(Ok(result)) = timeout(PING_DEADLINE, result).await
                    && let Err(failure) =
                        ping::post_result(&config, &connection, &question, kind, result).await
                {
                    tracing::warn!("the result of a ping was not told to the control server: {failure}");
                }
                Ok(())
            });
        }
    }

    pub(super) async fn emit(&self, event: Event) {
        // The event loop drops its receiver only together with the client, which ends this task.
        let _ = self.events.send(event).await;
    }
}

/// A question that cannot be answered is the server's loss, not the session's.
async fn answer(config: Config, connection: Connection, question: PingRequest) -> Result<(), Failure> {
    if let Err(failure) = within(DEADLINE, ping::answer(&config, &connection, &question)).await {
        tracing::warn!("ping of the control server not answered: {failure}");
    }
    Ok(())
}

/// Sends the report at once and after each change, one at a time (a lite update).
async fn keep_reporting(
    connection: Connection,
    node_key: NodePublic,
    mut report: watch::Receiver<Report>,
) -> Result<(), Failure> {
    loop {
        let current = report.borrow_and_update().clone();
        let request = MapRequest { omit_peers: true, ..map_request(&current, node_key) };
        match within(DEADLINE, connection.post(MAP, node_key, &request, Failure::Unknown)).await {
            Err(Failure::Busy(after)) => {
                sleep(after).await;
                continue;
            }
            answer => drop(answer?),
        }
        if report.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn map_request(report: &Report, node_key: NodePublic) -> MapRequest {
    MapRequest {
        version: CapabilityVersion::CURRENT,
        compress: "zstd".to_owned(),
        keep_alive: true,
        node_key,
        disco_key: report.disco_key,
        hostinfo: Some(report.hostinfo.clone()),
        endpoints: report.endpoints.iter().map(|(addr, _)| *addr).collect(),
        endpoint_types: report.endpoints.iter().map(|(_, kind)| *kind).collect(),
        debug_flags: report.debug_flags.clone(),
        ..MapRequest::default()
    }
}
