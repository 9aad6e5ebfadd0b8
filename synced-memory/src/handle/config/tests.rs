use std::collections::BTreeSet;

use super::url::SCHEMES;
use super::*;
use crate::base::settings::{LONGEST, OPTIONS};

fn resolve(builder: Builder, env: &[(&str, &str)]) -> Result<(Target, Settings)> {
    let env: std::collections::HashMap<_, _> = env.iter().copied().collect();
    builder.resolve_with(&|name| {
        let value = env
            .get(name)
            .map(|value| environment_value(name, value.into()));
        Ok(value.transpose()?.flatten())
    })
}

fn target_name(target: &Target) -> String {
    match target {
        Target::Process(name) => format!("memory:{name}"),
        #[cfg(feature = "redis")]
        Target::Redis { target, .. } => target.clone(),
        #[cfg(feature = "redis")]
        Target::Sentinel(target) => target.target.clone(),
        #[cfg(feature = "redis")]
        Target::Cluster(target) => target.target.clone(),
        #[cfg(feature = "sqlite")]
        Target::Sqlite(path) => format!("sqlite:{}", path.display()),
    }
}

#[test]
fn the_builder_wins_over_the_url_and_that_over_the_environment() {
    let env = [
        ("SYNCED_MEMORY_URL", "memory:x?prefix=url:&timeout=2s"),
        ("REDIS_PREFIX", "env:"),
    ];
    let settings = |builder, env| resolve(builder, env).unwrap().1;
    let of_url = settings(Builder::default(), &env);
    assert_eq!(
        (of_url.prefix.as_str(), of_url.timeout),
        ("url:", Duration::from_secs(2))
    );
    let of_builder = settings(Builder::default().prefix("builder:"), &env);
    assert_eq!(of_builder.prefix, "builder:");
    assert_eq!(
        settings(Builder::default().url("memory:"), &env).prefix,
        "env:"
    );
    assert_eq!(
        settings(Builder::default().url("memory:"), &[]).prefix,
        "memory:"
    );
}

#[cfg(feature = "redis")]
#[test]
fn the_environment_names_the_server_as_in_the_python_package() {
    let target = |env: &[_]| target_name(&resolve(Builder::default(), env).unwrap().0);
    assert_eq!(target(&[]), "redis://redis:6379/0");
    let env = [("REDIS_HOST", "db"), ("REDIS_PORT", "7000")];
    assert_eq!(target(&env), "redis://db:7000/0");
    let env = [
        ("REDIS_HOST", "db"),
        ("SYNCED_MEMORY_URL", "valkey://other/2"),
    ];
    assert_eq!(target(&env), "valkey://other:6379/2");
    for (env, expected) in [
        // What Kubernetes sets beside a Service called `redis`.
        (
            &[("REDIS_PORT", "tcp://10.0.0.1:6380")][..],
            "redis://10.0.0.1:6380/0",
        ),
        (
            &[("REDIS_PORT", "tcp://fd00::1:6380")],
            "redis://[fd00::1]:6380/0",
        ),
        (
            &[("REDIS_PORT", "tcp://[fd00::1]:6380")],
            "redis://[fd00::1]:6380/0",
        ),
        (
            &[("REDIS_HOST", "db"), ("REDIS_PORT", "tcp://10.0.0.1:6380")],
            "redis://db:6380/0",
        ),
        (
            &[
                ("REDIS_HOST", "db:7000"),
                ("REDIS_PORT", "tcp://10.0.0.1:6380"),
            ],
            "redis://db:7000/0",
        ),
        (
            &[("REDIS_HOST", "db:7000"), ("REDIS_PORT", "7000")],
            "redis://db:7000/0",
        ),
        (&[("REDIS_HOST", "::1")], "redis://[::1]:6379/0"),
        (&[("REDIS_HOST", "[::1]:7000")], "redis://[::1]:7000/0"),
        (&[("REDIS_PORT", "7000")], "redis://redis:7000/0"),
        // Files of secrets end in a newline.
        (
            &[("REDIS_HOST", "db\n"), ("REDIS_PORT", " 7000\n")],
            "redis://db:7000/0",
        ),
        (
            &[("SYNCED_MEMORY_URL", "redis://db:7000\r\n")],
            "redis://db:7000/0",
        ),
        (
            &[("SYNCED_MEMORY_URL", " \n"), ("REDIS_HOST", "")],
            "redis://redis:6379/0",
        ),
    ] {
        assert_eq!(target(env), expected, "{env:?}");
    }
}

#[test]
fn an_error_in_the_environment_names_the_variable() {
    for (name, value) in [
        ("REDIS_PORT", "x"),
        ("REDIS_PORT", "tcp://10.0.0.1"),
        ("REDIS_PORT", "65536"),
        ("REDIS_HOST", "db:port"),
        ("REDIS_HOST", "redis://db"),
        ("REDIS_PREFIX", "a{"),
        ("SYNCED_MEMORY_URL", "nonsense"),
        ("SYNCED_MEMORY_URL", "memory:?color=red"),
    ] {
        let error = resolve(Builder::default(), &[(name, value)])
            .err()
            .expect(value);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(name), "{name}={value}: {error}");
    }
    let both = [("REDIS_HOST", "db:7000"), ("REDIS_PORT", "7001")];
    let error = resolve(Builder::default(), &both).err().expect("two ports");
    assert!(
        error.to_string().contains("REDIS_HOST says port 7000"),
        "{error}"
    );
    #[cfg(unix)]
    {
        let value = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
        let error = environment_value("REDIS_PREFIX", value).expect_err("no UTF-8");
        assert!(error.to_string().contains("REDIS_PREFIX"), "{error}");
    }
}

#[test]
fn unknown_schemes_and_options_are_errors() {
    for url in [
        "http://x",
        "memory:?color=red",
        "memory:?timeout=soon",
        "memory:?timeout=0s",
        "nonsense",
        "memory:#x",
        "memory://x",
    ] {
        let error = resolve(Builder::default().url(url), &[])
            .err()
            .unwrap_or_else(|| panic!("{url} was taken"));
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn a_file_has_a_path_of_any_form_and_options() {
    let here = std::env::current_dir().unwrap();
    for (url, path) in [
        ("sqlite:state.db", here.join("state.db")),
        ("sqlite:./a/state.db?prefix=app:", here.join("a/state.db")),
        ("sqlite:../state.db", here.join("../state.db")),
        ("sqlite:/var/lib/state.db", "/var/lib/state.db".into()),
        ("sqlite:///var/lib/state.db", "/var/lib/state.db".into()),
        ("sqlite:/a%20b/%C3%A9%23%3F%25.db", "/a b/é#?%.db".into()),
        ("sqlite:/a b/é.db", "/a b/é.db".into()),
        ("sqlite:file:x", here.join("file:x")),
    ] {
        let (target, _) = resolve(Builder::default().url(url), &[])
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(
            target_name(&target),
            format!("sqlite:{}", path.display()),
            "{url}"
        );
    }
    let url = "sqlite:x?prefix=app:&durability=fsync";
    let (_, settings) = resolve(Builder::default().url(url), &[]).unwrap();
    assert_eq!(
        (settings.prefix.as_str(), settings.durability),
        ("app:", Durability::Fsync)
    );
    for url in [
        "sqlite:",
        "sqlite:?prefix=x",
        "sqlite::memory:",
        "sqlite://state.db",
        "sqlite:dir/",
        "sqlite:x?mode=ro",
    ] {
        let error = resolve(Builder::default().url(url), &[])
            .err()
            .unwrap_or_else(|| panic!("{url} was taken"));
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    }
}

#[cfg(not(feature = "sqlite"))]
#[test]
fn a_scheme_whose_feature_is_off_is_refused_by_its_name() {
    let error = resolve(Builder::default().url("sqlite:state.db"), &[])
        .err()
        .unwrap();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("the feature `sqlite`"),
        "{error}"
    );
}

#[cfg(not(feature = "tls"))]
#[test]
fn a_scheme_with_tls_is_refused_by_the_name_of_its_feature() {
    for url in ["rediss://host", "valkeys://host"] {
        let error = resolve(Builder::default().url(url), &[]).err().unwrap();
        let is_named = error.to_string().contains("the feature `tls`");
        assert!(
            error.kind() == ErrorKind::Config && (is_named || cfg!(not(feature = "redis"))),
            "{error}"
        );
    }
}

#[cfg(feature = "tls")]
#[test]
fn options_of_tls_are_taken_by_targets_with_tls_and_by_no_others() {
    let options = "tls_ca=ca.pem&tls_cert=a.pem&tls_key=a.key&tls_name=cache.example.com";
    for (url, is_taken) in [
        ("rediss://host:6380/2", true),
        ("valkeys://host", true),
        ("redis://host", false),
        ("valkey://host", false),
        ("dragonfly://host", false),
        ("redis+unix:///run/redis.sock", false),
        ("sqlite:state.db", false),
        ("memory:", false),
    ] {
        if url.starts_with("sqlite") && cfg!(not(feature = "sqlite")) {
            continue;
        }
        let resolved = resolve(Builder::default().url(format!("{url}?{options}")), &[]);
        match resolved {
            Ok((_, settings)) => {
                assert!(is_taken, "{url}");
                assert_eq!(settings.tls_ca, Some("ca.pem".into()));
                assert_eq!(settings.tls_cert, Some("a.pem".into()));
                assert_eq!(settings.tls_key, Some("a.key".into()));
                assert_eq!(settings.tls_name.as_deref(), Some("cache.example.com"));
            }
            Err(error) => {
                assert!(!is_taken, "{url}: {error}");
                let said = error.to_string();
                assert!(
                    said.contains("`tls_ca`") && said.contains("rediss://"),
                    "{said}"
                );
            }
        }
        assert!(resolve(Builder::default().url(url), &[]).is_ok(), "{url}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn a_ready_configuration_of_tls_leaves_nothing_to_its_options_but_the_name() {
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let config = Arc::new(config);
    let builder = |url: &str| Builder::default().url(url).tls_config(Arc::clone(&config));
    assert!(resolve(builder("rediss://host?tls_name=other"), &[]).is_ok());
    for (url, option) in [
        ("rediss://host?tls_ca=a", "`tls_ca`"),
        ("rediss://host?tls_insecure=true", "`tls_insecure`"),
        ("redis://host", "rediss://"),
        ("memory:", "rediss://"),
    ] {
        let error = resolve(builder(url), &[]).err().expect(url);
        assert_eq!(error.kind(), ErrorKind::Config);
        let said = error.to_string();
        assert!(
            said.contains("`tls_config`") && said.contains(option),
            "{said}"
        );
    }
}

#[cfg(feature = "redis")]
#[test]
fn credentials_are_for_servers_whose_url_has_no_login() {
    let builder = |url: &str| {
        let issue = || Ok(Credentials::new("app", "s3cret"));
        Builder::default().url(url).credentials(issue)
    };
    for url in [
        "redis://host",
        "valkey://host/2",
        "redis+unix:///run/redis.sock",
    ] {
        let (target, _) = resolve(builder(url), &[]).expect(url);
        let Target::Redis { credentials, .. } = target else {
            panic!("no server")
        };
        assert!(credentials.is_some());
    }
    for url in [
        "redis://user@host",
        "redis://:password@host",
        "redis+unix:///run/redis.sock?user=user",
        "memory:",
        "memory:name",
    ] {
        let error = resolve(builder(url), &[]).err().expect(url);
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        let said = format!("{error} {error:?} {:?}", builder(url));
        assert!(
            said.contains("`credentials`") && !said.contains("s3cret"),
            "{said}"
        );
    }
}

#[cfg(feature = "redis")]
fn sentinel_target(url: &str) -> (crate::backend::open::SentinelTarget, Settings) {
    match resolve(Builder::default().url(url), &[]) {
        Ok((Target::Sentinel(target), settings)) => (target, settings),
        Ok(_) => panic!("{url}: another target"),
        Err(error) => panic!("{url}: {error}"),
    }
}

#[cfg(feature = "redis")]
#[test]
fn sentinels_are_listed_before_the_service_and_its_database() {
    let url = "redis-sentinel://ada:a%2Fb@h1:7,h2,[::1]/my%20master/3?prefix=x:&sentinel_user=u\
               &sentinel_password=p%26q&name=blue";
    let (target, settings) = sentinel_target(url);
    let sentinels: Vec<_> = target.sentinels.iter().map(ToString::to_string).collect();
    assert_eq!(sentinels, ["h1:7", "h2:26379", "[::1]:26379"]);
    assert_eq!(target.service, "my master");
    assert_eq!(target.login.username(), Some("ada"));
    assert_eq!(target.login.password(), Some("a/b"));
    assert_eq!(target.login.db(), 3);
    assert_eq!(
        target.target,
        "redis-sentinel://h1:7,h2:26379,[::1]:26379/my master/3"
    );
    assert_eq!(settings.prefix, "x:");
    assert_eq!(settings.sentinel_user.as_deref(), Some("u"));
    let password = settings.sentinel_password.as_ref();
    assert_eq!(password.map(Secret::text), Some("p&q"));
    assert_eq!(settings.name.as_deref(), Some("blue"));
    assert!(!format!("{settings:?}").contains("p&q"));

    let (target, _) = sentinel_target("valkey-sentinel://h1/m/");
    assert_eq!(target.target, "valkey-sentinel://h1:26379/m/0");
}

#[cfg(feature = "redis")]
#[test]
fn a_url_of_sentinels_that_makes_no_sense_says_what_does() {
    for (url, said) in [
        ("redis-sentinel://h1", "names no service"),
        ("redis-sentinel://h1/?prefix=a", "names no service"),
        ("redis-sentinel://h1//0", "names no service"),
        (
            "redis-sentinel://h1/m/x",
            "the database in the URL is no number",
        ),
        (
            "redis-sentinel://h1/m/-1",
            "the database in the URL is no number",
        ),
        (
            "redis-sentinel://h1/m/0/x",
            "more than a service and a database",
        ),
        ("redis-sentinel://h1:7,h2:x/m", "host 2"),
        ("redis-sentinel://:s3cret@/m", "host 1"),
        ("redis-sentinel:h1/m", "behind `//`"),
        ("redis-sentinel://:s3cret@h1/m#x", "`#`"),
        ("redis-sentinel://h1/m?color=s3cret", "`color` is unknown"),
        (
            "redis-sentinel://h1/m?sentinel_user=u",
            "`sentinel_password`",
        ),
        ("redis-sentinel://h1/m?name=", "`name` is empty"),
        ("redis-sentinel://h1/m?tls_ca=a", "`tls=true`"),
    ] {
        let error = resolve(Builder::default().url(url), &[]).err().expect(url);
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        let shown = error.to_string();
        assert!(
            shown.contains(said) && !shown.contains("s3cret"),
            "{url}: {shown}"
        );
    }
}

#[cfg(feature = "redis")]
fn cluster_target(url: &str) -> (crate::backend::open::ClusterTarget, Settings) {
    match resolve(Builder::default().url(url), &[]) {
        Ok((Target::Cluster(target), settings)) => (target, settings),
        Ok(_) => panic!("{url}: another target"),
        Err(error) => panic!("{url}: {error}"),
    }
}

#[cfg(feature = "redis")]
#[test]
fn nodes_of_a_cluster_are_listed_and_its_only_database_is_0() {
    let url = "redis-cluster://ada:a%2Fb@h1:7,h2,[::1]/0?prefix=x:&name=blue&replicas=2";
    let (target, settings) = cluster_target(url);
    let seeds: Vec<_> = target.seeds.iter().map(ToString::to_string).collect();
    assert_eq!(seeds, ["h1:7", "h2:6379", "[::1]:6379"]);
    assert_eq!(target.login.username(), Some("ada"));
    assert_eq!(target.login.password(), Some("a/b"));
    assert_eq!(target.login.db(), 0);
    assert_eq!(target.target, "redis-cluster://h1:7,h2:6379,[::1]:6379");
    assert_eq!(
        (settings.prefix.as_str(), settings.name.as_deref()),
        ("x:", Some("blue"))
    );
    assert_eq!(settings.replicas, 2);
    let (target, _) = cluster_target("valkey-cluster://h1/");
    assert_eq!(target.target, "valkey-cluster://h1:6379");

    for (url, said) in [
        ("redis-cluster://h1/1", "only the database 0"),
        ("redis-cluster://h1/x", "only the database 0"),
        ("redis-cluster://h1/0/0", "only the database 0"),
        ("redis-cluster://h1,/0", "host 2"),
        ("redis-cluster://:s3cret@h1:0", "host 1"),
        ("redis-cluster:h1", "behind `//`"),
        ("redis-cluster://:s3cret@h1#x", "`#`"),
        ("redis-cluster://h1?color=s3cret", "`color` is unknown"),
        (
            "redis-cluster://h1?sentinel_password=s3cret",
            "`sentinel_password` is for redis-sentinel://",
        ),
        ("redis-cluster://h1?name=", "`name` is empty"),
        ("redis-cluster://h1?tls_ca=a", "`tls=true`"),
        ("redis-cluster://h1?replicas=-1", "`replicas`"),
        ("redis-cluster://h1?replicas=65536", "`replicas`"),
    ] {
        let error = resolve(Builder::default().url(url), &[]).err().expect(url);
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        let shown = error.to_string();
        assert!(
            shown.contains(said) && !shown.contains("s3cret"),
            "{url}: {shown}"
        );
    }
    for url in ["redis://h1", "rediss://h1", "redis-sentinel://h1/m"] {
        let builder = Builder::default().url(url).replicas(1);
        let needs_tls = url.starts_with("rediss") && cfg!(not(feature = "tls"));
        assert_eq!(resolve(builder, &[]).is_ok(), !needs_tls, "{url}");
    }
}

#[cfg(feature = "redis")]
#[test]
fn a_cluster_takes_credentials_addresses_and_tls() {
    let builder = || Builder::default().url("redis-cluster://h1");
    let issue = || Ok(Credentials::new("app", "s3cret"));
    let mapped = builder().addresses(|host, port| (host.to_owned(), port));
    let (target, _) = resolve(mapped.credentials(issue), &[]).unwrap();
    let Target::Cluster(target) = target else {
        panic!("another target")
    };
    assert!(target.addresses.is_some() && target.credentials.is_some());
    let secure = resolve(builder().tls(true), &[]);
    assert_eq!(secure.is_ok(), cfg!(feature = "tls"));
}

#[cfg(feature = "redis")]
#[test]
fn what_is_for_sentinels_alone_is_taken_by_their_targets() {
    let url = "redis-sentinel://h1/m";
    let mapped = || Builder::default().addresses(|host, port| (host.to_owned(), port));
    let issue = || Ok(Credentials::new("app", "s3cret"));
    let builder = mapped().url(url).credentials(issue);
    let (target, _) = resolve(builder, &[]).unwrap();
    let Target::Sentinel(target) = target else {
        panic!("another target")
    };
    assert!(target.addresses.is_some() && target.credentials.is_some());
    let twice = Builder::default()
        .url("redis-sentinel://:p@h1/m")
        .credentials(issue);
    assert!(resolve(twice, &[]).is_err());
    for url in ["redis://host", "memory:"] {
        let error = resolve(mapped().url(url), &[]).err().expect(url);
        assert!(error.to_string().contains("`addresses`"), "{error}");
        let error = resolve(Builder::default().url(url).tls(true), &[]);
        let error = error.err().expect(url).to_string();
        assert!(error.contains("rediss://"), "{error}");
    }
    let secure = resolve(Builder::default().url(url).tls(true), &[]);
    assert_eq!(secure.is_ok(), cfg!(feature = "tls"));
}

#[cfg(feature = "redis")]
#[test]
fn no_message_holds_the_password() {
    for url in [
        "redis://user:s3cret@host:port",
        "redis://:s3cret@host/x",
        "redis://:s3cret@host/0?color=1",
        "redis://:s3cret@/0",
        "redis://:s3cret@host/0#frag",
    ] {
        let error = resolve(Builder::default().url(url), &[])
            .err()
            .unwrap_or_else(|| panic!("{url} was taken"));
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
    let builder = Builder::default().url("redis://user:s3cret@host");
    assert!(!format!("{builder:?}").contains("s3cret"));
    let (target, _) = resolve(builder, &[]).unwrap();
    assert!(!target_name(&target).contains("s3cret"));
}

#[cfg(feature = "redis")]
#[test]
fn a_password_may_hold_any_character() {
    let (target, _) = resolve(
        Builder::default().url("redis://ada:a%2Fb%40c@host:7/3"),
        &[],
    )
    .unwrap();
    let Target::Redis { server, .. } = target else {
        panic!("no server")
    };
    assert_eq!(server.redis_settings().username(), Some("ada"));
    assert_eq!(server.redis_settings().password(), Some("a/b@c"));
    assert_eq!(server.redis_settings().db(), 3);
}

/// The rows of the README's table that has this head.
fn rows_of_the_readme(head: &str) -> Vec<&'static str> {
    let readme = include_str!("../../../../README.md");
    let (_, table) = readme.split_once(head).expect("a table");
    let rows = table.lines().skip(2);
    rows.take_while(|line| line.starts_with('|')).collect()
}

#[test]
fn the_readme_names_every_scheme_and_no_other() {
    let rows = rows_of_the_readme("| URL | |");
    let texts = rows
        .iter()
        .flat_map(|row| row.split('`').skip(1).step_by(2));
    let documented: BTreeSet<_> = texts
        .filter_map(|text| text.split_once(':'))
        .map(|(scheme, _)| scheme)
        .collect();
    let schemes: BTreeSet<_> = SCHEMES.iter().map(|scheme| scheme.name).collect();
    assert_eq!(documented, schemes);
}

#[test]
fn an_unknown_scheme_is_answered_with_all_that_are_known() {
    let error = resolve(Builder::default().url("http://x"), &[])
        .err()
        .unwrap();
    for scheme in SCHEMES {
        let usage = format!("{}:", scheme.name);
        assert!(error.to_string().contains(&usage), "{error}");
    }
}

#[test]
fn the_readme_has_the_row_of_every_option_and_no_other() {
    let rows = OPTIONS.iter().map(|option| {
        let (name, note) = (
            option.name,
            if option.is_in_urls {
                ""
            } else {
                " (builder only)"
            },
        );
        format!(
            "| `{name}`{note} | {} | {} |",
            option.default, option.meaning
        )
    });
    assert_eq!(
        rows_of_the_readme("| query option and builder method | default | |"),
        rows.collect::<Vec<_>>()
    );
}

#[test]
fn the_defaults_in_the_readme_are_the_defaults() {
    let mut settings = Settings::default();
    for option in OPTIONS.iter().filter(|option| option.is_in_urls) {
        let quoted = option.default.strip_prefix('`');
        match quoted.and_then(|text| text.strip_suffix('`')) {
            Some(text) => assert!(settings.set_from_text(option.name, text).unwrap()),
            None => assert!(
                ["none", "the program's name"].contains(&option.default),
                "{} is no default",
                option.default
            ),
        }
    }
    assert_eq!(settings, Settings::default());
}

#[test]
fn an_unknown_option_is_answered_with_all_that_are_known() {
    let error = resolve(Builder::default().url("memory:?color=red"), &[])
        .err()
        .unwrap();
    for option in OPTIONS {
        let is_named = error.to_string().contains(option.name);
        assert_eq!(is_named, option.is_in_urls, "{}: {error}", option.name);
    }
}

#[test]
fn every_name_of_a_policy_is_an_option() {
    fn assert_read(option: &str, names: impl Iterator<Item = &'static str>) {
        for name in names {
            let url = format!("memory:?{option}={name}");
            let (_, settings) = resolve(Builder::default().url(url), &[]).unwrap();
            let read = [
                settings.read_policy.as_str(),
                settings.write_policy.as_str(),
                settings.durability.as_str(),
                settings.connect.as_str(),
            ];
            assert!(read.contains(&name), "{option}={name}");
        }
    }
    assert_read(
        "read_policy",
        ReadPolicy::ALL.iter().map(|policy| policy.as_str()),
    );
    assert_read(
        "write_policy",
        WritePolicy::ALL.iter().map(|policy| policy.as_str()),
    );
    assert_read(
        "durability",
        Durability::ALL.iter().map(|durability| durability.as_str()),
    );
    assert_read(
        "connect",
        ConnectPolicy::ALL.iter().map(|policy| policy.as_str()),
    );
    let url = "memory:?write_policy=soon";
    let error = resolve(Builder::default().url(url), &[]).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("`through`, `behind` or `confirmed`"),
        "{error}"
    );
}

/// An option at one of its extremes: as the builder sets it, and as a URL has it.
struct Extreme {
    option: &'static str,
    set: fn(Builder) -> Builder,
    text: Option<&'static str>,
    is_taken: bool,
}

const fn extreme(
    option: &'static str,
    set: fn(Builder) -> Builder,
    text: Option<&'static str>,
    is_taken: bool,
) -> Extreme {
    Extreme {
        option,
        set,
        text,
        is_taken,
    }
}

const TOO_LONG: Duration = LONGEST.saturating_add(Duration::from_nanos(1));
const LEAST: Duration = Duration::from_nanos(1);

/// What each option takes and refuses at its ends.
const EXTREMES: &[Extreme] = &[
    extreme("prefix", |b| b.prefix(""), Some(""), true),
    extreme("prefix", |b| b.prefix("{"), Some("{"), false),
    extreme("scope", |b| b.scope("a:b"), Some("a:b"), true),
    extreme("scope", |b| b.scope(""), Some(""), false),
    extreme("timeout", |b| b.timeout(LEAST), Some("1ns"), true),
    extreme("timeout", |b| b.timeout(Duration::ZERO), Some("0s"), false),
    extreme("timeout", |b| b.timeout(LONGEST), Some("1000years"), true),
    extreme(
        "timeout",
        |b| b.timeout(TOO_LONG),
        Some("1000years 1ns"),
        false,
    ),
    extreme(
        "timeout",
        |b| b.timeout(Duration::MAX),
        Some("18446744073709551615s"),
        false,
    ),
    extreme(
        "shutdown_timeout",
        |b| b.shutdown_timeout(Duration::ZERO),
        Some("0s"),
        true,
    ),
    extreme(
        "shutdown_timeout",
        |b| b.shutdown_timeout(LONGEST),
        Some("1000years"),
        true,
    ),
    extreme(
        "shutdown_timeout",
        |b| b.shutdown_timeout(TOO_LONG),
        Some("1000years 1ns"),
        false,
    ),
    extreme(
        "shutdown_timeout",
        |b| b.shutdown_timeout(Duration::MAX),
        None,
        false,
    ),
    extreme(
        "tombstone_ttl",
        |b| b.tombstone_ttl(LEAST),
        Some("1ns"),
        true,
    ),
    extreme(
        "tombstone_ttl",
        |b| b.tombstone_ttl(Duration::ZERO),
        Some("0s"),
        false,
    ),
    extreme(
        "tombstone_ttl",
        |b| b.tombstone_ttl(LONGEST),
        Some("1000years"),
        true,
    ),
    extreme(
        "tombstone_ttl",
        |b| b.tombstone_ttl(TOO_LONG),
        Some("1000years 1ns"),
        false,
    ),
    extreme(
        "tombstone_ttl",
        |b| b.tombstone_ttl(Duration::MAX),
        None,
        false,
    ),
    extreme("cache_limit", |b| b.cache_limit(0), Some("0"), true),
    extreme(
        "cache_limit",
        |b| b.cache_limit(usize::MAX),
        Some("18446744073709551615"),
        true,
    ),
    extreme(
        "connect",
        |b| b.connect(ConnectPolicy::Required),
        Some("required"),
        true,
    ),
    // Of a target without TLS.
    extreme("tls_ca", |b| b.tls_ca("a"), Some("a"), false),
    extreme("tls_cert", |b| b.tls_cert("a"), Some("a"), false),
    extreme("tls_key", |b| b.tls_key("a"), Some("a"), false),
    extreme("tls_name", |b| b.tls_name("a"), Some("a"), false),
    extreme(
        "tls_insecure",
        |b| b.tls_insecure(true),
        Some("true"),
        false,
    ),
    extreme(
        "tls_insecure",
        |b| b.tls_insecure(false),
        Some("false"),
        true,
    ),
    // Of a target that no other server names.
    extreme("tls", |b| b.tls(true), Some("true"), false),
    extreme("tls", |b| b.tls(false), Some("false"), true),
    extreme("sentinel_user", |b| b.sentinel_user("a"), Some("a"), false),
    extreme(
        "sentinel_password",
        // Not a letter: it is taken out of the errors of all tests as long as it is in use.
        |b| b.sentinel_password("password-of-this-test"),
        Some("password-of-this-test"),
        false,
    ),
    extreme("name", |b| b.name("a"), Some("a"), false),
    // Of a target that has none.
    extreme("replicas", |b| b.replicas(1), Some("1"), false),
    extreme("replicas", |b| b.replicas(0), Some("0"), true),
    extreme("outbox_limit", |b| b.outbox_limit(0), Some("0"), false),
    extreme("outbox_limit", |b| b.outbox_limit(1), Some("1"), true),
    extreme(
        "outbox_limit",
        |b| b.outbox_limit(usize::MAX),
        Some("18446744073709551615"),
        true,
    ),
    extreme(
        "outbox_limit",
        |b| b.outbox_limit(0),
        Some("18446744073709551616"),
        false,
    ),
    extreme(
        "read_policy",
        |b| b.read_policy(ReadPolicy::Near),
        Some("near"),
        true,
    ),
    extreme(
        "write_policy",
        |b| b.write_policy(WritePolicy::Behind),
        Some("behind"),
        true,
    ),
    extreme("journal", |b| b.journal("a"), Some("a"), true),
    extreme(
        "durability",
        |b| b.durability(Durability::Fsync),
        Some("fsync"),
        true,
    ),
    extreme("client_name", |b| b.client_name(""), Some(""), true),
    extreme("client_name", |b| b.client_name("!a~"), Some("!a~"), true),
    extreme(
        "client_name",
        |b| b.client_name("x".repeat(255)),
        None,
        true,
    ),
    extreme(
        "client_name",
        |b| b.client_name("x".repeat(256)),
        None,
        false,
    ),
    extreme(
        "client_name",
        |b| b.client_name("a b"),
        Some("a%20b"),
        false,
    ),
    extreme("client_name", |b| b.client_name("a\n"), Some("a%0A"), false),
    extreme(
        "client_name",
        |b| b.client_name("a\u{7f}"),
        Some("a%7F"),
        false,
    ),
    extreme(
        "client_name",
        |b| b.client_name("caf\u{e9}"),
        Some("caf%C3%A9"),
        false,
    ),
    extreme("backoff", |b| b.backoff(LEAST, LEAST), None, true),
    extreme("backoff", |b| b.backoff(LEAST, LONGEST), None, true),
    extreme("backoff", |b| b.backoff(LONGEST, LONGEST), None, true),
    extreme("backoff", |b| b.backoff(Duration::ZERO, LEAST), None, false),
    extreme("backoff", |b| b.backoff(LEAST, Duration::ZERO), None, false),
    extreme("backoff", |b| b.backoff(LEAST, TOO_LONG), None, false),
    extreme(
        "backoff",
        |b| b.backoff(Duration::MAX, Duration::MAX),
        None,
        false,
    ),
];

#[test]
fn every_option_is_taken_or_refused_at_its_extremes_in_builder_and_url_alike() {
    for option in OPTIONS {
        let is_listed = |extreme: &&Extreme| extreme.option == option.name;
        let listed: Vec<_> = EXTREMES.iter().filter(is_listed).collect();
        assert!(
            !listed.is_empty(),
            "what are the extremes of `{}`?",
            option.name
        );
        let in_url = listed.iter().any(|extreme| extreme.text.is_some());
        assert_eq!(in_url, option.is_in_urls, "{}", option.name);
    }
    for Extreme {
        option,
        set,
        text,
        is_taken,
    } in EXTREMES
    {
        let of_builder = set(Builder::default().url("memory:"));
        let of_url = text.map(|text| Builder::default().url(format!("memory:?{option}={text}")));
        for builder in [Some(of_builder), of_url].into_iter().flatten() {
            match resolve(builder.clone(), &[]) {
                Ok(_) => assert!(is_taken, "{option} was taken: {builder:?}, {text:?}"),
                Err(error) => {
                    assert!(!is_taken, "{option}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Config, "{option}: {error}");
                    assert!(error.to_string().contains(option), "{option}: {error}");
                }
            }
        }
    }
}
