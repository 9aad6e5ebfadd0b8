//! Which parts of a value are merged on their own, recorded while the value is written.
//!
//! Neither a JSON text nor the calls of serde distinguish a `HashSet` from a `Vec`, or a struct
//! with
//! `flatten` from a map. The type does: serde's generic methods get each part under its own type,
//! whose name says what it is. A type that is not known here is one part, whatever is inside.

use std::any::type_name;
use std::cell::RefCell;

use serde::ser::{self, Serialize, Serializer};

use crate::value::json::ExactNumbers;

/// How a value is merged, and which of its children are more than plain parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// It is compared and replaced as a whole. The order of its members counts.
    Part(Children),
    /// As `Part`, but a map or a set, in which order does not count.
    Unordered(Children),
    /// Merged by element.
    List(Children),
    /// Merged by member; stored as a list, in which order does not count.
    Set(Children),
    /// Merged by entry; stored as an object, in which order does not count.
    Map(Children),
    /// A `serde_json::Value`: objects by member, lists by element, to any depth.
    Json,
    /// A struct that is merged by field.
    Fields(Vec<(ShapeField, Shape)>),
}

/// The children that are more than plain parts, by their index in the text.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Children(Vec<(usize, Shape)>);

/// A field of a struct that is merged by field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ShapeField {
    /// As serde writes it.
    pub(crate) name: &'static str,
    /// Older names, which serde reads.
    pub(crate) aliases: &'static [&'static str],
}

/// A member of a struct that derives `SyncedMemory`, as the derive describes it.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// As serde writes it.
    pub name: &'static str,
    /// Older names, which serde reads.
    pub aliases: &'static [&'static str],
    /// The members of its type, if that is such a struct too.
    pub nested: Option<fn() -> &'static [Self]>,
}

/// The members of a struct that derives `SyncedMemory`.
pub(crate) type Members = fn() -> &'static [Member];

/// A part of which nothing more is known.
pub(crate) static PLAIN: Shape = Shape::Part(Children(Vec::new()));

impl Default for Shape {
    fn default() -> Self {
        Self::Part(Children::default())
    }
}

impl Children {
    /// The shape of the child at this index.
    pub(crate) fn at(&self, index: usize) -> &Shape {
        match self.0.binary_search_by_key(&index, |(at, _)| *at) {
            Ok(found) => &self.0[found].1,
            Err(_) => &PLAIN,
        }
    }

    fn push(&mut self, index: usize, shape: Shape) {
        if shape != PLAIN {
            self.0.push((index, shape));
        }
    }
}

impl Shape {
    /// The shape of something that is one part, with these children.
    fn part(children: Children) -> Self {
        Self::Part(children).inside_a_part()
    }

    fn is_plain(&self) -> bool {
        matches!(self, Self::Part(Children(children)) if children.is_empty())
    }

    /// What is known of it inside a part: only where order does not count.
    fn inside_a_part(self) -> Self {
        let inside = |Children(children): Children| {
            let known = children
                .into_iter()
                .map(|(at, shape)| (at, shape.inside_a_part()));
            Children(known.filter(|(_, shape)| !shape.is_plain()).collect())
        };
        match self {
            Self::Part(children) | Self::List(children) => Self::Part(inside(children)),
            Self::Unordered(children) | Self::Set(children) | Self::Map(children) => {
                Self::Unordered(inside(children))
            }
            Self::Json | Self::Fields(_) => Self::default(),
        }
    }
}

/// What the type of a value says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TypeKind {
    List,
    Set,
    Map,
    Json,
    Part,
}

/// By the name of the type, which the standard library may change: a test checks it.
fn kind_of<T: ?Sized>() -> TypeKind {
    const WRAPPERS: [&str; 4] = [
        "alloc::boxed::Box<",
        "alloc::sync::Arc<",
        "alloc::rc::Rc<",
        "core::option::Option<",
    ];
    let mut name = type_name::<T>().trim_start_matches('&');
    while let Some(inner) = WRAPPERS
        .iter()
        .find_map(|wrapper| name.strip_prefix(wrapper))
    {
        name = inner.trim_start_matches('&');
    }
    match name.split_once('<').map_or(name, |(path, _)| path) {
        "alloc::vec::Vec" | "alloc::collections::vec_deque::VecDeque" => TypeKind::List,
        "std::collections::hash::set::HashSet" | "alloc::collections::btree::set::BTreeSet" => {
            TypeKind::Set
        }
        "std::collections::hash::map::HashMap" | "alloc::collections::btree::map::BTreeMap" => {
            TypeKind::Map
        }
        "serde_json::value::Value" => TypeKind::Json,
        _ => TypeKind::Part,
    }
}

/// Whether a `T` has one spelling in JSON: two texts of one value are the same, except for escapes.
pub(crate) fn has_one_spelling<T: ?Sized>() -> bool {
    matches!(
        type_name::<T>().trim_start_matches('&'),
        "alloc::string::String"
            | "str"
            | "bool"
            | "char"
            | "i8"
            | "i16"
            | "i32"
            | "i64"
            | "isize"
            | "u8"
            | "u16"
            | "u32"
            | "u64"
            | "usize"
    )
}

/// Appends `value` to `text`, and returns its shape. `nested`: its members, if it is merged by
/// field.
pub(crate) fn write<T: Serialize + ?Sized>(
    text: &mut Vec<u8>,
    value: &T,
    nested: Option<Members>,
) -> Result<Shape, serde_json::Error> {
    let noted = Noted::new(value, nested);
    noted.serialize(ExactNumbers::new(&mut serde_json::Serializer::new(text)))?;
    Ok(noted.shape.into_inner())
}

/// A value whose shape is noted while it is serialized.
struct Noted<'a, T: ?Sized> {
    value: &'a T,
    kind: TypeKind,
    nested: Option<Members>,
    shape: RefCell<Shape>,
}

impl<'a, T: Serialize + ?Sized> Noted<'a, T> {
    fn new(value: &'a T, nested: Option<Members>) -> Self {
        Self {
            value,
            kind: kind_of::<T>(),
            nested,
            shape: RefCell::default(),
        }
    }
}

impl<T: Serialize + ?Sized> Serialize for Noted<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { kind, nested, .. } = *self;
        self.value.serialize(Noting {
            serializer,
            kind,
            nested,
            shape: &self.shape,
        })
    }
}

/// A serializer that notes the shape of one value.
struct Noting<'a, S> {
    serializer: S,
    kind: TypeKind,
    nested: Option<Members>,
    shape: &'a RefCell<Shape>,
}

/// A compound that is being written, whose children are noted one by one.
struct Compound<'a, S> {
    parts: S,
    /// Makes the shape of the whole from its children.
    whole: fn(Children) -> Shape,
    children: Children,
    count: usize,
    shape: &'a RefCell<Shape>,
}

impl<'a, S> Compound<'a, S> {
    fn new(parts: S, whole: fn(Children) -> Shape, shape: &'a RefCell<Shape>) -> Self {
        Self {
            parts,
            whole,
            children: Children::default(),
            count: 0,
            shape,
        }
    }

    fn note(&mut self, shape: Shape) {
        self.children.push(self.count, shape);
        self.count += 1;
    }

    fn end(self) -> S {
        self.shape.replace((self.whole)(self.children));
        self.parts
    }
}

/// The shape of an object with one member, which is named for a variant.
fn variant(children: Children) -> Shape {
    let mut outer = Children::default();
    outer.push(0, Shape::part(children));
    Shape::Part(outer)
}

fn json(_: Children) -> Shape {
    Shape::Json
}

/// Methods that forward one value of which there is nothing to note.
macro_rules! forward {
    ($($method:ident($type:ty))*) => { $(
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.serializer.$method(value)
        }
    )* };
}

impl<'a, S: Serializer> Serializer for Noting<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Compound<'a, S::SerializeSeq>;
    type SerializeTuple = Compound<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Compound<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Compound<'a, S::SerializeTupleVariant>;
    type SerializeMap = Compound<'a, S::SerializeMap>;
    type SerializeStruct = Struct<'a, S::SerializeStruct>;
    type SerializeStructVariant = Compound<'a, S::SerializeStructVariant>;

    forward! {
        serialize_bool(bool)
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
        serialize_u128(u128) serialize_f32(f32) serialize_f64(f64)
        serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_unit_struct(&'static str)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let noted = Noted::new(value, None);
        let done = self.serializer.serialize_some(&noted)?;
        let shape = noted.shape.into_inner();
        // An unknown type that writes itself as an option of something is one part.
        self.shape.replace(if self.kind == noted.kind {
            shape
        } else {
            shape.inside_a_part()
        });
        Ok(done)
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let noted = Noted::new(value, None);
        let done = self.serializer.serialize_newtype_struct(name, &noted)?;
        self.shape.replace(noted.shape.into_inner().inside_a_part());
        Ok(done)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let noted = Noted::new(value, None);
        let done = self
            .serializer
            .serialize_newtype_variant(name, index, variant, &noted)?;
        let mut children = Children::default();
        children.push(0, noted.shape.into_inner());
        self.shape.replace(Shape::part(children));
        Ok(done)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let whole = match self.kind {
            TypeKind::List => Shape::List,
            TypeKind::Set => Shape::Set,
            TypeKind::Json => json,
            TypeKind::Map | TypeKind::Part => Shape::part,
        };
        Ok(Compound::new(
            self.serializer.serialize_seq(len)?,
            whole,
            self.shape,
        ))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Ok(Compound::new(
            self.serializer.serialize_tuple(len)?,
            Shape::part,
            self.shape,
        ))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Ok(Compound::new(
            self.serializer.serialize_tuple_struct(name, len)?,
            Shape::part,
            self.shape,
        ))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        of: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        Ok(Compound::new(
            self.serializer
                .serialize_tuple_variant(name, index, of, len)?,
            variant,
            self.shape,
        ))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let whole = match self.kind {
            TypeKind::Map => Shape::Map,
            TypeKind::Json => json,
            TypeKind::List | TypeKind::Set | TypeKind::Part => Shape::part,
        };
        Ok(Compound::new(
            self.serializer.serialize_map(len)?,
            whole,
            self.shape,
        ))
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        let compound = Compound::new(
            self.serializer.serialize_struct(name, len)?,
            Shape::part,
            self.shape,
        );
        Ok(Struct {
            compound,
            members: self.nested.map(|members| members()),
            fields: Vec::new(),
        })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        of: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        Ok(Compound::new(
            self.serializer
                .serialize_struct_variant(name, index, of, len)?,
            variant,
            self.shape,
        ))
    }

    fn is_human_readable(&self) -> bool {
        self.serializer.is_human_readable()
    }
}

/// The children of a sequence.
macro_rules! elements {
    ($($trait:ident::$method:ident)*) => { $(
        impl<S: ser::$trait> ser::$trait for Compound<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                let noted = Noted::new(value, None);
                self.parts.$method(&noted)?;
                self.note(noted.shape.into_inner());
                Ok(())
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.end().end()
            }
        }
    )* };
}

elements! {
    SerializeSeq::serialize_element
    SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}

impl<S: ser::SerializeMap> ser::SerializeMap for Compound<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.parts.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let noted = Noted::new(value, None);
        self.parts.serialize_value(&noted)?;
        self.note(noted.shape.into_inner());
        Ok(())
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.end().end()
    }
}

impl<S: ser::SerializeStructVariant> ser::SerializeStructVariant for Compound<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), S::Error> {
        let noted = Noted::new(value, None);
        self.parts.serialize_field(key, &noted)?;
        self.note(noted.shape.into_inner());
        Ok(())
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
        self.parts.skip_field(key)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.end().end()
    }
}

/// A struct that is being written: one part, or merged by field if its members are known.
struct Struct<'a, S> {
    compound: Compound<'a, S>,
    members: Option<&'static [Member]>,
    fields: Vec<(ShapeField, Shape)>,
}

impl<S: ser::SerializeStruct> ser::SerializeStruct for Struct<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), S::Error> {
        let member = self
            .members
            .and_then(|members| members.iter().find(|member| member.name == key));
        let noted = Noted::new(value, member.and_then(|member| member.nested));
        self.compound.parts.serialize_field(key, &noted)?;
        let shape = noted.shape.into_inner();
        if self.members.is_some() {
            let aliases = member.map_or(&[][..], |member| member.aliases);
            self.fields.push((ShapeField { name: key, aliases }, shape));
        } else {
            self.compound.note(shape);
        }
        Ok(())
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
        self.compound.parts.skip_field(key)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        let Self {
            compound,
            members,
            fields,
        } = self;
        let shape = compound.shape;
        let parts = compound.end();
        if members.is_some() {
            shape.replace(Shape::Fields(fields));
        }
        parts.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;
    use std::collections::{
        BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque,
    };
    use std::sync::Arc;
    use std::time::Duration;

    /// How it is cut: `[list]`, `{set}`, `<map>`, `json`, `=` for one part, `(…)` for one with
    /// something to know below, `~(…)` for one without order.
    fn cut(shape: &Shape) -> String {
        let all = |Children(children): &Children| -> Vec<String> {
            children
                .iter()
                .map(|(at, shape)| format!("{at}{}", cut(shape)))
                .collect()
        };
        match shape {
            Shape::Part(children) if children.0.is_empty() => "=".to_owned(),
            Shape::Part(children) => format!("({})", all(children).join(" ")),
            Shape::Unordered(children) => format!("~({})", all(children).join(" ")),
            Shape::List(children) => format!("[{}]", all(children).join(" ")),
            Shape::Set(children) => format!("{{{}}}", all(children).join(" ")),
            Shape::Map(children) => format!("<{}>", all(children).join(" ")),
            Shape::Json => "json".to_owned(),
            Shape::Fields(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(field, shape)| format!("{}:{}", field.name, cut(shape)))
                    .collect();
                format!("fields({})", fields.join(" "))
            }
        }
    }

    fn cut_of<T: Serialize>(value: T) -> String {
        cut(&write(&mut Vec::new(), &value, None).unwrap())
    }

    fn one<T: FromIterator<u8>>() -> T {
        [1].into_iter().collect()
    }

    #[test]
    fn the_collections_of_std_are_merged_by_part() {
        let set = one::<HashSet<u8>>;
        assert_eq!(cut_of(vec![1_u8]), "[]");
        assert_eq!(cut_of(one::<VecDeque<u8>>()), "[]");
        assert_eq!(cut_of(set()), "{}");
        assert_eq!(cut_of(one::<BTreeSet<u8>>()), "{}");
        assert_eq!(cut_of(HashMap::from([("a", set())])), "<0{}>");
        assert_eq!(cut_of(BTreeMap::from([("a", vec![set()])])), "<0[0{}]>");
        assert_eq!(cut_of(Some(vec![set()])), "[0{}]");
        assert_eq!(cut_of(Box::new(vec![1_u8])), "[]");
        assert_eq!(cut_of(vec![&set()]), "[0{}]");
        assert_eq!(cut_of(Some(&Some(Box::new(set())))), "{}");
        assert_eq!(cut_of(serde_json::json!({"a": [1]})), "json");
        assert_eq!(
            cut_of(vec![serde_json::json!([1]), serde_json::json!(1)]),
            "[0json]"
        );
        let hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
        assert_eq!(cut_of(HashSet::<u8, _>::with_hasher(hasher)), "{}");
    }

    #[test]
    fn everything_else_is_one_part_and_says_what_in_it_has_no_order() {
        #[derive(Serialize)]
        struct Doc {
            n: i64,
            tags: HashSet<u8>,
            list: Vec<u8>,
        }
        #[derive(Serialize)]
        enum Form {
            Unit,
            Newtype(HashSet<u8>),
            Tuple(u8, HashSet<u8>),
            Struct { n: u8, set: HashSet<u8> },
        }
        #[derive(Serialize)]
        struct Bag(HashSet<u8>);
        #[derive(Serialize)]
        #[serde(transparent)]
        struct Clear(HashSet<u8>);
        #[derive(Serialize)]
        struct Flat {
            #[serde(flatten)]
            rest: BTreeMap<String, Vec<u8>>,
        }
        let set = one::<HashSet<u8>>;
        assert_eq!(
            cut_of(Doc {
                n: 1,
                tags: set(),
                list: vec![1]
            }),
            "(1~())"
        );
        assert_eq!(
            cut_of(vec![Doc {
                n: 1,
                tags: set(),
                list: vec![1]
            }]),
            "[0(1~())]"
        );
        assert_eq!(cut_of(Form::Unit), "=");
        assert_eq!(cut_of(Form::Newtype(set())), "(0~())");
        assert_eq!(cut_of(Form::Tuple(1, set())), "(0(1~()))");
        assert_eq!(cut_of(Form::Struct { n: 1, set: set() }), "(0(1~()))");
        assert_eq!(cut_of(Bag(set())), "~()");
        assert_eq!(cut_of(Clear(set())), "=");
        assert_eq!(
            cut_of(Flat {
                rest: BTreeMap::from([("a".to_owned(), vec![1])])
            }),
            "="
        );
        assert_eq!(cut_of([1.5_f64; 3]), "=");
        assert_eq!(cut_of((1_u8, vec![1_u8])), "=");
        assert_eq!(cut_of((1_u8, set())), "(1~())");
        assert_eq!(cut_of(one::<BinaryHeap<u8>>()), "=");
        assert_eq!(cut_of(one::<LinkedList<u8>>()), "=");
        assert_eq!(cut_of(Duration::from_secs(1)), "=");
        assert_eq!(cut_of(Ok::<Vec<u8>, ()>(vec![1])), "=");
        assert_eq!(cut_of(Arc::<str>::from("a").to_string()), "=");
    }

    #[test]
    fn a_struct_whose_members_are_known_is_merged_by_field() {
        #[derive(Serialize)]
        struct User {
            name: &'static str,
            plan: TestPlan,
        }
        #[derive(Serialize)]
        struct TestPlan {
            seats: Vec<u8>,
        }
        fn user() -> &'static [Member] {
            &[
                Member {
                    name: "name",
                    aliases: &["old"],
                    nested: None,
                },
                Member {
                    name: "plan",
                    aliases: &[],
                    nested: Some(plan),
                },
            ]
        }
        fn plan() -> &'static [Member] {
            &[Member {
                name: "seats",
                aliases: &[],
                nested: None,
            }]
        }
        let value = User {
            name: "ada",
            plan: TestPlan { seats: vec![1] },
        };
        let shape = write(&mut Vec::new(), &value, Some(user)).unwrap();
        assert_eq!(cut(&shape), "fields(name:= plan:fields(seats:[]))");
        let Shape::Fields(fields) = shape else {
            panic!("it is merged by field")
        };
        assert_eq!(fields[0].0.aliases, ["old"]);
        assert_eq!(cut_of(value), "=");
    }
}
