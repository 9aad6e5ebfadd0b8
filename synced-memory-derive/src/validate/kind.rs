//! `value`, `collection` and `nested`: which types they are for.

use super::spelling;
use crate::diag::Diag;
use crate::model::FieldModel;
use crate::type_syntax::{self, Opaque, TypeSyntax};

/// The one that is given has to change something. Several exclude each other, whatever the type.
pub(super) fn fitting(field: &FieldModel, diag: &Diag) {
    let attrs = &field.attrs;
    let (word, mistake) = match (&attrs.value, &attrs.collection, &attrs.nested) {
        (Some(value), None, None) => (&value.word, redundant_value(field)),
        (None, Some(collection), None) => (&collection.word, not_a_collection(field)),
        (None, None, Some(nested)) => (&nested.word, not_nested(field)),
        _ => return,
    };
    if let Some(mistake) = mistake {
        diag.error(word, mistake);
    }
}

fn redundant_value(field: &FieldModel) -> Option<String> {
    let ty = spelling(&field.ty);
    let is_redundant = TypeSyntax::of(&field.ty) != TypeSyntax::Collection
        && type_syntax::inside_synced(&field.ty).is_none();
    is_redundant.then(|| format!("`{ty}` is one value already: remove `value`"))
}

fn not_a_collection(field: &FieldModel) -> Option<String> {
    let ty = spelling(&field.ty);
    Some(match type_syntax::opaque(&field.ty)? {
        Opaque::Option(_) => {
            "an `Option` is one value, whatever it contains: remove `collection`, or the `Option` \
             (an unset collection is empty)"
                .to_owned()
        }
        Opaque::Pointer(_, inner) => {
            let inner = spelling(inner);
            format!(
                "`{ty}` is one value, whatever it contains: write `{inner}`, or remove `collection`"
            )
        }
        Opaque::Collection => format!("`{ty}` is a collection already: remove `collection`"),
        Opaque::Array => {
            "an array has a fixed length: write a `Vec`, or remove `collection`".to_owned()
        }
        Opaque::Tuple => "a tuple is one value: remove `collection`".to_owned(),
        Opaque::Primitive if TypeSyntax::of(&field.ty).is_number() => {
            "a number is not a collection: remove `collection`".to_owned()
        }
        Opaque::Primitive => format!("`{ty}` is one value: remove `collection`"),
        Opaque::Refused => return None,
    })
}

fn not_nested(field: &FieldModel) -> Option<String> {
    if type_syntax::is_bare_value(&field.ty) {
        return None;
    }
    let ty = spelling(&field.ty);
    Some(match type_syntax::opaque(&field.ty)? {
        Opaque::Option(inner) => {
            let inner = spelling(inner);
            format!(
                "`nested` needs a struct that is always there: write `{inner}`, or remove `nested` \
                 and set the `Option` as one value"
            )
        }
        Opaque::Pointer(pointer, inner) => {
            let inner = spelling(inner);
            format!(
                "`nested` needs the struct itself: write `{inner}` without the `{pointer}`, or \
                 remove `nested` and set it as one value"
            )
        }
        Opaque::Collection => {
            "the elements of a collection can be changed one by one already: remove `nested` \
             (`….at(…).fields()` is the handle of an element's fields)"
                .to_owned()
        }
        Opaque::Array => "an array has no named fields: remove `nested`".to_owned(),
        Opaque::Tuple => "a tuple has no named fields: write a struct that derives \
             `SyncedMemory`, or remove `nested`"
            .to_owned(),
        Opaque::Primitive => format!("`{ty}` has no fields: remove `nested`"),
        Opaque::Refused => return None,
    })
}
