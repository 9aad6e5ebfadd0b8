//! The results of one call, in plain Rust.
//!
//! An operation on a list may mean more than one element: then mode is a result for each.

use serde_json::Value;

use super::edits::{CallEdits, Edit, EditAction, EditStep, is_state};
use super::targets::{ElementTarget, targets};

/// What an edit requires of the value that it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum ApplyMode {
    /// Nothing: it is newer than what is stored.
    Overwrite,
    /// What is stored is newer: it wins unless it is as it was observed.
    YieldToNewer,
    /// It must be as it was observed.
    RequireObserved,
    /// It is an edit of a closure: it must be as it was observed, or as the edit leaves it.
    CompareWithObserved { only_removes: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum EditRefusal {
    Superseded,
    Inapplicable,
}

enum NodeEffect {
    Keep,
    Replace(Value),
    Remove,
}

impl ApplyMode {
    /// The result of a removal of what is gone already: usually there is nothing to do.
    fn already_gone(self) -> Result<(), EditRefusal> {
        if self
            == (Self::CompareWithObserved {
                only_removes: false,
            })
        {
            Err(EditRefusal::Inapplicable)
        } else {
            Ok(())
        }
    }

    /// The refusal of a change that finds something else than it observed.
    fn differs(self) -> EditRefusal {
        if matches!(self, Self::CompareWithObserved { .. }) {
            EditRefusal::Inapplicable
        } else {
            EditRefusal::Superseded
        }
    }
}

impl CallEdits {
    /// All results that are possible if the call is applied to this value: all its operations, or
    /// none.
    pub(in crate::model) fn results_on(
        &self,
        value: Option<Value>,
        origin: Option<&Value>,
        mode: ApplyMode,
    ) -> Vec<(Result<(), EditRefusal>, Option<Value>)> {
        // Only a call of several operations has something to undo.
        let before = (self.all.len() > 1).then(|| value.clone());
        let mut refused = Vec::new();
        let mut applied = vec![value];
        for edit in &self.all {
            let mut next = Vec::new();
            for value in applied {
                let mut targets = targets(value.as_ref(), origin, edit);
                let last = targets.pop();
                let tries = targets
                    .into_iter()
                    .map(|target| (value.clone(), target))
                    .collect::<Vec<_>>();
                for (mut value, target) in
                    tries.into_iter().chain(last.map(|target| (value, target)))
                {
                    match edit.apply(&mut value, origin, target, mode) {
                        Ok(()) => next.push(value),
                        Err(refusal) => {
                            let undone = before.clone().unwrap_or(value);
                            refused.push((Err(refusal), undone));
                        }
                    }
                }
            }
            applied = next;
        }
        refused
            .into_iter()
            .chain(applied.into_iter().map(|value| (Ok(()), value)))
            .collect()
    }
}

impl Edit {
    fn apply(
        &self,
        root: &mut Option<Value>,
        origin: Option<&Value>,
        target: ElementTarget,
        mode: ApplyMode,
    ) -> Result<(), EditRefusal> {
        match self.edit_child(root.as_mut(), origin, &self.path, target, mode)? {
            NodeEffect::Keep => {}
            NodeEffect::Replace(value) => *root = Some(value),
            NodeEffect::Remove => *root = None,
        }
        Ok(())
    }

    /// Edits a child of a node, or the root.
    fn edit_child(
        &self,
        node: Option<&mut Value>,
        origin: Option<&Value>,
        path: &[EditStep],
        target: ElementTarget,
        mode: ApplyMode,
    ) -> Result<NodeEffect, EditRefusal> {
        if path.is_empty()
            && let Some(effect) = self.assign(node.as_deref(), origin, mode)?
        {
            return Ok(effect);
        }
        let Some(node) = node else {
            let Some(origin) = origin else {
                return match self.action {
                    // There is nothing to do; but the caller did not take out what it observed.
                    EditAction::Remove { observed: Some(_) }
                        if mode == ApplyMode::RequireObserved =>
                    {
                        Err(EditRefusal::Superseded)
                    }
                    EditAction::Remove { .. } => mode.already_gone().map(|()| NodeEffect::Keep),
                    _ => Err(EditRefusal::Inapplicable),
                };
            };
            let mut default = origin.clone();
            self.edit_in(&mut default, path, target, mode)?;
            return Ok(if default == *origin {
                NodeEffect::Keep
            } else {
                NodeEffect::Replace(default)
            });
        };
        self.edit_in(node, path, target, mode)?;
        Ok(NodeEffect::Keep)
    }

    fn edit_in(
        &self,
        node: &mut Value,
        path: &[EditStep],
        target: ElementTarget,
        mode: ApplyMode,
    ) -> Result<(), EditRefusal> {
        match path.split_first() {
            None => self.merge(node, target, mode),
            Some((EditStep::Member(name, origin), rest)) => {
                let object = node.as_object_mut().ok_or(EditRefusal::Inapplicable)?;
                match self.edit_child(object.get_mut(name), origin.as_ref(), rest, target, mode)? {
                    NodeEffect::Keep => {}
                    NodeEffect::Replace(value) => _ = object.insert(name.clone(), value),
                    NodeEffect::Remove => _ = object.remove(name),
                }
                Ok(())
            }
            Some((EditStep::Element(_), rest)) => {
                let list = node.as_array_mut().ok_or(EditRefusal::Inapplicable)?;
                let ElementTarget::At(at) = target else {
                    return match mode {
                        ApplyMode::RequireObserved if self.is_removal() => {
                            Err(EditRefusal::Superseded)
                        }
                        ApplyMode::CompareWithObserved { .. }
                            if self.is_removal() && target == ElementTarget::Other =>
                        {
                            Err(EditRefusal::Inapplicable)
                        }
                        _ if self.is_removal() => mode.already_gone(),
                        _ => Err(EditRefusal::Inapplicable),
                    };
                };
                match self.edit_child(list.get_mut(at), None, rest, target, mode)? {
                    NodeEffect::Keep => {}
                    NodeEffect::Replace(value) => list[at] = value,
                    NodeEffect::Remove => _ = list.remove(at),
                }
                Ok(())
            }
        }
    }

    /// What an edit does that needs no existing value; nothing for other edits.
    fn assign(
        &self,
        node: Option<&Value>,
        origin: Option<&Value>,
        mode: ApplyMode,
    ) -> Result<Option<NodeEffect>, EditRefusal> {
        Ok(Some(match &self.action {
            EditAction::Set { value, observed } => {
                let is_as_observed =
                    observed.as_ref() == node || observed.as_ref() == node.or(origin);
                let is_done = node == Some(value);
                match mode {
                    ApplyMode::YieldToNewer if is_done => NodeEffect::Keep,
                    ApplyMode::Overwrite => NodeEffect::Replace(value.clone()),
                    _ if is_as_observed => NodeEffect::Replace(value.clone()),
                    ApplyMode::CompareWithObserved { .. } if is_done && is_state(value) => {
                        NodeEffect::Keep
                    }
                    _ => return Err(mode.differs()),
                }
            }
            EditAction::SetIfAbsent(value) if node.is_none() => NodeEffect::Replace(value.clone()),
            EditAction::SetIfAbsent(_) if mode == ApplyMode::RequireObserved => {
                return Err(EditRefusal::Superseded);
            }
            EditAction::SetIfAbsent(_) => NodeEffect::Keep,
            EditAction::Remove { observed }
                if mode == ApplyMode::RequireObserved && observed.as_ref() != node =>
            {
                return Err(EditRefusal::Superseded);
            }
            EditAction::Remove { .. } if node.is_none() => {
                mode.already_gone().map(|()| NodeEffect::Keep)?
            }
            EditAction::Remove { observed }
                if mode != ApplyMode::Overwrite && observed.as_ref() != node =>
            {
                return Err(mode.differs());
            }
            EditAction::Remove { .. } => NodeEffect::Remove,
            _ => return Ok(None),
        }))
    }

    /// What an edit does to a number or a list.
    fn merge(
        &self,
        node: &mut Value,
        target: ElementTarget,
        mode: ApplyMode,
    ) -> Result<(), EditRefusal> {
        if let EditAction::Add { by, min, max } = &self.action {
            let number = node.as_i64().ok_or(EditRefusal::Inapplicable)?;
            let sum = i128::from(number) + by;
            if sum < *min || sum > *max {
                return Err(EditRefusal::Inapplicable);
            }
            *node = i64::try_from(sum)
                .map_err(|_| EditRefusal::Inapplicable)?
                .into();
            return Ok(());
        }
        let list = node.as_array_mut().ok_or(EditRefusal::Inapplicable)?;
        match &self.action {
            EditAction::Append(items) => list.extend(items.iter().cloned()),
            EditAction::Insert(mark, items) => {
                let at = if let ElementTarget::At(at) = target {
                    at
                } else {
                    mark.index
                };
                let at = at.min(list.len());
                list.splice(at..at, items.iter().cloned());
            }
            EditAction::Include(items) => {
                for item in items {
                    if !list.contains(item) {
                        list.push(item.clone());
                    } else if mode == ApplyMode::RequireObserved {
                        return Err(EditRefusal::Superseded);
                    }
                }
            }
            EditAction::Exclude(items) => {
                if mode == ApplyMode::RequireObserved
                    && !list.iter().any(|item| items.contains(item))
                {
                    return Err(EditRefusal::Superseded);
                }
                if items.iter().any(|item| !list.contains(item)) {
                    mode.already_gone()?;
                }
                list.retain(|item| !items.contains(item));
            }
            _ => {}
        }
        Ok(())
    }
}
