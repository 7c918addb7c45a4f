//! Who gets a channel's next message: the consumers that are ready, in turn, near ones first.
//!
//! Nearness only matters with the experiment `topology-aware-consumption` (nsqd-protocol.md section
//! 20). Without it everybody is equally far, and the lines of the near ones take no memory.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use super::config::Config;
use crate::arena::ConsumerId;

/// How near a consumer is to this nsqd, by what its first IDENTIFY said.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Nearness {
    /// Where deliveries to it are counted.
    pub(super) place: Proximity,
    /// Whether it comes before others, because this nsqd's zone or region has a name. Places
    /// without a name are equal, too, but nobody's turn comes earlier for that.
    pub(super) rank: Rank,
}

/// Where a consumer is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Proximity {
    /// Anywhere.
    #[default]
    Elsewhere,
    /// In this nsqd's region.
    Region,
    /// In this nsqd's zone.
    Zone,
}

/// Whose turn comes first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Rank {
    First,
    Second,
    #[default]
    Last,
}

impl Nearness {
    /// That of a consumer which names this zone and region.
    pub(super) fn of(zone: &str, region: &str, config: &Config) -> Self {
        if !config.topology_aware_consumption {
            return Self::default();
        }
        let in_zone = zone == config.topology_zone;
        let in_region = region == config.topology_region;
        let place = match (in_zone, in_region) {
            (true, _) => Proximity::Zone,
            (false, true) => Proximity::Region,
            (false, false) => Proximity::Elsewhere,
        };
        let rank = if in_zone && !zone.is_empty() {
            Rank::First
        } else if in_region && !region.is_empty() {
            Rank::Second
        } else {
            Rank::Last
        };
        Self { place, rank }
    }
}

/// The consumers of a channel that are ready.
#[derive(Debug)]
pub(super) struct Line {
    near: Option<Box<[VecDeque<ConsumerId>; 2]>>,
    others: VecDeque<ConsumerId>,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self { near: None, others: VecDeque::new() }
    }

    pub(super) fn push_back(&mut self, id: ConsumerId, rank: Rank) {
        match rank {
            Rank::First => self.near.get_or_insert_default()[0].push_back(id),
            Rank::Second => self.near.get_or_insert_default()[1].push_back(id),
            Rank::Last => self.others.push_back(id),
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<ConsumerId> {
        let near = self.near.iter_mut().flat_map(|near| near.iter_mut());
        near.chain([&mut self.others]).find_map(VecDeque::pop_front)
    }

    pub(super) fn len(&self) -> usize {
        let near = self.near.iter().flat_map(|near| near.iter());
        near.map(VecDeque::len).sum::<usize>() + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&ConsumerId) -> bool) {
        let near = self.near.iter_mut().flat_map(|near| near.iter_mut());
        near.chain([&mut self.others]).for_each(|line| line.retain(&mut stays));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Key as _;

    #[test]
    fn near_ones_come_first_and_equals_in_turn() {
        let mut line = Line::new();
        let id = |n| ConsumerId::new(n, 0);
        for (n, rank) in [
            (1, Rank::Last),
            (2, Rank::Second),
            (3, Rank::First),
            (4, Rank::Second),
            (5, Rank::First),
            (6, Rank::Last),
        ] {
            line.push_back(id(n), rank);
        }
        line.retain(|consumer| *consumer != id(6));
        assert_eq!((line.len(), line.is_empty()), (5, false));
        let order: [_; 5] = core::array::from_fn(|_| line.pop_front());
        assert_eq!(order, [3, 5, 2, 4, 1].map(|n| Some(id(n))));
        assert!(line.is_empty() && line.pop_front().is_none());
    }

    #[test]
    fn places_without_a_name_are_equal_and_not_preferred() {
        let config = |zone: &str, region: &str| Config {
            topology_aware_consumption: true,
            topology_zone: zone.into(),
            topology_region: region.into(),
            ..Config::default()
        };
        let of = |zone, region, config: &Config| {
            let Nearness { place, rank } = Nearness::of(zone, region, config);
            (place, rank)
        };
        let named = config("z", "r");
        assert_eq!(of("z", "r", &named), (Proximity::Zone, Rank::First));
        assert_eq!(of("z", "x", &named), (Proximity::Zone, Rank::First));
        assert_eq!(of("x", "r", &named), (Proximity::Region, Rank::Second));
        assert_eq!(of("", "", &named), (Proximity::Elsewhere, Rank::Last));
        let region = config("", "r");
        assert_eq!(of("", "r", &region), (Proximity::Zone, Rank::Second));
        assert_eq!(of("", "", &region), (Proximity::Zone, Rank::Last));
        let off = Config { topology_aware_consumption: false, ..named };
        assert_eq!(of("z", "r", &off), (Proximity::Elsewhere, Rank::Last));
    }
}
