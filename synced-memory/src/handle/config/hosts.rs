//! A URL that lists hosts: `scheme://user:password@h1:7000,h2:7001/path?query`. It is split by
//! hand: to the standard of URLs, what follows the first `:` is one port.

#![cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only servers have several hosts")
)]

use std::net::Ipv6Addr;

#[cfg(feature = "redis")]
use super::url::read_options;
use super::url::{config_error, percent_decoded};
#[cfg(feature = "redis")]
use crate::backend::layout::Node;
use crate::base::error::Result;
#[cfg(feature = "redis")]
use crate::base::settings::Settings;

/// The parts of such a URL, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HostList {
    /// In lower case.
    pub(super) scheme: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// At least one. An IPv6 address has no brackets here.
    pub(super) hosts: Vec<(String, Option<u16>)>,
    /// What is between the slashes; a slash at the end adds nothing.
    pub(super) path_segments: Vec<String>,
    pub(super) query: Vec<(String, String)>,
}

#[cfg(feature = "redis")]
impl HostList {
    /// The servers at these hosts, at this port if the URL has none.
    pub(super) fn nodes(&self, default_port: u16) -> Vec<Node> {
        let node = |(host, port): &(String, Option<u16>)| Node {
            host: host.as_str().into(),
            port: port.unwrap_or(default_port),
        };
        self.hosts.iter().map(node).collect()
    }

    /// Sets the options in the query.
    ///
    /// # Errors
    ///
    /// `Config`.
    pub(super) fn read_options(&self, settings: &mut Settings) -> Result<()> {
        let query = self.query.iter();
        let pairs = query.map(|(name, value)| (name.as_str(), value.as_str()));
        read_options(&self.scheme, pairs, settings, &mut |_, _| Ok(false))
    }
}

/// The servers in a message, each as it stands in a URL.
#[cfg(feature = "redis")]
pub(super) fn shown_nodes(nodes: &[Node]) -> String {
    let shown = nodes.iter().map(Node::to_string);
    shown.collect::<Vec<_>>().join(",")
}

/// Splits a URL. No message repeats a part of it, which may be one of a password.
///
/// # Errors
///
/// `Config`.
pub(super) fn parse_hosts(url: &str) -> Result<HostList> {
    let url = url.trim_matches(|character: char| character <= ' ');
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let scheme = scheme.to_ascii_lowercase();
    let Some(rest) = rest.strip_prefix("//") else {
        return Err(config_error(format!(
            "the hosts of a `{scheme}:` URL stand behind `//`, as in {scheme}://host1,host2"
        )));
    };
    if rest.contains('#') {
        return Err(config_error(
            "a `#` in the URL makes no sense; in a password or a path it is written `%23`",
        ));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (login, hosts),
        None => ("", authority),
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let of_login = |text: &str| Ok(Some(percent_decoded(text)?).filter(|text| !text.is_empty()));
    let hosts = hosts.split(',').enumerate();
    let path = path.strip_suffix('/').unwrap_or(path);
    let path_segments = match path {
        "" => Vec::new(),
        path => path
            .split('/')
            .map(percent_decoded)
            .collect::<Result<_>>()?,
    };
    Ok(HostList {
        user: of_login(user)?,
        password: of_login(password)?,
        hosts: hosts
            .map(|(before, text)| parse_host(text, before + 1, &scheme))
            .collect::<Result<_>>()?,
        path_segments,
        query: url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        scheme,
    })
}

/// `host`, `host:port`, `[address]` or `[address]:port`. `number` counts the hosts from 1.
fn parse_host(text: &str, number: usize, scheme: &str) -> Result<(String, Option<u16>)> {
    let parsed = match text.strip_prefix('[') {
        Some(rest) => parse_bracketed(rest),
        None => parse_plain(text),
    };
    parsed.map_err(|what| {
        config_error(format!(
            "host {number} of the {scheme}:// URL {what}; several hosts are written \
             host1:port,host2:port"
        ))
    })
}

type ParsedHost = std::result::Result<(String, Option<u16>), &'static str>;

/// What is behind a `[`.
fn parse_bracketed(text: &str) -> ParsedHost {
    let (address, rest) = text
        .split_once(']')
        .ok_or("begins with a `[` that nothing closes")?;
    let address: Ipv6Addr = address
        .parse()
        .map_err(|_| "is no IPv6 address between its brackets")?;
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(parse_port(port)?),
        None if rest.is_empty() => None,
        None => return Err("goes on behind its `]`"),
    };
    Ok((address.to_string(), port))
}

fn parse_plain(text: &str) -> ParsedHost {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err("has more than one `:` (an IPv6 address stands in brackets, as in [::1])");
    }
    if host.is_empty() {
        return Err("is empty");
    }
    let is_foreign = |character: char| {
        character.is_whitespace() || character.is_control() || "%<>[]\\^|`\"{}".contains(character)
    };
    if host.contains(is_foreign) {
        return Err("has a character that no host has");
    }
    Ok((host.to_owned(), port.map(parse_port).transpose()?))
}

fn parse_port(text: &str) -> std::result::Result<u16, &'static str> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| is_number && *port > 0);
    port.ok_or("has a bad port")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;

    fn hosts(url: &str) -> Vec<(String, Option<u16>)> {
        let parsed = parse_hosts(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        parsed.hosts
    }

    #[test]
    fn each_host_has_a_port_of_its_own_or_none() {
        let host = |host: &str, port| (host.to_owned(), port);
        for (url, expected) in [
            ("redis-sentinel://h1", vec![host("h1", None)]),
            (
                "redis-cluster://h1:7000,h2:7001",
                vec![host("h1", Some(7000)), host("h2", Some(7001))],
            ),
            (
                "redis-cluster://h1,10.0.0.2:7001,h3/",
                vec![
                    host("h1", None),
                    host("10.0.0.2", Some(7001)),
                    host("h3", None),
                ],
            ),
            (
                "redis-sentinel://[::1]:26380,[2001:DB8::1],h3:1/mymaster",
                vec![
                    host("::1", Some(26380)),
                    host("2001:db8::1", None),
                    host("h3", Some(1)),
                ],
            ),
        ] {
            assert_eq!(hosts(url), expected, "{url}");
        }
    }

    #[test]
    fn login_path_and_query_are_decoded() {
        let url =
            " REDIS-sentinel://ad%40a:p%2Fa%3As%2Cs@h1:1,h2/my%20master/2/?prefix=a%26b:&x=\n";
        let parsed = parse_hosts(url).unwrap();
        let expected = HostList {
            scheme: "redis-sentinel".to_owned(),
            user: Some("ad@a".to_owned()),
            password: Some("p/a:s,s".to_owned()),
            hosts: vec![("h1".to_owned(), Some(1)), ("h2".to_owned(), None)],
            path_segments: vec!["my master".to_owned(), "2".to_owned()],
            query: vec![
                ("prefix".to_owned(), "a&b:".to_owned()),
                ("x".to_owned(), String::new()),
            ],
        };
        assert_eq!(parsed, expected);

        let bare = parse_hosts("redis-cluster://:s3cret@h1").unwrap();
        assert_eq!(
            (bare.user, bare.password),
            (None, Some("s3cret".to_owned()))
        );
        assert!(bare.path_segments.is_empty() && bare.query.is_empty());
        // The last `@` ends the login, as in any other URL.
        let odd = parse_hosts("redis-cluster://a:b@c@h1").unwrap();
        assert_eq!((odd.password.as_deref(), odd.hosts.len()), (Some("b@c"), 1));
    }

    #[test]
    fn what_is_no_host_is_refused_by_its_number_and_shows_nothing_of_the_url() {
        for (url, said) in [
            ("x:h1", "behind `//`"),
            ("x://", "host 1 of the x:// URL is empty"),
            ("x:///s3cret", "host 1 of the x:// URL is empty"),
            ("x://h1,/s", "host 2 of the x:// URL is empty"),
            ("x://h1,,h3/s", "host 2 of the x:// URL is empty"),
            ("x://:7000/s", "is empty"),
            ("x://h1:7000,h2:/s", "host 2 of the x:// URL has a bad port"),
            ("x://h1:s3cret/s", "has a bad port"),
            ("x://h1:0", "has a bad port"),
            ("x://h1:65536", "has a bad port"),
            ("x://h1:+80", "has a bad port"),
            ("x://h1:7000:7001", "more than one `:`"),
            ("x://::1", "in brackets"),
            ("x://[::1", "nothing closes"),
            ("x://[h1]", "no IPv6 address"),
            ("x://[::1]7000", "behind its `]`"),
            ("x://h1, h2", "host 2 of the x:// URL has a character"),
            ("x://:s3cret/x@h1/s", "is empty"),
            ("x://a:s3cret%FF@h1", "not UTF-8"),
            ("x://h1/s#s3cret", "`#`"),
        ] {
            let error = parse_hosts(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            let shown = error.to_string();
            assert!(
                shown.contains(said) && !shown.contains("s3cret"),
                "{url}: {shown}"
            );
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn hosts_are_shown_as_they_stand_in_a_url() {
        let hosts = [("h1", 1), ("::1", 2)];
        let nodes = hosts.map(|(host, port)| Node {
            host: host.into(),
            port,
        });
        assert_eq!(shown_nodes(&nodes), "h1:1,[::1]:2");
    }
}
