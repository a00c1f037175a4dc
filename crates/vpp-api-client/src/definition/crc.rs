//! The number that VPP's build makes of a message's definition: CRC-32 over its fields as VPP's generator prints them, then over
//! those of the types in it. So a wrong field, type or order of ours does not go unnoticed.

use super::model::{Base, Definitions, Enum, Field, Head, Message, Shape, Standing, Type};

impl Definitions {
    /// The CRC that follows from what is defined here.
    pub fn computed_crc(&self, message: &Message) -> u32 {
        let mut all: Vec<Field> = head(message.head);
        all.extend(message.fields.iter().cloned());
        self.fold(&all, crc32(0, printed(&all).as_bytes()))
    }

    fn fold(&self, fields: &[Field], mut crc: u32) -> u32 {
        for field in fields {
            let Base::Named(name) = &field.base else { continue };
            match self.types.get(name) {
                Some(Type::Struct(inner) | Type::Union(inner)) => {
                    crc = self.fold(inner, crc32(crc, printed(inner).as_bytes()));
                }
                Some(Type::Enum(of) | Type::Flags(of)) => crc = crc32(crc, values(of).as_bytes()),
                // Of an alias counts only that there is one.
                Some(Type::Alias(..)) => crc = crc32(crc, b"[]"),
                None => {}
            }
        }
        crc
    }
}

fn head(head: Head) -> Vec<Field> {
    let field = |name: &str, base| Field {
        name: name.into(),
        base,
        shape: Shape::One,
        default: None,
        range: None,
        secret: false,
        doc: String::new(),
    };
    // The id comes later.
    let mut all = Vec::new();
    if matches!(head, Head::Client | Head::ClientContext) {
        all.push(field("client_index", Base::U32));
    }
    if matches!(head, Head::Context | Head::ClientContext) {
        all.push(field("context", Base::U32));
    }
    all
}

fn printed(fields: &[Field]) -> String {
    let one = |field: &Field| {
        let (name, base) = (&field.name, type_name(&field.base));
        match &field.shape {
            Shape::One => format!("['{base}', '{name}']"),
            Shape::Fixed(count) => format!("['{base}', '{name}', {count}, None]"),
            Shape::Counted(by) => format!("['{base}', '{name}', 0, '{by}']"),
            Shape::Open => format!("['{base}', '{name}', 0, None]"),
        }
    };
    format!("[{}]", fields.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn values(of: &Enum) -> String {
    let counted = of.values.iter().filter(|value| value.standing != Standing::Later);
    let all: Vec<String> = counted.map(|value| format!("['{}', {}]", value.name, value.number)).collect();
    format!("[{}]", all.join(", "))
}

/// As definitions name it.
pub(crate) fn type_name(base: &Base) -> String {
    match base {
        Base::Named(name) => format!("vl_api_{name}_t"),
        other => other.to_string(),
    }
}

/// CRC-32 as zlib has it, going on from another.
fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 })
    };
    !bytes.iter().fold(!crc, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_of_ours_has_the_crc_that_vpp_gave_it() {
        let ours = Definitions::ours();
        assert!(ours.messages.len() > 100, "{} messages", ours.messages.len());
        let wrong: Vec<String> = ours
            .messages
            .values()
            .filter(|message| ours.computed_crc(message) != message.crc)
            .map(|message| format!("{} {:08x} {:08x}", message.name, message.crc, ours.computed_crc(message)))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn crc_is_that_of_zlib() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(crc32(0, b"1234"), b"56789"), 0xcbf4_3926);
    }
}
