//! The wire format: tags, varints and lengths. Knows no messages.

use super::ProtobufError;

/// A field as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item<'a> {
    /// An integer or a boolean.
    Varint(u64),
    /// A double.
    Fixed64(u64),
    /// A float; no message of ours has one.
    Fixed32(u32),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
pub(super) struct Items<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = Result<(u32, Item<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            self.0 = &[]; // nothing behind a broken field can be trusted
        }
        Some(item)
    }
}

impl<'a> Items<'a> {
    fn item(&mut self) -> Result<(u32, Item<'a>), ProtobufError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| ProtobufError::Broken)?;
        let item = match tag & 7 {
            0 => Item::Varint(self.varint()?),
            1 => Item::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Broken)?;
                Item::Bytes(self.take(length)?)
            }
            5 => Item::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(ProtobufError::Broken),
        };
        Ok((number, item))
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Broken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?.try_into().map_err(|_| ProtobufError::Broken)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Broken)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// The last bytes under a field number.
pub(super) fn bytes_of(message: &[u8], wanted: u32) -> Result<Option<&[u8]>, ProtobufError> {
    let mut found = None;
    for item in Items(message) {
        if let (number, Item::Bytes(bytes)) = item?
            && number == wanted
        {
            found = Some(bytes);
        }
    }
    Ok(found)
}

/// The last integer under a field number; 0 if there is none.
pub(super) fn integer_of(message: &[u8], wanted: u32) -> Result<i64, ProtobufError> {
    let mut found = 0;
    for item in Items(message) {
        if let (number, Item::Varint(value)) = item?
            && number == wanted
        {
            found = value.cast_signed();
        }
    }
    Ok(found)
}
