//! What operations come to, in plain Rust on a tree of values: no text, no hashes, nothing of the
//! library.
//!
//! Which element an operation on a list means is left open where the rules leave it open: `aims.rs`
//! says which it may be, and all that may come of it is told.

use std::rc::Rc;

use serde_json::Value;

use super::aims::{Aim, aims};
use super::compared::is_state;
use crate::value::mutation::{Action, Amount, ObservedValue, Operation};

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A member of an object, and what it is taken for where it is missing.
    Member(String, Option<Value>),
    Element(Mark),
}

/// An element as it was seen: the list, and the index in it.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) list: Vec<Value>,
    pub(super) index: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Act {
    Set { value: Value, seen: Option<Value> },
    SetIfAbsent(Value),
    Remove { seen: Option<Value> },
    Add { by: i128, min: i128, max: i128 },
    Append(Vec<Value>),
    Insert(Mark, Vec<Value>),
    Include(Vec<Value>),
    Exclude(Vec<Value>),
}

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) path: Vec<Step>,
    pub(super) act: Act,
}

/// What is at the place of a call, compared with the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    Older,
    Newer,
    AsSeen,
    /// It is compared with what was seen, whoever is newer.
    Compared {
        only_removes: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Superseded,
    Misfit,
}

enum Effect {
    Keep,
    Replace(Value),
    Remove,
}

/// The operations of one call.
#[derive(Debug, Clone, Default)]
pub(super) struct Edits {
    pub(super) stamp: u64,
    /// They are what a closure made of what it saw.
    pub(super) is_compared: bool,
    pub(super) all: Vec<Edit>,
    /// What was shown when it was recorded.
    pub(super) shown: Option<Rc<Value>>,
    /// The same as the library has it.
    pub(super) operations: Vec<Operation>,
}

impl Edits {
    /// All its operations, or none.
    pub(super) fn made_on(
        &self,
        value: Option<Value>,
        origin: Option<&Value>,
        there: There,
    ) -> Vec<(Result<(), Refusal>, Option<Value>)> {
        let before = if self.all.len() > 1 {
            value.clone()
        } else {
            None
        };
        let mut refused = Vec::new();
        let mut made = vec![value];
        for edit in &self.all {
            let mut next = Vec::new();
            for value in made {
                let mut aims = aims(value.as_ref(), origin, edit);
                let last = aims.pop();
                let tries = aims
                    .into_iter()
                    .map(|aim| (value.clone(), aim))
                    .collect::<Vec<_>>();
                for (mut value, aim) in tries.into_iter().chain(last.map(|aim| (value, aim))) {
                    match edit.perform(&mut value, origin, aim, there) {
                        Ok(()) => next.push(value),
                        Err(refusal) => {
                            let before = if self.all.len() > 1 {
                                before.clone()
                            } else {
                                value
                            };
                            refused.push((Err(refusal), before));
                        }
                    }
                }
            }
            made = next;
        }
        refused
            .into_iter()
            .chain(made.into_iter().map(|value| (Ok(()), value)))
            .collect()
    }
}

impl There {
    /// What becomes of a removal of what is gone already: it is done.
    fn gone(self) -> Result<(), Refusal> {
        if self
            == (Self::Compared {
                only_removes: false,
            })
        {
            Err(Refusal::Misfit)
        } else {
            Ok(())
        }
    }

    /// What becomes of a change that finds something else than it saw.
    fn differs(self) -> Refusal {
        if matches!(self, Self::Compared { .. }) {
            Refusal::Misfit
        } else {
            Refusal::Superseded
        }
    }
}

impl Edit {
    /// What an operation says, which was recorded on `now`.
    pub(super) fn of(operation: &Operation, now: Option<&Value>, origin: Option<&Value>) -> Self {
        use crate::value::mutation::PathStep as Said;
        let parse = |json: &crate::value::mutation::Json| {
            serde_json::from_str::<Value>(json.as_str()).expect("it is JSON")
        };
        let all =
            |items: &[crate::value::mutation::Json]| items.iter().map(parse).collect::<Vec<_>>();
        let mut here = now.or(origin).cloned();
        let mark = |here: &Option<Value>, index| {
            let list = here
                .as_ref()
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            Mark { list, index }
        };
        let mut path = Vec::new();
        for step in &operation.path {
            match step {
                Said::Member(member) => {
                    let origin = member.origin.as_ref().map(parse);
                    let found = here
                        .as_ref()
                        .and_then(|here| here.get(&*member.name))
                        .cloned();
                    here = found.or_else(|| origin.clone());
                    path.push(Step::Member(member.name.to_string(), origin));
                }
                Said::Element(element) => {
                    let mark = mark(&here, element.index);
                    here = mark.list.get(mark.index).cloned();
                    path.push(Step::Element(mark));
                }
            }
        }
        // Whether something was there says the operation: what a default holds may count as seen or
        // not.
        let seen = |seen: &ObservedValue| here.clone().filter(|_| *seen != ObservedValue::Absent);
        let act = match &operation.action {
            Action::Set { value, seen: saw } => Act::Set {
                value: parse(value),
                seen: seen(saw),
            },
            Action::SetIfAbsent { value } => Act::SetIfAbsent(parse(value)),
            Action::Remove { seen: saw } => Act::Remove { seen: seen(saw) },
            Action::Add {
                amount: Amount::Integer { by, min, max },
            } => Act::Add {
                by: *by,
                min: *min,
                max: *max,
            },
            Action::Add {
                amount: Amount::Float { .. },
            } => unreachable!("no float is added here"),
            Action::Append { items } => Act::Append(all(items)),
            Action::InsertAt { before, items } => {
                Act::Insert(mark(&here, before.index), all(items))
            }
            Action::Include { items } => Act::Include(all(items)),
            Action::Exclude { items } => Act::Exclude(all(items)),
        };
        Self { path, act }
    }

    pub(super) fn is_removal(&self) -> bool {
        matches!(self.act, Act::Remove { .. })
    }

    fn perform(
        &self,
        root: &mut Option<Value>,
        origin: Option<&Value>,
        aim: Aim,
        there: There,
    ) -> Result<(), Refusal> {
        match self.edit(root.as_mut(), origin, &self.path, aim, there)? {
            Effect::Keep => {}
            Effect::Replace(value) => *root = Some(value),
            Effect::Remove => *root = None,
        }
        Ok(())
    }

    fn edit(
        &self,
        node: Option<&mut Value>,
        origin: Option<&Value>,
        path: &[Step],
        aim: Aim,
        there: There,
    ) -> Result<Effect, Refusal> {
        if path.is_empty()
            && let Some(effect) = self.assign(node.as_deref(), origin, there)?
        {
            return Ok(effect);
        }
        let Some(node) = node else {
            let Some(origin) = origin else {
                return match self.act {
                    // What is gone already is done; but nobody took out what he saw.
                    Act::Remove { seen: Some(_) } if there == There::AsSeen => {
                        Err(Refusal::Superseded)
                    }
                    Act::Remove { .. } => there.gone().map(|()| Effect::Keep),
                    _ => Err(Refusal::Misfit),
                };
            };
            let mut fresh = origin.clone();
            self.edit_in(&mut fresh, path, aim, there)?;
            return Ok(if fresh == *origin {
                Effect::Keep
            } else {
                Effect::Replace(fresh)
            });
        };
        self.edit_in(node, path, aim, there)?;
        Ok(Effect::Keep)
    }

    fn edit_in(
        &self,
        node: &mut Value,
        path: &[Step],
        aim: Aim,
        there: There,
    ) -> Result<(), Refusal> {
        match path.split_first() {
            None => self.merge(node, aim, there),
            Some((Step::Member(name, origin), rest)) => {
                let object = node.as_object_mut().ok_or(Refusal::Misfit)?;
                match self.edit(object.get_mut(name), origin.as_ref(), rest, aim, there)? {
                    Effect::Keep => {}
                    Effect::Replace(value) => _ = object.insert(name.clone(), value),
                    Effect::Remove => _ = object.remove(name),
                }
                Ok(())
            }
            Some((Step::Element(_), rest)) => {
                let list = node.as_array_mut().ok_or(Refusal::Misfit)?;
                let Aim::At(at) = aim else {
                    return match there {
                        There::AsSeen if self.is_removal() => Err(Refusal::Superseded),
                        There::Compared { .. } if self.is_removal() && aim == Aim::Other => {
                            Err(Refusal::Misfit)
                        }
                        _ if self.is_removal() => there.gone(),
                        _ => Err(Refusal::Misfit),
                    };
                };
                match self.edit(list.get_mut(at), None, rest, aim, there)? {
                    Effect::Keep => {}
                    Effect::Replace(value) => list[at] = value,
                    Effect::Remove => _ = list.remove(at),
                }
                Ok(())
            }
        }
    }

    fn assign(
        &self,
        node: Option<&Value>,
        origin: Option<&Value>,
        there: There,
    ) -> Result<Option<Effect>, Refusal> {
        Ok(Some(match &self.act {
            Act::Set { value, seen } => {
                let is_as_seen = seen.as_ref() == node || seen.as_ref() == node.or(origin);
                let is_there = node == Some(value);
                match there {
                    There::Newer if is_there => Effect::Keep,
                    There::Older => Effect::Replace(value.clone()),
                    _ if is_as_seen => Effect::Replace(value.clone()),
                    There::Compared { .. } if is_there && is_state(value) => Effect::Keep,
                    _ => return Err(there.differs()),
                }
            }
            Act::SetIfAbsent(value) if node.is_none() => Effect::Replace(value.clone()),
            Act::SetIfAbsent(_) if there == There::AsSeen => return Err(Refusal::Superseded),
            Act::SetIfAbsent(_) => Effect::Keep,
            Act::Remove { seen } if there == There::AsSeen && seen.as_ref() != node => {
                return Err(Refusal::Superseded);
            }
            Act::Remove { .. } if node.is_none() => there.gone().map(|()| Effect::Keep)?,
            Act::Remove { seen } if there != There::Older && seen.as_ref() != node => {
                return Err(there.differs());
            }
            Act::Remove { .. } => Effect::Remove,
            _ => return Ok(None),
        }))
    }

    fn merge(&self, node: &mut Value, aim: Aim, there: There) -> Result<(), Refusal> {
        if let Act::Add { by, min, max } = &self.act {
            let number = node.as_i64().ok_or(Refusal::Misfit)?;
            let sum = i128::from(number) + by;
            if sum < *min || sum > *max {
                return Err(Refusal::Misfit);
            }
            *node = i64::try_from(sum).map_err(|_| Refusal::Misfit)?.into();
            return Ok(());
        }
        let list = node.as_array_mut().ok_or(Refusal::Misfit)?;
        match &self.act {
            Act::Append(items) => list.extend(items.iter().cloned()),
            Act::Insert(mark, items) => {
                let at = if let Aim::At(at) = aim {
                    at
                } else {
                    mark.index
                };
                let at = at.min(list.len());
                list.splice(at..at, items.iter().cloned());
            }
            Act::Include(items) => {
                for item in items {
                    if !list.contains(item) {
                        list.push(item.clone());
                    } else if there == There::AsSeen {
                        return Err(Refusal::Superseded);
                    }
                }
            }
            Act::Exclude(items) => {
                if there == There::AsSeen && !list.iter().any(|item| items.contains(item)) {
                    return Err(Refusal::Superseded);
                }
                if items.iter().any(|item| !list.contains(item)) {
                    there.gone()?;
                }
                list.retain(|item| !items.contains(item));
            }
            _ => {}
        }
        Ok(())
    }
}
