//! What a sentinel answers.

use std::collections::HashMap;

use redis::{Pipeline, Value};

use super::super::reply;
use super::choice::NamedPrimary;
use crate::backend::error::BackendError;
use crate::backend::layout::Node;
use crate::base::address_map::AddressMap;

/// All that a sentinel knows of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SentinelAnswer {
    /// `None`: it knows no such service.
    pub(super) primary: Option<NamedPrimary>,
    /// Its own id, if it says so.
    pub(super) id: Option<String>,
    pub(super) peers: Vec<Peer>,
}

/// Another sentinel, as one of them names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) node: Node,
}

/// Adds the questions that [`answer`] reads the answers to.
pub(super) fn add_questions(commands: &mut Pipeline, service: &str) {
    // While a failover is under way, SENTINEL MASTER still has the old address.
    let address = commands.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME");
    let master = address.arg(service).cmd("SENTINEL").arg("MASTER");
    let sentinels = master.arg(service).cmd("SENTINEL").arg("SENTINELS");
    sentinels.arg(service).cmd("SENTINEL").arg("MYID");
}

/// Reads the answers.
///
/// # Errors
///
/// What the sentinel refuses with; `Rejected` for what makes no sense. What only some sentinels
/// tell, or some users may ask, is not needed.
pub(super) fn answer(
    answers: Vec<Value>,
    addresses: Option<&AddressMap>,
) -> Result<SentinelAnswer, BackendError> {
    let mut answers = answers.into_iter();
    let mut next = || reply::checked(answers.next().unwrap_or_default());
    let (address, master, sentinels, id) = (next()?, next(), next(), next());
    let id = id.ok().and_then(|id| reply::text(id).ok());
    let Some(node) = node_of_address(address)? else {
        return Ok(SentinelAnswer {
            primary: None,
            id,
            peers: Vec::new(),
        });
    };
    let epoch = master.ok().and_then(|master| {
        let fields = fields(master)?;
        fields.get("config-epoch")?.parse().ok()
    });
    let primary = NamedPrimary {
        node: mapped(node, addresses)?,
        epoch: epoch.unwrap_or_default(),
    };
    let mut peers = Vec::new();
    if let Ok(Value::Array(sentinels)) = sentinels {
        for peer in sentinels.into_iter().filter_map(peer) {
            let node = mapped(peer.node, addresses)?;
            peers.push(Peer { node, ..peer });
        }
    }
    Ok(SentinelAnswer {
        primary: Some(primary),
        id,
        peers,
    })
}

fn node_of_address(address: Value) -> Result<Option<Node>, BackendError> {
    if address == Value::Nil {
        return Ok(None);
    }
    let named: Result<(String, String), _> = redis::from_redis_value(address);
    let node = named.ok().and_then(|(host, port)| node(&host, &port));
    node.map(Some)
        .ok_or_else(|| BackendError::rejected("the answer names no address"))
}

fn peer(sentinel: Value) -> Option<Peer> {
    let fields = fields(sentinel)?;
    Some(Peer {
        id: fields.get("runid").filter(|id| !id.is_empty())?.clone(),
        node: node(fields.get("ip")?, fields.get("port")?)?,
    })
}

fn node(host: &str, port: &str) -> Option<Node> {
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| Node {
        host: host.into(),
        port,
    })
}

/// What is told by name, as a map or, in RESP2, as a list.
fn fields(told: Value) -> Option<HashMap<String, String>> {
    redis::from_redis_value(told).ok()
}

fn mapped(node: Node, addresses: Option<&AddressMap>) -> Result<Node, BackendError> {
    let Some(addresses) = addresses else {
        return Ok(node);
    };
    let (host, port) = addresses
        .call(&node.host, node.port)
        .map_err(BackendError::connection_lost)?;
    Ok(Node {
        host: host.into(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn list<const N: usize>(texts: [&str; N]) -> Value {
        Value::Array(texts.map(text).to_vec())
    }

    fn map(pairs: &[(&str, &str)]) -> Value {
        let pairs = pairs.iter().map(|(name, value)| (text(name), text(value)));
        Value::Map(pairs.collect())
    }

    fn at(host: &str, port: u16) -> Node {
        Node {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn an_answer_has_the_primary_and_the_other_sentinels() {
        let peers = || {
            Value::Array(vec![
                map(&[("ip", "10.0.0.2"), ("port", "26379"), ("runid", "b")]),
                // Not heard of for so long that its id is not known.
                map(&[("ip", "10.0.0.3"), ("port", "26379"), ("runid", "")]),
            ])
        };
        let master = map(&[("name", "m"), ("config-epoch", "7")]);
        let told = vec![list(["10.0.0.9", "6380"]), master, peers(), text("a")];
        let expected = SentinelAnswer {
            primary: Some(NamedPrimary {
                node: at("10.0.0.9", 6380),
                epoch: 7,
            }),
            id: Some("a".to_owned()),
            peers: vec![Peer {
                id: "b".to_owned(),
                node: at("10.0.0.2", 26379),
            }],
        };
        assert_eq!(answer(told, None).unwrap(), expected);

        // In RESP2, and with addresses that are mapped.
        let master = list(["name", "m", "config-epoch", "7"]);
        let told = vec![list(["10.0.0.9", "6380"]), master, peers(), text("a")];
        let map = AddressMap::new(|host, port| (format!("nat-{host}"), port + 1));
        let found = answer(told, Some(&map)).unwrap();
        assert_eq!(found.primary.unwrap().node, at("nat-10.0.0.9", 6381));
        assert_eq!(found.peers[0].node, at("nat-10.0.0.2", 26380));
    }

    #[test]
    fn what_a_sentinel_does_not_say_is_missing_and_nonsense_is_an_error() {
        let found = answer(vec![Value::Nil], None).unwrap();
        assert_eq!((found.primary, found.id), (None, None));
        let found = answer(vec![list(["h", "1"])], None).unwrap();
        assert_eq!(found.primary.unwrap().epoch, 0);
        for nonsense in [
            list(["h", "x"]),
            list(["", "1"]),
            list(["h", "0"]),
            Value::Int(1),
        ] {
            assert!(answer(vec![nonsense], None).is_err());
        }
        let map = AddressMap::new(|_, _| panic!("on purpose"));
        let error = answer(vec![list(["h", "1"])], Some(&map)).unwrap_err();
        assert!(error.to_string().contains("`addresses`"), "{error}");
    }
}
