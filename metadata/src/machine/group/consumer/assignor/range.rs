//! `range`: each topic is cut into as many runs of partitions as it has subscribers.

use super::{Candidate, partitions_of, subscribers};
use crate::machine::group::consumer::state::{Target, TopicSizes};

/// Static members come first, by instance, so that a restart does not move their ranges.
pub(super) fn assign(candidates: &[Candidate<'_>], sizes: &TopicSizes) -> Vec<Target> {
    let mut targets = vec![Target::new(); candidates.len()];
    for (topic, mut places) in subscribers(candidates) {
        places.sort_by_key(|place| {
            let candidate = &candidates[*place];
            (candidate.instance.is_none(), candidate.instance, candidate.id)
        });
        let partitions: Vec<_> = partitions_of(topic, sizes).collect();
        let (least, extra) = (partitions.len() / places.len(), partitions.len() % places.len());
        let mut rest = partitions.as_slice();
        for (turn, place) in places.into_iter().enumerate() {
            let (own, others) = rest.split_at(least + usize::from(turn < extra));
            targets[place].extend(own);
            rest = others;
        }
    }
    targets
}
