//! Does my service lose orders if it dies at a bad moment?
//!
//! It reads orders and publishes an invoice for each. One that finishes an order before it knows
//! that the invoice is stored has a bug. Chance finds it with some seeds, a fault that is aimed at
//! the moment with more. `cargo run --release -p sansq-sim --example service`

use core::cell::RefCell;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write, stdout};
use std::rc::Rc;

use sansq_core::client::{Delivery, PoolOptions, RetryPolicy};
use sansq_sim::client::handler::{Desk, Handler};
use sansq_sim::client::pool::{Pool, PoolPlan};
use sansq_sim::client::worker::{Worker, WorkerPlan};
use sansq_sim::model::number_of;
use sansq_sim::oracles::Observation;
use sansq_sim::swarm::{Fault, Faults};
use sansq_sim::{MessageNumber, Options, PublishOutcome, Trace, World, channel, topic};

#[derive(Debug)]
struct Service {
    is_careful: bool,
    /// The orders whose invoices are under way, by invoice; they die with the process.
    orders: BTreeMap<MessageNumber, Delivery>,
    /// For which order each invoice was ever published: ours, to check it by.
    invoices: Rc<RefCell<BTreeMap<MessageNumber, MessageNumber>>>,
}

impl Handler for Service {
    fn begin(&mut self) {
        self.orders.clear();
    }

    fn handle(&mut self, order: Delivery, desk: &mut Desk<'_, '_>) {
        let Ok(invoice) = desk.publish(topic(1), 50) else { return };
        let number = number_of(&order.message.body);
        self.invoices.borrow_mut().extend(number.map(|number| (invoice, number)));
        if !self.is_careful {
            // The bug. That it may be too late is none: then the order comes again.
            let _ = desk.finish(&order);
        }
        self.orders.insert(invoice, order);
    }

    fn published(&mut self, invoice: MessageNumber, told: PublishOutcome, desk: &mut Desk<'_, '_>) {
        if let Some(order) = self.orders.remove(&invoice)
            && self.is_careful
            && told == PublishOutcome::Accepted
        {
            let _ = desk.finish(&order);
        }
    }
}

/// How many orders were finished and have no invoice. `aims`: the service dies at the moment at
/// which nsqd has the first FIN, and not when chance has it.
fn lost(seed: u64, is_careful: bool, aims: bool) -> usize {
    let kinds = if aims { vec![] } else { vec![Fault::KillClient] };
    let faults = Faults { every_max: Duration::from_secs(2), kinds, count_max: None };
    let mut options = Options { faults, ..Options::empty(seed, 1, 1) };
    options.net.latency_max = Duration::from_millis(20);
    let mut world = World::new(options, Trace::new(None));
    world.add_client(Pool::new(PoolPlan::new(vec![topic(0)], 100, Duration::from_millis(300))));
    let pool = PoolOptions { retry: RetryPolicy::Always, ..PoolOptions::default() };
    let plan = WorkerPlan { pool: Some(pool), ..WorkerPlan::new(topic(0), channel(0)) };
    let (invoices, seen) = (Rc::default(), Rc::<RefCell<[BTreeSet<_>; 2]>>::default());
    let service = Service { is_careful, orders: BTreeMap::new(), invoices: Rc::clone(&invoices) };
    let service = world.add_client(Worker::with_handler(plan, service));
    let see = Rc::clone(&seen);
    world.add_check(move |_, observation| {
        let [finished, invoiced] = &mut *see.borrow_mut();
        if let Observation::Handled { message, .. } = observation {
            finished.insert(*message);
        } else if let Observation::Reached { messages, .. } = observation {
            let orders = invoices.borrow();
            invoiced.extend(messages.iter().filter_map(|invoice| orders.get(invoice).copied()));
        }
        Ok(())
    });
    let is_fin = |seen: &Observation| matches!(seen, Observation::Finished { .. });
    if aims && world.run_until(Duration::from_secs(60), is_fin) {
        world.crash_client(service);
    }
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.finish().result, Ok(()), "seed {seed}: NSQ itself went wrong");
    let [finished, invoiced] = &*seen.borrow();
    finished.difference(invoiced).count()
}

fn main() -> std::io::Result<()> {
    for (is_careful, aims) in [(true, false), (true, true), (false, false), (false, true)] {
        let bad = (0..50).filter(|seed| lost(*seed, is_careful, aims) > 0).count();
        writeln!(stdout(), "careful: {is_careful}, aimed: {aims}: {bad} of 50 seeds lose orders")?;
    }
    Ok(())
}
