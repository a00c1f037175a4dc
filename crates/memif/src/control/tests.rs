use proptest::{array::uniform32, prelude::*};

use super::*;

fn name() -> impl Strategy<Value = Name> {
    uniform32(any::<u8>()).prop_map(Name::from_field)
}

fn message() -> impl Strategy<Value = Message> {
    let hello = (name(), any::<[u16; 5]>(), any::<u8>()).prop_map(|(name, [a, b, c, d, e], log2)| {
        Message::Hello(Hello {
            name,
            min_version: a.min(b),
            max_version: a.max(b),
            max_region: c,
            max_m2s_ring: d,
            max_s2m_ring: e,
            max_log2_ring_size: log2,
        })
    });
    let mode = prop_oneof![Just(Mode::Ethernet), Just(Mode::Ip), Just(Mode::PuntInject)];
    let init =
        (any::<u16>(), any::<u32>(), mode, any::<[u8; 24]>(), name()).prop_map(|(version, id, mode, secret, name)| {
            Message::Init(Init { version, id, mode, secret: Secret::from_field(secret), name })
        });
    let direction = prop_oneof![Just(Direction::ToServer), Just(Direction::ToClient)];
    let ring = (direction, any::<[u16; 2]>(), any::<u32>(), 0..=MAX_LOG2_RING_SIZE).prop_map(
        |(direction, [index, region], offset, log2_ring_size)| {
            Message::AddRing(AddRing { direction, index, region, offset, log2_ring_size })
        },
    );
    prop_oneof![
        Just(Message::Ack),
        hello,
        init,
        (any::<u16>(), any::<u64>()).prop_map(|(index, size)| Message::AddRegion { index, size }),
        ring,
        name().prop_map(|interface| Message::Connect { interface }),
        name().prop_map(|interface| Message::Connected { interface }),
        (any::<u32>(), proptest::collection::vec(any::<u8>(), 96)).prop_map(|(code, reason)| Message::Disconnect {
            code,
            reason: Text::from_field(reason.try_into().unwrap())
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in message()) {
        prop_assert_eq!(Message::parse(&message.encode()).unwrap(), message);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..10_u16) {
        let _ = Message::parse(&bytes);
        bytes.resize(MESSAGE_SIZE, 0);
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert_eq!(&Message::parse(&message.encode()).unwrap(), &message);
        }
    }
}

/// The offsets, written down once more: a round trip alone would not notice two fields that have changed places.
#[test]
fn fields_stand_where_the_protocol_has_them() {
    let hello = Message::Hello(Hello {
        name: Name::cut("server"),
        min_version: 0x0100,
        max_version: VERSION,
        max_region: 255,
        max_m2s_ring: 3,
        max_s2m_ring: 4,
        max_log2_ring_size: 14,
    });
    let bytes = hello.encode();
    assert_eq!(bytes[..9], [2, 0, b's', b'e', b'r', b'v', b'e', b'r', 0]);
    assert_eq!(bytes[34..46], [0, 1, 0, 2, 255, 0, 3, 0, 4, 0, 14, 0]);
    let secret = Secret::new("abc").unwrap();
    let init = Init { version: VERSION, id: 7, mode: Mode::Ip, secret, name: Name::cut("n") };
    let bytes = Message::Init(init).encode();
    assert_eq!(bytes[..13], [3, 0, 0, 2, 7, 0, 0, 0, 1, b'a', b'b', b'c', 0]);
    assert_eq!(bytes[33..35], [b'n', 0]);
    let bytes = Message::AddRegion { index: 1, size: 0x0102_0304 }.encode();
    assert_eq!(bytes[..13], [4, 0, 1, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0]);
    let ring = AddRing { direction: Direction::ToServer, index: 2, region: 1, offset: 16512, log2_ring_size: 10 };
    let bytes = Message::AddRing(ring).encode();
    assert_eq!(bytes[..15], [5, 0, 1, 0, 2, 0, 1, 0, 0x80, 0x40, 0, 0, 10, 0, 0]);
    let bytes = Message::Disconnect { code: 9, reason: Text::cut("no") }.encode();
    assert_eq!(bytes[..9], [8, 0, 9, 0, 0, 0, b'n', b'o', 0]);
}

#[test]
fn what_is_out_of_range_is_told() {
    let with = |kind: u16, at: usize, value: u8| {
        let mut bytes = [0; MESSAGE_SIZE];
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        bytes[at] = value;
        Message::parse(&bytes).unwrap_err()
    };
    assert_eq!(with(3, 8, 3), Malformed::Mode(3));
    assert_eq!(with(5, 12, 15), Malformed::RingSize(15));
    assert_eq!(with(5, 13, 1), Malformed::PrivateHeader(1));
    assert_eq!(with(5, 2, 2), Malformed::RingFlags(2));
    assert_eq!(with(2, 35, 1), Malformed::Versions { min: 256, max: 0 });
    assert_eq!(with(9, 2, 0), Malformed::Type(9));
    assert_eq!(Message::parse(&[1, 0]).unwrap_err().to_string(), "message of 2 bytes: expected 128");
}
