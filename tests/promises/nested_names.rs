//! Inside a key the names are serde's, and a field has one name, however it is set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::Python;
use synced_memory::{ErrorKind, Key, SyncedMemory};

use crate::line::{DEADLINE, Line, wait_connected};

#[derive(SyncedMemory)]
struct State {
    #[synced(nested)]
    user: User,
    #[synced(nested, default = Plan { seat_count: 1, plan: "free".to_owned() })]
    plan: Plan,
    users: BTreeMap<String, User>,
    team: Vec<User>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
#[serde(rename_all = "camelCase")]
struct User {
    full_name: String,
    #[serde(rename = "years")]
    age: u32,
    logged_in: Vec<u64>,
    #[synced(nested)]
    home_address: Address,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
struct Address {
    street_name: String,
    #[serde(rename = "no")]
    number: u16,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
#[serde(rename_all = "kebab-case")]
struct Plan {
    seat_count: u32,
    #[serde(rename = "type")]
    plan: String,
}

fn ada() -> User {
    let home_address = Address {
        street_name: "St James".to_owned(),
        number: 12,
    };
    User {
        full_name: "Ada".to_owned(),
        age: 36,
        logged_in: vec![1],
        home_address,
    }
}

fn stored(line: &Line, key: &str) -> Value {
    let text = line
        .server
        .get_text(&format!("memory:{key}"))
        .expect("the key exists");
    serde_json::from_str::<Value>(&text).unwrap()["value"].take()
}

#[test]
fn a_renamed_field_that_is_set_by_handle_by_update_and_by_python_stays_one_field() {
    let line = Line::new();
    let state = State::attach(&line.open());
    let mut python = Python::against(&line.server);
    python.run("from synced_memory import Memory");
    let mut expected = json!({
        "fullName": "Ada", "years": 36, "loggedIn": [1], "homeAddress": {"STREET_NAME": "St James", "no": 12},
    });
    state.set_user(ada()).unwrap();
    assert_eq!(stored(&line, "user"), expected);
    for is_down in [false, true] {
        if is_down {
            line.down(state.memory());
        }
        state.user().set_full_name("Grace".to_owned()).unwrap();
        state.user().add_age(1).unwrap();
        state.user().logged_in().push(2).unwrap();
        state
            .user()
            .home_address()
            .set_street_name("Main".to_owned())
            .unwrap();
        state
            .update_user(|user| {
                user.full_name.push_str(" Hopper");
                user.age += 1;
                user.logged_in.push(3);
                user.home_address.number += 1;
                user.home_address.street_name.push_str(" St");
            })
            .unwrap();
        state
            .user()
            .update_home_address(|address| address.street_name.push('.'))
            .unwrap();
        line.up();
        state.memory().flush(DEADLINE).unwrap();
        wait_connected(state.memory());
        python.run("m = Memory(); u = m.user; u['fullName'] += '!'; u['years'] += 1; u['homeAddress']['no'] += 1");
        let age = expected["years"].as_u64().unwrap() + 3;
        let number = expected["homeAddress"]["no"].as_u64().unwrap() + 2;
        expected["fullName"] = json!("Grace Hopper!");
        expected["years"] = json!(age);
        expected["loggedIn"]
            .as_array_mut()
            .unwrap()
            .extend([json!(2), json!(3)]);
        expected["homeAddress"] = json!({"STREET_NAME": "Main St.", "no": number});
        assert_eq!(
            stored(&line, "user"),
            expected,
            "no field was added or removed"
        );
        let user = state.user().snapshot().unwrap();
        assert_eq!(
            (user.full_name.as_str(), u64::from(user.age)),
            ("Grace Hopper!", age)
        );
        assert_eq!(
            u64::from(state.user().home_address().number().unwrap()),
            number
        );
    }
}

#[test]
fn a_renamed_field_stays_one_field_in_the_elements_of_collections() {
    let line = Line::new();
    let state = State::attach(&line.open());
    state.users().insert("ada".to_owned(), ada()).unwrap();
    state.team().push(ada()).unwrap();
    state
        .users()
        .at("ada")
        .fields()
        .set_full_name("Grace".to_owned())
        .unwrap();
    state
        .users()
        .at("ada")
        .fields()
        .home_address()
        .set_number(13)
        .unwrap();
    state
        .users()
        .at("ada")
        .update(|user| user.age = 40)
        .unwrap();
    state
        .team()
        .at(0)
        .fields()
        .set_full_name("Grace".to_owned())
        .unwrap();
    state
        .team()
        .at(0)
        .fields()
        .home_address()
        .set_number(13)
        .unwrap();
    state.update_team(|team| team[0].age = 40).unwrap();
    let expected = json!({
        "fullName": "Grace", "years": 40, "loggedIn": [1], "homeAddress": {"STREET_NAME": "St James", "no": 13},
    });
    assert_eq!(stored(&line, "users"), json!({ "ada": expected }));
    assert_eq!(stored(&line, "team"), json!([expected]));
    assert_eq!(
        state.users().at("ada").get().unwrap(),
        state.team().at(0).fields().snapshot().unwrap()
    );
}

#[test]
fn changes_by_two_processes_to_one_element_are_both_made_even_if_it_has_moved() {
    let line = Line::new();
    let (state, other) = (
        State::attach(&line.open()),
        State::attach(&line.open_directly()),
    );
    state
        .team()
        .extend([
            ada(),
            User {
                full_name: "Bob".to_owned(),
                ..ada()
            },
        ])
        .unwrap();
    assert_eq!(other.team().len().unwrap(), 2);
    line.down(state.memory());
    state
        .team()
        .at(1)
        .fields()
        .set_full_name("Robert".to_owned())
        .unwrap();
    state.team().at(1).fields().logged_in().push(2).unwrap();
    other.team().at(1).fields().set_age(50).unwrap();
    other.team().at(1).fields().logged_in().push(3).unwrap();
    other
        .team()
        .insert(
            0,
            User {
                full_name: "Eve".to_owned(),
                ..ada()
            },
        )
        .unwrap();
    line.up();
    state.memory().flush(DEADLINE).unwrap();
    let robert = User {
        full_name: "Robert".to_owned(),
        age: 50,
        logged_in: vec![1, 3, 2],
        ..ada()
    };
    assert_eq!(
        state.team().to_vec().unwrap(),
        [
            User {
                full_name: "Eve".to_owned(),
                ..ada()
            },
            ada(),
            robert
        ]
    );
    let status = state.memory().status();
    assert_eq!(
        (status.superseded, status.dead_letters),
        (0, 0),
        "{status:?}"
    );
}

#[test]
fn a_setter_under_an_unset_parent_starts_from_its_default_or_an_object_with_only_that() {
    let line = Line::new();
    let (state, other) = (
        State::attach(&line.open()),
        State::attach(&line.open_directly()),
    );
    state.plan().set_seat_count(5).unwrap();
    assert_eq!(
        stored(&line, "plan"),
        json!({"seat-count": 5, "type": "free"})
    );
    assert_eq!(
        other.plan().snapshot().unwrap(),
        Plan {
            seat_count: 5,
            plan: "free".to_owned()
        }
    );

    state.user().home_address().set_number(7).unwrap();
    assert_eq!(stored(&line, "user"), json!({"homeAddress": {"no": 7}}));
    for state in [&state, &other] {
        assert_eq!(state.user().home_address().number().unwrap(), 7);
        let error = state.synced_user().get().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unset, "{error}");
        assert!(
            error.to_string().contains("memory:user") && error.to_string().contains("STREET_NAME"),
            "{error}"
        );
    }
    // Offline and by two processes, too: the fields that either has set are there, and the whole
    // value can be read once all fields are.
    line.down(state.memory());
    state.user().set_full_name("Ada".to_owned()).unwrap();
    state
        .user()
        .home_address()
        .set_street_name("Main".to_owned())
        .unwrap();
    other.user().set_age(36).unwrap();
    other.user().logged_in().push(1).unwrap();
    line.up();
    state.memory().flush(DEADLINE).unwrap();
    let home_address = Address {
        street_name: "Main".to_owned(),
        number: 7,
    };
    assert_eq!(
        state.user().snapshot().unwrap(),
        User {
            home_address,
            ..ada()
        }
    );
    assert_eq!(
        other.synced_user().get().unwrap(),
        state.synced_user().get().unwrap()
    );
}

#[test]
fn a_setter_under_a_missing_element_fails_as_unset_and_leaves_the_rest_decodable() {
    let line = Line::new();
    let state = State::attach(&line.open());
    for is_set in [false, true] {
        if is_set {
            state.users().insert("ada".to_owned(), ada()).unwrap();
            state.team().push(ada()).unwrap();
        }
        let before = ["users", "team"].map(|key| line.server.get_text(&format!("memory:{key}")));
        let refused = [
            state
                .users()
                .at("eve")
                .fields()
                .set_full_name("Eve".to_owned()),
            state
                .users()
                .at("eve")
                .fields()
                .home_address()
                .set_number(1),
            state.users().at("eve").fields().add_age(1),
            state.users().at("eve").fields().logged_in().push(1),
            state.team().at(1).fields().set_full_name("Eve".to_owned()),
            state.team().at(1).fields().add_age(1),
            state.team().at(1).fields().home_address().set_number(1),
        ];
        for refused in refused {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unset, "{error}");
        }
        let error = state
            .users()
            .at("eve")
            .update(|user| user.age += 1)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unset, "{error}");
        assert_eq!(
            ["users", "team"].map(|key| line.server.get_text(&format!("memory:{key}"))),
            before
        );
        let size = usize::from(is_set);
        assert_eq!(
            (
                state.users().to_map().unwrap().len(),
                state.team().to_vec().unwrap().len()
            ),
            (size, size)
        );
    }
    // A whole element can be set, although it was missing.
    state.users().at("eve").set(ada()).unwrap();
    assert_eq!(state.users().keys().unwrap(), ["ada", "eve"]);
}

#[test]
fn a_field_that_the_type_does_not_know_is_left_alone() {
    let line = Line::new();
    let state = State::attach(&line.open());
    let mut python = Python::against(&line.server);
    let user = r#"{"extra": 2**70, "fullName": "Ada", "years": 36, "loggedIn": [], "homeAddress": {"x": [], "STREET_NAME": "a", "no": 1}}"#;
    python.run(&format!(
        "from synced_memory import Memory; Memory().user = {user}"
    ));
    state.update_user(|user| user.age += 1).unwrap();
    state.user().home_address().set_number(2).unwrap();
    let text = line.server.get_text("memory:user").unwrap();
    let expected = r#"{"value": {"extra": 1180591620717411303424, "fullName": "Ada", "years": 37, "loggedIn": [], "homeAddress": {"x": [], "STREET_NAME": "a", "no": 2}},"#;
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(
        state
            .memory()
            .get(&Key::<Value>::new("user"))
            .unwrap()
            .unwrap()["years"],
        37
    );
}
