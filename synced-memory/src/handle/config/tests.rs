use super::*;

fn resolve(builder: Builder, env: &[(&str, &str)]) -> Result<Config> {
    let env: std::collections::HashMap<_, _> = env.iter().copied().collect();
    builder.resolve_with(&|name| env.get(name).map(ToString::to_string))
}

fn target(config: &Config) -> String {
    match &config.place {
        Target::Process(name) => format!("memory:{name}"),
        #[cfg(feature = "redis")]
        Target::Redis { target, .. } => target.clone(),
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
    let config = resolve(Builder::default(), &env).unwrap();
    assert_eq!(
        (config.prefix.as_str(), config.settings.timeout),
        ("url:", Duration::from_secs(2))
    );
    let config = resolve(Builder::default().prefix("builder:"), &env).unwrap();
    assert_eq!(config.prefix, "builder:");
    let config = resolve(Builder::default().url("memory:"), &env).unwrap();
    assert_eq!(config.prefix, "env:");
    assert_eq!(
        resolve(Builder::default().url("memory:"), &[])
            .unwrap()
            .prefix,
        "memory:"
    );
}

#[cfg(feature = "redis")]
#[test]
fn the_environment_names_the_server_as_in_the_python_package() {
    let config = resolve(Builder::default(), &[]).unwrap();
    assert_eq!(target(&config), "redis://redis:6379/0");
    let env = [("REDIS_HOST", "db"), ("REDIS_PORT", "7000")];
    assert_eq!(
        target(&resolve(Builder::default(), &env).unwrap()),
        "redis://db:7000/0"
    );
    let env = [
        ("REDIS_HOST", "db"),
        ("SYNCED_MEMORY_URL", "valkey://other/2"),
    ];
    assert_eq!(
        target(&resolve(Builder::default(), &env).unwrap()),
        "valkey://other:6379/2"
    );
    assert!(resolve(Builder::default(), &[("REDIS_PORT", "x")]).is_err());
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
        let config = resolve(Builder::default().url(url), &[])
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(
            target(&config),
            format!("sqlite:{}", path.display()),
            "{url}"
        );
    }
    let url = "sqlite:x?prefix=app:&durability=fsync";
    let config = resolve(Builder::default().url(url), &[]).unwrap();
    assert_eq!(
        (config.prefix.as_str(), config.durability),
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
    let config = resolve(builder, &[]).unwrap();
    assert!(!target(&config).contains("s3cret"));
}

#[cfg(feature = "redis")]
#[test]
fn a_password_may_hold_any_character() {
    let config = resolve(
        Builder::default().url("redis://ada:a%2Fb%40c@host:7/3"),
        &[],
    )
    .unwrap();
    let Target::Redis { server, .. } = config.place else {
        panic!("no server")
    };
    assert_eq!(server.redis_settings().username(), Some("ada"));
    assert_eq!(server.redis_settings().password(), Some("a/b@c"));
    assert_eq!(server.redis_settings().db(), 3);
}
