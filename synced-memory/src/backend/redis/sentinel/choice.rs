//! Which primary counts, given what the sentinels say.

use crate::backend::layout::Node;

/// A primary as a sentinel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPrimary {
    pub(super) node: Node,
    /// The number of the failover that made it the primary. Sentinels that have not heard of a
    /// later one name a lower number.
    pub(super) epoch: u64,
}

/// The primary with the highest epoch. `current`: what was used until now, or is in use.
/// `is_everyone_heard`: no sentinel is missing among those who say this.
///
/// Of several with one epoch the current one stays, so that two sentinels that call one server by
/// two names do not make us go back and forth; without it most sentinels decide. A lower epoch than
/// the current one counts only if nobody is missing who might know better: it was monitored anew.
pub(super) fn choose(
    named: &[NamedPrimary],
    is_everyone_heard: bool,
    current: Option<&NamedPrimary>,
) -> Option<NamedPrimary> {
    let epoch = named.iter().map(|primary| primary.epoch).max()?;
    if let Some(current) = current
        && current.epoch > epoch
        && !is_everyone_heard
    {
        return Some(current.clone());
    }
    let votes = |node: &Node| named.iter().filter(|primary| primary.node == *node).count();
    let newest = || named.iter().filter(|primary| primary.epoch == epoch);
    let is_current =
        |primary: &&NamedPrimary| current.is_some_and(|current| current.node == primary.node);
    let kept = newest().find(is_current);
    // Of those with most votes the first one.
    let elected = newest().rev().max_by_key(|primary| votes(&primary.node));
    kept.or(elected).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16, epoch: u64) -> NamedPrimary {
        NamedPrimary {
            node: Node {
                host: "h".into(),
                port,
            },
            epoch,
        }
    }

    #[test]
    fn the_newest_failover_counts_and_not_the_most_votes() {
        assert_eq!(choose(&[], true, Some(&at(1, 1))), None);
        assert_eq!(
            choose(&[at(1, 4), at(1, 4), at(2, 5)], true, None),
            Some(at(2, 5))
        );
        assert_eq!(
            choose(&[at(2, 5), at(1, 4)], false, Some(&at(1, 4))),
            Some(at(2, 5))
        );
    }

    #[test]
    fn among_equals_what_is_used_stays_and_else_most_decide() {
        let named = [at(1, 5), at(2, 5), at(2, 5)];
        assert_eq!(choose(&named, true, None), Some(at(2, 5)));
        assert_eq!(choose(&named[..2], true, None), Some(at(1, 5)));
        assert_eq!(choose(&named, true, Some(&at(1, 5))), Some(at(1, 5)));
        assert_eq!(choose(&named, true, Some(&at(1, 4))), Some(at(1, 5)));
        assert_eq!(choose(&named, true, Some(&at(3, 5))), Some(at(2, 5)));
    }

    #[test]
    fn an_older_failover_counts_only_if_nobody_is_missing_who_knows_of_a_newer_one() {
        let current = at(2, 5);
        assert_eq!(choose(&[at(1, 4)], false, Some(&current)), Some(at(2, 5)));
        assert_eq!(
            choose(&[at(3, 0), at(3, 0)], true, Some(&current)),
            Some(at(3, 0))
        );
    }
}
