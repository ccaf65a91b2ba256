//! Values that JSON carries as strings.
//!
//! Every refusal reads `<code>: <detail>`, and `request` answers with both.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value that JSON carries as a string.
pub(crate) trait Scalar: Sized {
    type Refusal: Refusal;
    /// The refusal of a JSON value that is not a string.
    const NOT_A_STRING: Self::Refusal;

    /// Reads the content of a JSON string.
    fn from_text(text: &str) -> Result<Self, Self::Refusal>;

    /// Reads a whole JSON number; most scalars refuse it.
    fn from_whole(_number: i128) -> Result<Self, Self::Refusal> {
        Err(Self::NOT_A_STRING)
    }
}

/// A reason with a stable code; its `Display` is the detail.
pub(crate) trait Refusal: fmt::Display {
    /// The stable code that callers may match on.
    fn code(&self) -> &'static str;
}

/// Deserializes a scalar without allocating.
pub(crate) fn deserialize<'de, T: Scalar, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    // Not `deserialize_str`: its own message for other JSON types would have no code.
    from.deserialize_any(ScalarVisitor(PhantomData))
}

/// Greatest number up to which a float holds every whole number: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

struct ScalarVisitor<T>(PhantomData<T>);

fn answer<T: Scalar, E: Error>(read: Result<T, T::Refusal>) -> Result<T, E> {
    read.map_err(|refusal| E::custom(format_args!("{}: {refusal}", refusal.code())))
}

fn not_a_string<T: Scalar, E: Error>() -> Result<T, E> {
    answer(Err(T::NOT_A_STRING))
}

impl<'de, T: Scalar> Visitor<'de> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", T::NOT_A_STRING)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        answer(T::from_text(text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        answer(T::from_whole(i128::from(number)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        answer(T::from_whole(i128::from(number)))
    }

    /// Many languages write whole numbers so: `1000.0`. Beyond 2^53 a number may stand for another one.
    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        if number.fract() != 0.0 || number.abs() > EXACT_MAX {
            return not_a_string();
        }
        match format!("{number:.0}").parse() {
            Ok(whole) => answer(T::from_whole(whole)),
            Err(_) => not_a_string(),
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<T, E> {
        not_a_string()
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        not_a_string()
    }

    fn visit_none<E: Error>(self) -> Result<T, E> {
        not_a_string()
    }

    // Lists and objects are read to their end, so that the parser reports our refusal and not its own.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        not_a_string()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<T, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        not_a_string()
    }
}
