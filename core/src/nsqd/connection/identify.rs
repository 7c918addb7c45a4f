//! IDENTIFY: what it changes, and what it is answered (nsqd-protocol.md section 8).

use super::settings::Upgrades;
use super::{Connection, ConnectionOutput, Identity, Reply};
use crate::log::{self, SHOWN_LEN_MAX};
use crate::nsqd::config::{Config, cut_identity as cut};
use crate::nsqd::event::Event;
use crate::nsqd::line::Nearness;
use crate::protocol::error::ProtocolError;
use crate::protocol::identify::Identify;
use crate::time::Now;

impl Connection {
    /// Negotiates. An error is fatal; without one the answer is on its way.
    pub(in crate::nsqd) fn identify(
        &mut self,
        body: &[u8],
        config: &Config,
        now: Now,
        out: &mut impl ConnectionOutput,
    ) -> Result<(), ProtocolError> {
        let identify = Identify::decode(body)?;
        out.event(Event::Identified(self.peer, log::beginning(body, SHOWN_LEN_MAX)));
        let mut settings = self.settings;
        settings.apply(&identify, config)?;
        let upgrades = self.possible(Upgrades::asked(&identify, config)?);
        self.settings = settings;
        if self.delivery.is_none() {
            self.delivery = Some(settings);
            let (zone, region) = (&identify.topology_zone, &identify.topology_region);
            self.nearness = Nearness::of(zone, region, config);
            self.next_heartbeat = settings.heartbeat_interval.map(|hb| now.instant + hb);
        }
        self.restart_read_deadline(now);
        let answer = if identify.feature_negotiation {
            Reply::Json(settings.answer(&upgrades, config))
        } else {
            Reply::Ok
        };
        *self.identity = Identity {
            client_id: cut(identify.client_id),
            hostname: cut(identify.hostname),
            user_agent: cut(identify.user_agent),
            topology_region: cut(identify.topology_region),
            topology_zone: cut(identify.topology_zone),
            connect_ts: self.identity.connect_ts,
        };
        self.respond(answer, now, out);
        if upgrades.any() {
            self.upgrade(upgrades, config, now, out);
        }
        Ok(())
    }
}
