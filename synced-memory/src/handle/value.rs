//! What a type must implement to be shared.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type whose values can be shared; every type with these bounds implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared: a value needs \
               `Serialize + DeserializeOwned + Clone + Send + Sync + 'static`",
    label = "not a value that can be shared",
    note = "derive `serde::Serialize`, `serde::Deserialize` and `Clone` for it"
)]
pub trait Value: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Value for T {}
