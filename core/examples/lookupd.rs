//! An nsqlookupd without a socket: an nsqd registers a topic, falls silent, and is shown no more.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::time::Duration;

use bytes::BytesMut;
use sansq_core::machine::Machine;
use sansq_core::name::TopicName;
use sansq_core::nsqlookupd::{Lookupd, LookupdActions, LookupdConfig};
use sansq_core::protocol::lookup::{LookupCommand, PeerInfo};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut lookupd, mut actions) =
        (Lookupd::new(LookupdConfig::default()), LookupdActions::default());
    let mut now = Now::from_millis(0);
    let conn = lookupd.accept(([127, 0, 0, 1], 50_000).into(), now, &mut actions);

    let mut wire = b"  V1".to_vec();
    let (broadcast_address, version) = ("nsqd-1".into(), "1.3.0".into());
    let ports = PeerInfo { tcp_port: 4150, http_port: 4151, ..PeerInfo::default() };
    LookupCommand::Identify(PeerInfo { broadcast_address, version, ..ports }).encode(&mut wire);
    wire.extend_from_slice(b"REGISTER orders shipping\n");
    let _ = lookupd.handle_input(conn, &mut BytesMut::from(&wire[..]), now, &mut actions);

    let LookupdActions { transmit, close, events, .. } = &mut actions;
    events.drain(..).for_each(|event| println!("{event}"));
    assert_eq!((&transmit[..], &close[..]), (&[conn][..], &[][..]), "two answers, no end");
    let mut answers = Transmit::new();
    lookupd.swap_transmit(conn, &mut answers);
    let answers = answers.into_vec();
    assert!(answers.ends_with(b"\0\0\0\x02OK"), "{}", answers.escape_ascii());

    let orders = TopicName::new("orders")?;
    show(&lookupd, &orders, now);
    // An nsqd that sends no PING for five minutes is hidden; what it registered stays.
    now = now.after(Duration::from_secs(301));
    show(&lookupd, &orders, now);
    Ok(())
}

/// What `/lookup?topic=…` would say.
fn show(lookupd: &Lookupd, topic: &TopicName, now: Now) {
    let Some(found) = lookupd.lookup(topic, now) else { return println!("{topic} is unknown") };
    let nsqds = found.producers.iter().map(|nsqd| &nsqd.info.broadcast_address[..]);
    let channels = found.channels.iter().map(ToString::to_string);
    let (nsqds, channels) = (nsqds.collect::<Vec<_>>(), channels.collect::<Vec<_>>());
    println!("{topic}: nsqds {nsqds:?}, channels {channels:?}");
}
