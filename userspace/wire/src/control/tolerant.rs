//! Lists that lose a bad entry instead of being lost with it.
//!
//! A network map carries what thousands of machines and several server versions have written; one entry that cannot be
//! read must cost that entry. What was lost is kept beside, for the log.

use std::ops::{Deref, DerefMut};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A list whose entries are decoded one by one. `null` entries, which Go's pointers allow, are skipped.
#[derive(Clone, Debug)]
pub struct Tolerant<T> {
    /// What could be read.
    pub items: Vec<T>,
    /// Why the others could not, one text an entry, starting with its index.
    pub lost: Vec<String>,
}

impl<T> Default for Tolerant<T> {
    fn default() -> Self {
        Self { items: Vec::new(), lost: Vec::new() }
    }
}

/// Equal when the items are: what was lost is a remark.
impl<T: PartialEq> PartialEq for Tolerant<T> {
    fn eq(&self, other: &Self) -> bool {
        self.items == other.items
    }
}

impl<T> Deref for Tolerant<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.items
    }
}

impl<T> DerefMut for Tolerant<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.items
    }
}

impl<T> From<Vec<T>> for Tolerant<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, lost: Vec::new() }
    }
}

impl<T> FromIterator<T> for Tolerant<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Vec::from_iter(items).into()
    }
}

impl<T> IntoIterator for Tolerant<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Tolerant<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<T: Serialize> Serialize for Tolerant<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.items.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Tolerant<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = Self::default();
        for (index, raw) in Vec::<Box<RawValue>>::deserialize(deserializer)?.into_iter().enumerate() {
            match serde_json::from_str(raw.get()) {
                Ok(Some(item)) => list.items.push(item),
                Ok(None) => {}
                Err(error) => list.lost.push(format!("entry {index}: {error}")),
            }
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_entry_is_lost_alone() {
        let list: Tolerant<u8> = serde_json::from_str(r#"[1,null,"x",300,2]"#).unwrap();
        assert_eq!(*list, [1, 2]);
        assert_eq!(list.lost.len(), 2);
        assert!(list.lost[0].starts_with("entry 2: "), "{}", list.lost[0]);
        assert!(serde_json::from_str::<Tolerant<u8>>("{}").is_err());
    }
}
