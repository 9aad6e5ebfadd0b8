//! How the processes of these histories make calls that change parts of a value.

use serde_json::Value;

use super::super::document::encoded;
use super::{ScenarioProcess, ScenarioServer};
use crate::client::state::Request;
use crate::pending::outbox::Precondition;
use crate::value::envelope;
use crate::value::mutation::{
    Action, Content, Json, MemberName, Mutation, ObservedValue, Operation, PathSegment, diff,
    locate,
};

pub(super) fn text(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

/// A process makes a call that is recorded on what it reads.
pub(super) fn call(
    process: &mut ScenarioProcess,
    origin: &str,
    segments: &[PathSegment],
    exact: Option<Precondition>,
    action: Action,
) {
    let visible = value(process);
    let path = locate(visible.as_deref(), Some(&text(origin)), segments)
        .unwrap()
        .path;
    let operations = vec![Operation { path, action }];
    let mutation = Mutation::new(Some(text(origin)), operations);
    let _accepted = process.write(Request::Mutate {
        mutation,
        ttl: None,
        exact,
        take: None,
    });
}

/// A process changes what it reads by a closure; `None` deletes it.
pub(super) fn update(
    process: &mut ScenarioProcess,
    change: impl FnOnce(Option<Value>) -> Option<Value>,
) {
    let view = process.state.view("k", process.mono);
    let visible = view.value().expect("something is there");
    let before: Value = serde_json::from_str(visible.as_str()).unwrap();
    let operations = if let Some(after) = change(Some(before.clone())) {
        diff(
            visible.as_str(),
            &encoded("", &before),
            &encoded("", &after),
            &[],
        )
    } else {
        let seen = ObservedValue::Content(Content::of(visible.as_str()));
        vec![Operation {
            path: Vec::new(),
            action: Action::Remove { seen },
        }]
    };
    let mutation = Mutation::compared(Some(text("{}")), operations);
    let _accepted = process.write(Request::Mutate {
        mutation,
        ttl: None,
        exact: Some(Precondition::Whole(view.stored)),
        take: None,
    });
}

/// A closure that changes one value of the document.
pub(super) fn set(name: &'static str, to: Value) -> impl FnOnce(Option<Value>) -> Option<Value> {
    move |visible| {
        let mut visible = visible?;
        *visible.pointer_mut(name)? = to;
        Some(visible)
    }
}

/// Two processes that have read the same document.
pub(super) fn both_know(document: &str) -> (ScenarioServer, ScenarioProcess, ScenarioProcess) {
    let (mut server, mut process, mut other) = (
        ScenarioServer::new(),
        ScenarioProcess::connected(1),
        ScenarioProcess::connected(2),
    );
    call(
        &mut process,
        "{}",
        &[],
        None,
        Action::Set {
            value: text(document),
            seen: ObservedValue::Absent,
        },
    );
    process.deliver(&mut server);
    other.now += 1_000_000_000;
    other.read(&mut server);
    (server, process, other)
}

pub(super) fn stored(server: &mut ScenarioServer) -> Option<String> {
    server
        .stored()
        .map(|stored| envelope::value_of(&stored).as_str().to_owned())
}

pub(super) fn value(process: &ScenarioProcess) -> Option<String> {
    let value = process.state.view("k", std::time::Duration::ZERO).value();
    value.map(|value| value.as_str().to_owned())
}

pub(super) fn member(name: &str) -> PathSegment {
    PathSegment::Member(MemberName::new(name))
}
