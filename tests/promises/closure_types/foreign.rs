//! Types of other crates, each with several spellings in JSON.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ordered_float::OrderedFloat;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::any::{Any, any_struct};

impl Any for Ipv6Addr {
    fn any(rng: &mut Rng) -> Self {
        Self::new(0xfe80, 0, 0, 0, 0, 0, rng.u16(..3), rng.u16(10..16))
    }
}

impl Any for IpAddr {
    fn any(rng: &mut Rng) -> Self {
        if rng.bool() {
            Ipv4Addr::new(10, 0, 0, rng.u8(..9)).into()
        } else {
            Ipv6Addr::any(rng).into()
        }
    }
}

impl Any for Uuid {
    fn any(rng: &mut Rng) -> Self {
        Self::from_u128(0xabcd_ef00_0000_4000_8000_0000_0000_00a0 + u128::from(rng.u8(..8)))
    }
}

impl Any for OrderedFloat<f64> {
    fn any(rng: &mut Rng) -> Self {
        Self(f64::from(rng.i32(-4..5)) / if rng.bool() { 1.0 } else { 4.0 })
    }
}

/// A point in time: equal ones may be written with different offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Moment(#[serde(with = "time::serde::rfc3339")] OffsetDateTime);

impl Any for Moment {
    fn any(rng: &mut Rng) -> Self {
        Self(OffsetDateTime::UNIX_EPOCH + Duration::hours(500_000 + rng.i64(0..20)))
    }

    fn change(&mut self, rng: &mut Rng) {
        self.0 += Duration::minutes(rng.i64(1..90));
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Visit {
    at: Moment,
    from: Ipv6Addr,
    by: Uuid,
    score: OrderedFloat<f64>,
}

any_struct!(Visit {
    at,
    from,
    by,
    score
});
