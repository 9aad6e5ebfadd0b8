//! `value`, `collection` and `nested`: which types take them.

use super::spelling;
use crate::diag::Diag;
use crate::kind::{self, Kind, Opaque};
use crate::model::Field;

/// One of them at most, and none that says nothing.
pub(super) fn check(field: &Field, diag: &Diag) {
    let attrs = &field.attrs;
    let given: Vec<_> = [&attrs.value, &attrs.collection, &attrs.nested]
        .into_iter()
        .flatten()
        .collect();
    if let [first, others @ ..] = given.as_slice()
        && !others.is_empty()
    {
        for other in others {
            let (first, other) = (&first.word, &other.word);
            diag.error(
                other,
                format!("`{first}` and `{other}` exclude each other: keep one"),
            );
        }
        return;
    }
    let mistake = match (&attrs.value, &attrs.collection, &attrs.nested) {
        (Some(value), ..) => no_value(field).map(|mistake| (value, mistake)),
        (_, Some(collection), _) => no_collection(field).map(|mistake| (collection, mistake)),
        (.., Some(nested)) => not_nested(field).map(|mistake| (nested, mistake)),
        _ => None,
    };
    if let Some((word, mistake)) = mistake {
        diag.error(&word.word, mistake);
    }
}

fn no_value(field: &Field) -> Option<String> {
    let ty = spelling(&field.ty);
    let says_nothing =
        Kind::of(&field.ty) != Kind::Collection && kind::inside_synced(&field.ty).is_none();
    says_nothing.then(|| format!("`{ty}` is one value anyway: remove `value`"))
}

fn no_collection(field: &Field) -> Option<String> {
    let ty = spelling(&field.ty);
    Some(match kind::opaque(&field.ty)? {
        Opaque::Option(_) => {
            "an `Option` is one value, whatever is in it: remove `collection`, or the `Option` \
             (an unset collection is empty)"
                .to_owned()
        }
        Opaque::Pointer(_, inner) => {
            let inner = spelling(inner);
            format!(
                "`{ty}` is one value, whatever is in it: write `{inner}`, or remove `collection`"
            )
        }
        Opaque::Collection => format!("`{ty}` is a collection anyway: remove `collection`"),
        Opaque::Array => {
            "an array has a fixed length: write a `Vec`, or remove `collection`".to_owned()
        }
        Opaque::Tuple => "a tuple is one value: remove `collection`".to_owned(),
        Opaque::Primitive if Kind::of(&field.ty).is_number() => {
            "a number is not a collection: remove `collection`".to_owned()
        }
        Opaque::Primitive => format!("`{ty}` is one value: remove `collection`"),
        Opaque::Refused => return None,
    })
}

fn not_nested(field: &Field) -> Option<String> {
    if kind::is_bare_value(&field.ty) {
        return None;
    }
    let ty = spelling(&field.ty);
    Some(match kind::opaque(&field.ty)? {
        Opaque::Option(inner) => {
            let inner = spelling(inner);
            format!(
                "`nested` needs a struct that is always there: write `{inner}`, or remove `nested` and set the \
                 `Option` as one value"
            )
        }
        Opaque::Pointer(pointer, inner) => {
            let inner = spelling(inner);
            format!(
                "`nested` needs the struct itself: write `{inner}` without the `{pointer}`, or remove `nested` and \
                 set it as one value"
            )
        }
        Opaque::Collection => "a collection is changed part by part already: remove `nested` (the fields of an \
             element are at `….at(…).fields()`)"
            .to_owned(),
        Opaque::Array => "an array has no named fields: remove `nested`".to_owned(),
        Opaque::Tuple => {
            "a tuple has no named fields: write a struct that derives `SyncedMemory`, or remove `nested`".to_owned()
        }
        Opaque::Primitive => format!("`{ty}` has no fields: remove `nested`"),
        Opaque::Refused => return None,
    })
}
