//! Random values for any message, as JSON: whatever its definition allows.

use serde_json::{Map, Value as Json, json};
use vpp_api_client::definition::{Base, Definitions, Field, Shape, Standing, Type, is_count};

/// Numbers that follow from a seed (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.bits() >> 8) % end
    }

    /// Small, large and any, each often enough.
    fn number(&mut self, bits: u32) -> u64 {
        let most = u64::MAX >> (64 - bits);
        match self.below(4) {
            0 => self.below(3).min(most),
            1 => most - self.below(2),
            _ => self.bits() & most,
        }
    }

    /// The fields of a message.
    pub(crate) fn fields(&mut self, definitions: &Definitions, fields: &[Field]) -> Json {
        let mut all = Map::new();
        for field in fields.iter().filter(|field| !is_count(fields, &field.name)) {
            let value = match field.range {
                Some((_, most)) if field.base == Base::String => self.text(most),
                Some((low, high)) => json!(low + self.below(high - low + 1)),
                None => self.shaped(definitions, &field.base, &field.shape),
            };
            if let Shape::Counted(by) = &field.shape {
                let length = match &value {
                    Json::Array(list) => list.len(),
                    other => other.as_str().unwrap().len() / 2,
                };
                all.insert(by.clone(), json!(length));
            }
            all.insert(field.name.clone(), value);
        }
        // In the order of the definition, a count also where its list is empty.
        let ordered = fields.iter().filter_map(|field| Some((field.name.clone(), all.get(&field.name)?.clone())));
        Json::Object(ordered.collect())
    }

    fn shaped(&mut self, definitions: &Definitions, base: &Base, shape: &Shape) -> Json {
        let count = match (base, shape) {
            (Base::String, Shape::Fixed(room)) => return self.text(*room as u64 - 1),
            (Base::String, _) => return self.text(200),
            (_, Shape::One) => return self.one(definitions, base),
            (_, Shape::Fixed(count)) => *count as u64,
            _ => self.below(4),
        };
        if *base == Base::U8 {
            return json!((0..count).map(|_| format!("{:02x}", self.number(8))).collect::<Vec<_>>().concat());
        }
        (0..count).map(|_| self.one(definitions, base)).collect()
    }

    fn text(&mut self, most: u64) -> Json {
        let length = if self.below(4) == 0 { most } else { self.below(most + 1) };
        let letter = |random: &mut Self| char::from(b' ' + u8::try_from(random.below(95)).unwrap());
        json!((0..length).map(|_| letter(self)).collect::<String>())
    }

    fn signed(&mut self, bits: u32) -> Json {
        json!(self.number(64).cast_signed() >> (64 - bits))
    }

    fn one(&mut self, definitions: &Definitions, base: &Base) -> Json {
        match base {
            Base::U8 => json!(self.number(8)),
            Base::U16 => json!(self.number(16)),
            Base::U32 => json!(self.number(32)),
            Base::U64 => json!(self.number(64)),
            Base::I8 => self.signed(8),
            Base::I16 => self.signed(16),
            Base::I32 => self.signed(32),
            Base::I64 => self.signed(64),
            Base::F64 => json!(f64::from(u32::try_from(self.number(32)).unwrap()) / 256.0),
            Base::Bool => json!(self.below(2) == 1),
            Base::String => unreachable!("strings are arrays"),
            Base::Named(name) => self.named(definitions, name),
            other => unreachable!("{other:?}"),
        }
    }

    fn ip4(&mut self) -> String {
        std::net::Ipv4Addr::from_bits(u32::try_from(self.number(32)).unwrap()).to_string()
    }

    fn ip6(&mut self) -> String {
        std::net::Ipv6Addr::from([self.number(16); 8].map(|_| u16::try_from(self.number(16)).unwrap())).to_string()
    }

    fn named(&mut self, definitions: &Definitions, name: &str) -> Json {
        let four = self.below(2) == 0;
        match name {
            "mac_address" => {
                return json!((0..6).map(|_| format!("{:02x}", self.number(8))).collect::<Vec<_>>().join(":"));
            }
            "ip4_address" => return json!(self.ip4()),
            "ip6_address" => return json!(self.ip6()),
            "address" => return json!(if four { self.ip4() } else { self.ip6() }),
            "prefix" | "address_with_prefix" => {
                let (address, most) = if four { (self.ip4(), 32) } else { (self.ip6(), 128) };
                return json!(format!("{address}/{}", self.below(most + 1)));
            }
            _ => {}
        }
        match &definitions.types[name] {
            Type::Enum(of) => {
                let usable: Vec<_> = of.values.iter().filter(|value| value.standing != Standing::Kills).collect();
                json!(usable[usize::try_from(self.below(usable.len() as u64)).unwrap()].name)
            }
            Type::Flags(of) => {
                let all = of.values.iter().filter(|_| self.below(2) == 1);
                json!(all.map(|value| value.number).fold(0, |all, bit| all | bit))
            }
            Type::Alias(base, shape) => self.shaped(definitions, base, shape),
            Type::Struct(fields) => self.fields(definitions, fields),
            Type::Union(members) => {
                let member = &members[usize::try_from(self.below(members.len() as u64)).unwrap()];
                json!({ &member.name: self.shaped(definitions, &member.base, &member.shape) })
            }
            other => unreachable!("{other:?}"),
        }
    }
}
