use super::*;
use crate::testing::Numbers;

fn bytes(numbers: &mut Numbers, len_max: u64) -> Bytes {
    let len = numbers.below(len_max + 1);
    (0..len).map(|_| numbers.below(256) as u8).collect()
}

fn random_batch(numbers: &mut Numbers) -> (BTreeMap<Bytes, Effect>, Vec<u8>) {
    let mut effects = Effects::default();
    let mut expected = BTreeMap::new();
    for _ in 0..numbers.below(20) {
        let key = bytes(numbers, 3);
        let effect = if numbers.below(3) == 0 {
            Effect::Delete { key: key.clone() }
        } else {
            let expires_at_ms = (numbers.below(2) == 0).then(|| numbers.below(u64::MAX));
            Effect::Put { key: key.clone(), value: bytes(numbers, 40), expires_at_ms }
        };
        effects.push(effect.clone());
        expected.insert(key, effect);
    }
    let delta = (numbers.below(3) as i64 - 1) * expected.len() as i64;
    let payload = effects.encode(numbers.below(u64::MAX), delta);
    (expected, payload)
}

#[test]
fn a_batch_reads_back_with_the_last_effect_on_each_key() {
    for seed in 0..500 {
        let (expected, payload) = random_batch(&mut Numbers::new(seed));
        let decoded = Decoded::new(&payload).unwrap();
        assert_eq!(decoded.count() as usize, expected.len());
        for (effect, expected) in decoded.effects().zip(expected.values()) {
            let read = match effect.put {
                None => Effect::Delete { key: Bytes::copy_from_slice(effect.key) },
                Some((value, expires_at_ms)) => Effect::Put {
                    key: Bytes::copy_from_slice(effect.key),
                    value: Bytes::copy_from_slice(value),
                    expires_at_ms,
                },
            };
            assert_eq!(&read, expected);
        }
    }
}

#[test]
fn damaged_batches_are_errors_or_batches_and_never_panics() {
    for seed in 0..500 {
        let mut numbers = Numbers::new(seed);
        let (_, mut payload) = random_batch(&mut numbers);
        for len in 0..payload.len() {
            assert!(Decoded::new(&payload[..len]).is_err(), "a part passed for the whole");
        }
        for _ in 0..20 {
            let at = numbers.below(payload.len() as u64) as usize;
            payload[at] = numbers.below(256) as u8;
            if let Ok(decoded) = Decoded::new(&payload) {
                assert_eq!(decoded.effects().count(), decoded.count() as usize);
            }
        }
        let garbage = bytes(&mut numbers, 200);
        if let Ok(decoded) = Decoded::new(&garbage) {
            assert_eq!(decoded.effects().count(), decoded.count() as usize);
        }
    }
}

#[test]
fn claims_that_cannot_be_true_are_refused() {
    let claim = |count: u32, delta: i64| {
        let mut writer = Writer::new();
        writer.u8(VERSION).u64(0).u64(delta.cast_unsigned()).u32(count);
        writer.into_bytes()
    };
    assert!(Decoded::new(&claim(0, 0)).is_ok());
    assert!(Decoded::new(&claim(u32::MAX, 0)).is_err(), "more effects than a record holds");
    assert!(Decoded::new(&claim(1 << 20, 0)).is_err(), "effects that are not there");
    assert!(Decoded::new(&claim(0, -1)).is_err(), "fewer keys without a delete");
    let twice = [claim(2, 0), vec![DELETE, 1, 0, b'k', DELETE, 1, 0, b'k']].concat();
    assert!(Decoded::new(&twice).is_err(), "two effects on one key");
    let newer = [&[VERSION + 1], &claim(0, 0)[1..]].concat();
    assert!(Decoded::new(&newer).unwrap_err().to_string().contains("upgrade"));
}

#[test]
fn no_encoding_is_longer_than_was_reserved_for_it() {
    let mut effects = Effects::default();
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
    effects.push(Effect::Put { key, value, expires_at_ms: Some(1) });
    assert_eq!(effects.encode(0, 0).len(), HEADER_LEN + encoded_len_max(3, 5));
}
