//! The common parts of scenarios: turns in rounds, a target with its clients, and the report.
//!
//! Each scenario is a file with its clients, its messages and its figures.

use std::rc::Rc;

use crate::client::clients::Streams;
use crate::client::{Clients, HANDSHAKES_IN_FLIGHT_MAX};
use crate::dialect::{Audience, Seats};
use crate::error::LoadError;
use crate::interrupt;
use crate::load::Load;
use crate::measure::process::{Cores, reserve_files};
use crate::progress::Progress;
use crate::report::command::presentable;
use crate::report::{BoundRule, Machine, Report, ServerNote, Turn, json, text};
use crate::settings::Settings;
use crate::subject::{Server, Subject, SubjectWire};
use crate::target::fanwire::NAMESPACE_WITH_HISTORY;
use crate::target::{self, Setup, Target};

pub(crate) mod churn;
pub(crate) mod cluster;
pub(crate) mod fanout;
pub(crate) mod flow;
pub(crate) mod idle;
pub(crate) mod overload;
pub(crate) mod parallel;
pub(crate) mod rooms;
pub(crate) mod slow;
pub(crate) mod storm;
pub(crate) mod users;

/// First polls under way at any one time. Each waits a second for its answer, so more would make a crowd of requests, whose
/// memory would count as that of the polls that wait later.
const FIRST_POLLS_MAX: usize = 128;

/// The environment of a scenario.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) cores: Cores,
    pub(crate) progress: Progress,
    /// The servers so far.
    servers: Vec<ServerNote>,
}

/// The parts of a report besides its turns.
pub(crate) struct Outline {
    pub(crate) scenario: &'static str,
    pub(crate) about: String,
    pub(crate) load: Vec<(String, String)>,
    /// The scenario's own bounds, omitted if a subject takes no part; those of the command line are added.
    pub(crate) bounds: Vec<BoundRule>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Result<Self, LoadError> {
        Ok(Self { settings, cores: Cores::choose()?, progress: Progress::new(), servers: Vec::new() })
    }

    /// Returns the subjects of the command line under their names.
    pub(crate) fn subjects(&self) -> Vec<(String, Subject)> {
        self.settings.subjects.iter().map(|subject| (subject.to_string(), subject.clone())).collect()
    }

    /// Returns the prefix of topics that keep publications, or `None` if they are not wanted.
    pub(crate) fn prefix_with_history(&self, is_wanted: bool) -> Result<Option<&'static str>, LoadError> {
        let others = self.settings.subjects.iter().find(|subject| subject.server != Server::Fanwire);
        match others {
            Some(other) if is_wanted => {
                Err(LoadError::Unsupported(format!("--history is of fanwire only, and {other} takes part")))
            }
            _ => Ok(is_wanted.then_some(NAMESPACE_WITH_HISTORY)),
        }
    }

    /// Runs the turns of all entries, round by round, so that drift of the machine affects all. The report is stored after
    /// each round. A turn that cannot be finished has failed, and the others continue.
    pub(crate) fn run<T>(
        &mut self,
        outline: Outline,
        entries: &[(String, T)],
        mut take_turn: impl FnMut(&mut Self, &T) -> Result<Turn, LoadError>,
    ) -> Result<Report, LoadError> {
        let Outline { scenario, about, load, bounds } = outline;
        let subjects: Vec<String> = entries.iter().map(|(name, _)| name.clone()).collect();
        let rules = rules(bounds, &self.settings.bound, &subjects)?;
        let mut report = Report {
            scenario: scenario.to_owned(),
            about,
            load,
            machine: Machine::here(self.cores),
            servers: Vec::new(),
            command: presentable(std::env::args()),
            subjects,
            turns: Vec::new(),
            bounds: Vec::new(),
        };
        let rounds = self.settings.rounds;
        for round in 1..=rounds {
            for (name, entry) in entries {
                self.progress.begin(format!("round {round} of {rounds}, {name}"));
                let taken = take_turn(self, entry);
                // Even if the turn failed.
                interrupt::check()?;
                let mut turn = match taken {
                    Ok(turn) => {
                        self.progress.done(&text::turn_line(&turn));
                        turn
                    }
                    Err(error) if error.ends_the_run() => return Err(error),
                    // Before the first measurement the command line is more likely wrong than the server.
                    Err(error @ LoadError::NotStarted(_)) if round == 1 => return Err(error),
                    Err(error) => {
                        self.progress.done(&format!("FAILED: {error}"));
                        Turn { reasons: vec![error.without_log()], ..Turn::default() }
                    }
                };
                for reason in &mut turn.reasons {
                    *reason = self.settings.external.presentable(reason);
                }
                report.turns.push(Turn { subject: name.clone(), round, ..turn });
            }
            report.servers.clone_from(&self.servers);
            report.bounds = rules.iter().map(|rule| rule.judge(&report)).collect();
            if let Some(path) = &self.settings.json {
                json::write(path, &report)?;
            }
        }
        Ok(report)
    }

    /// Adds a server to the report, once.
    fn note_server(&mut self, subject: &Subject, target: &dyn Target) {
        let subject = subject.to_string();
        if self.servers.iter().all(|known| known.subject != subject) {
            let placement = self.cores.described(target.placement());
            self.servers.push(ServerNote { subject, versions: target.versions(), placement });
        }
    }
}

/// Returns the scenario's bounds on subjects that take part, then those of the command line.
fn rules(
    own: Vec<BoundRule>,
    wanted: &[BoundRule],
    subjects: &[String],
) -> Result<Vec<BoundRule>, LoadError> {
    let absent = |rule: &BoundRule| {
        rule.subjects().find(|name| !subjects.iter().any(|known| known == name)).map(str::to_owned)
    };
    if let Some(absent) = wanted.iter().find_map(absent) {
        let told = format!("--bound names {absent:?}, but the subjects are {}", subjects.join("; "));
        return Err(LoadError::Unsupported(told));
    }
    Ok(own.into_iter().filter(|rule| absent(rule).is_none()).chain(wanted.iter().cloned()).collect())
}

/// The clients and the load of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) clients: usize,
    pub(crate) seats: Seats,
    /// `None`: the target's default.
    pub(crate) topic_prefix: Option<&'a str>,
    /// For a target that sends by itself; `None` if such a target cannot take part.
    pub(crate) load: Option<&'a Load>,
    /// Publishers that send to the same topic.
    pub(crate) lanes: u32,
}

impl Plan<'_> {
    /// Makes a plan for clients in one topic of a target that does not send by itself.
    pub(crate) fn one_topic(clients: u32, lanes: u32) -> Self {
        let (clients, seats) = (clients as usize, Seats::All { topics: 1 });
        Self { clients, seats, topic_prefix: None, load: None, lanes }
    }
}

/// A target and its clients. The target is dropped first: the side that closes first keeps the ports for a minute, which
/// must be the server, whose port is new in each turn.
pub(crate) struct Stage {
    pub(crate) subject: Subject,
    pub(crate) target: Box<dyn Target>,
    pub(crate) clients: Clients,
    pub(crate) streams: Streams,
}

impl Stage {
    /// Starts the target, without clients.
    pub(crate) fn start(
        bench: &mut Bench<'_>,
        subject: &Subject,
        plan: &Plan<'_>,
    ) -> Result<Self, LoadError> {
        reserve_files(plan.clients)?;
        let target = target::start(&Setup {
            subject,
            settings: bench.settings,
            cores: bench.cores,
            clients: plan.clients,
            load: plan.load,
        })
        .map_err(LoadError::not_started)?;
        bench.note_server(subject, &*target);
        let audience = Audience::new(plan.topic_prefix.unwrap_or(target.topic_prefix()), plan.seats);
        let streams = Streams { audience: Rc::clone(&audience), lanes: plan.lanes };
        let clients = Clients::new(target.addresses()?, target.dialect(audience)?, streams.clone())?;
        Ok(Self { subject: subject.clone(), target, clients, streams })
    }

    /// Starts the target and subscribes all clients.
    pub(crate) fn open(bench: &mut Bench<'_>, subject: &Subject, plan: &Plan<'_>) -> Result<Self, LoadError> {
        let mut stage = Self::start(bench, subject, plan)?;
        bench.progress.live(&format!("connecting {} clients", plan.clients));
        stage.connect(plan.clients)?;
        Ok(stage)
    }

    /// Subscribes all clients, or returns an error.
    pub(crate) fn connect(&mut self, clients: usize) -> Result<(), LoadError> {
        let in_flight = match self.subject.wire {
            SubjectWire::Poll => FIRST_POLLS_MAX,
            _ => HANDSHAKES_IN_FLIGHT_MAX,
        };
        self.clients
            .connect(clients, in_flight)
            .and_then(|()| self.clients.require(clients))
            .map_err(|error| self.target.explain(error))?;
        self.target.settle(&self.streams.audience, clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_about_subjects_that_take_part() {
        let rule = |text: &str| text.parse::<BoundRule>().unwrap();
        let own = vec![rule("fanwire/raw:slowest<=1"), rule("fanwire/nchan:slowest<=1")];
        let subjects = ["raw", "fanwire"].map(str::to_owned);
        let rules_of = |wanted: &[BoundRule]| rules(own.clone(), wanted, &subjects);
        assert_eq!(rules_of(&[rule("raw:slowest<=2")]).unwrap(), [own[0].clone(), rule("raw:slowest<=2")]);
        let error = rules_of(&[rule("fanwire/nchan:slowest<=2")]).unwrap_err().to_string();
        assert!(error.contains("nchan") && error.contains("raw; fanwire"), "{error}");
    }
}
