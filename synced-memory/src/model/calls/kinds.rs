//! The calls that users make.

use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub(in crate::model) enum CallKind {
    /// Adds items to the log, each of which is added only once.
    Log(Vec<Value>),
    Add(i64),
    AddInMap(&'static str, i64),
    Age(i64),
    Row(usize, i64),
    Role(Value),
    Extend(Vec<Value>),
    Include(Vec<Value>),
    Exclude(Value),
    /// From one number of the account to the other.
    Transfer(i64),
    /// Both or neither.
    LogAndAdd(Value, i64),
    Insert(usize, Value),
    RemoveAt(usize),
    RemoveItem(Value),
    Pop,
    SetAt(usize, Value),
    Clear(&'static str),
    ClearMap,
    Truncate(usize),
    /// Replaces a number of elements from an index on.
    Splice(usize, usize, Vec<Value>),
    Sort,
    /// A closure that changes an entry of the map, and the list.
    Update(&'static str, Value),
    /// A closure that adds to a number of the map.
    Count(&'static str, i64),
    /// A closure that changes two fields together.
    Person(Value, i64),
    /// A closure that removes one member of the set and adds another one.
    Tag(Value, Value),
    /// A closure that only removes.
    Retain(&'static str, Value),
    /// A closure that changes an element, which is compared as a whole.
    EditRow(usize, i64),
    Swap(usize, usize),
    /// A closure that changes the account, which is compared as a whole.
    Spend(i64),
    /// A closure that moves an amount between two numbers of the map.
    Move(&'static str, &'static str, i64),
    MapInsert(&'static str, Value),
    MapExtend(Vec<(&'static str, Value)>),
    GetOrInsert(&'static str, Value),
    MapRemove(&'static str),
    Name(Value),
    NoName,
    User(Value),
    NoUser,
    Assign(u64),
    Delete,
    /// A closure that deletes the key.
    Withdraw,
}

/// The number of the map that is only counted: by adds, and by closures.
pub(in crate::model) const COUNTED: &str = "c";

impl CallKind {
    /// Any call of process `at`. `serial` is a number that is used once. Some themes have only
    /// calls that conflict often: those on the list, or those on members of objects.
    pub(in crate::model) fn random(
        (at, serial): (usize, u64),
        theme: u64,
        random: &mut fastrand::Rng,
    ) -> Self {
        const NAMES: [&str; 3] = ["k", "l", "m"];
        let own = json!(format!("{at}.{serial}"));
        let name = NAMES[random.usize(0..NAMES.len())];
        let number = [COUNTED, COUNTED, name][random.usize(0..3)];
        // So that a few of them never add up to zero: adding zero to an unset number writes
        // nothing.
        let by = [10, -1][random.usize(0..2)];
        let index = random.usize(0..5);
        let letter = |random: &mut fastrand::Rng| json!(["a", "b", "c"][random.usize(0..3)]);
        let kinds = match theme % 6 {
            0 | 1 => 0..99,
            2 => 36..60,
            3 => 52..81,
            _ => 62..99,
        };
        match random.u8(kinds) {
            0..=8 => {
                let items =
                    (0..random.u64(1..3)).map(|item| json!(format!("{at}.{}", serial + item)));
                Self::Log(items.collect())
            }
            9..=14 => Self::Add(by),
            15..=16 => Self::AddInMap(name, by),
            17..=18 | 96 => Self::Age(by),
            19..=21 | 91 => Self::Row(random.usize(0..3), by),
            22 => Self::Role(letter(random)),
            23..=25 => Self::Extend((0..random.usize(1..3)).map(|_| letter(random)).collect()),
            26..=27 => Self::Include((0..random.usize(1..3)).map(|_| letter(random)).collect()),
            28..=29 => Self::Exclude(letter(random)),
            30..=33 | 93 => Self::Transfer(random.i64(-40..=40)),
            34..=35 => Self::LogAndAdd(own, by),
            36..=38 => Self::Insert(index, if random.bool() { letter(random) } else { own }),
            39..=41 => Self::RemoveAt(index),
            42..=43 => Self::RemoveItem(letter(random)),
            44 => Self::Pop,
            45..=46 => Self::SetAt(index, own),
            47 => Self::Clear("list"),
            48 => Self::Clear("tags"),
            49 | 98 => Self::ClearMap,
            50 => Self::Truncate(index),
            51..=52 => Self::Splice(
                index,
                random.usize(0..3),
                (0..random.usize(0..3)).map(|_| letter(random)).collect(),
            ),
            53 => Self::Sort,
            54..=55 => Self::Swap(index, random.usize(0..5)),
            56..=57 => Self::Retain("list", letter(random)),
            58..=59 => Self::Update(name, own),
            60..=61 => Self::MapInsert(name, own),
            62 => Self::MapExtend(vec![(name, own.clone()), ("m", own)]),
            63 => Self::GetOrInsert(name, own),
            64..=65 => Self::MapRemove(name),
            66 => Self::Name(own),
            67 => Self::NoName,
            68 => Self::User(json!({"name": own, "age": by})),
            69 => Self::NoUser,
            70 => Self::Assign(serial),
            71 => Self::Delete,
            72..=73 => Self::Withdraw,
            74..=79 => Self::Count(number, by),
            80 => Self::Move(number, name, by),
            81..=82 => Self::Person(if random.bool() { letter(random) } else { own }, by),
            83..=85 => Self::Tag(letter(random), letter(random)),
            86..=87 => Self::Retain("tags", letter(random)),
            88 => Self::Include(vec![letter(random)]),
            89..=90 => Self::EditRow(random.usize(0..3), by),
            92 => Self::Spend(random.i64(-40..=40)),
            94..=95 => Self::AddInMap(number, by),
            _ => Self::MapInsert(name, by.into()),
        }
    }

    /// Any call that takes an element out of the list.
    pub(in crate::model) fn random_take(random: &mut fastrand::Rng) -> Self {
        if random.bool() {
            Self::Pop
        } else {
            Self::RemoveAt(random.usize(0..3))
        }
    }

    /// Whether it is a closure of the user, which is compared with what it observed.
    pub(in crate::model) fn is_closure(&self) -> bool {
        use CallKind::{
            Count, EditRow, Move, Person, Retain, Sort, Spend, Splice, Swap, Tag, Truncate, Update,
            Withdraw,
        };
        matches!(
            self,
            Count(..)
                | EditRow(..)
                | Move(..)
                | Person(..)
                | Retain(..)
                | Sort
                | Spend(_)
                | Splice(..)
                | Swap(..)
                | Tag(..)
                | Truncate(_)
                | Update(..)
                | Withdraw
        )
    }
}
