//! Names for sockets and files: a place in a table, and how often that place was used before.
//!
//! The place (24 bits) says where, the generation (8 bits) says that it is still the same one: a caller that
//! uses a socket after closing it meets nothing instead of somebody else's connection. The generation alone
//! would wrap; that no *operation* ever sees a reused place is kept by its owner, which removes an entry only
//! when no operation refers to it any more.

const PLACE_BITS: u32 = 24;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;

#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u8,
    entry: Option<T>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// The new entry's name.
    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| self.grow());
        let slot = &mut self.slots[place as usize];
        slot.entry = Some(entry);
        u32::from(slot.generation) << PLACE_BITS | place
    }

    fn grow(&mut self) -> u32 {
        let place = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        assert!(place <= PLACE_MASK, "a process has far fewer than 16 million descriptors");
        self.slots.push(Slot { generation: 0, entry: None });
        place
    }

    pub(crate) fn entry(&self, name: u32) -> Option<&T> {
        let slot = self.slots.get((name & PLACE_MASK) as usize)?;
        if u32::from(slot.generation) == name >> PLACE_BITS { slot.entry.as_ref() } else { None }
    }

    pub(crate) fn entry_mut(&mut self, name: u32) -> Option<&mut T> {
        let slot = self.slots.get_mut((name & PLACE_MASK) as usize)?;
        if u32::from(slot.generation) == name >> PLACE_BITS { slot.entry.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, name: u32) -> Option<T> {
        let place = name & PLACE_MASK;
        let slot = self.slots.get_mut(place as usize)?;
        if u32::from(slot.generation) != name >> PLACE_BITS {
            return None;
        }
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(place);
        Some(entry)
    }

    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.entry.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_name_stays_stale_when_its_place_is_used_again() {
        let mut table = Table::new();
        let first = table.insert("first");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second");
        assert_eq!(table.entry(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.entry(second), Some(&"second"));
    }
}
