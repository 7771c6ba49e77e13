//! Fuzz targets of the audit log's chain: what is hashed of an entry, anchors as people bring them, and marks that were stored.

use super::chain::{BEGIN, Entry, Hashed, Images, MARK, blocks, difference};
use super::chain_api::hash_of;
use crate::fuzz::{Choices, fuzz_target, refused_well, text};
use ring::digest::{SHA256, digest};

struct Texts {
    required: [String; 3],
    others: [Option<String>; 4],
    organization: Option<[u8; 16]>,
    position: i64,
}

fn texts(choices: &mut Choices<'_>) -> Texts {
    let position = choices.below(1 << 16) as i64;
    let organization = (choices.byte() & 1 == 1).then(|| std::array::from_fn(|_| choices.byte()));
    let required = std::array::from_fn(|_| choices.text());
    let others = std::array::from_fn(|_| (choices.byte() & 1 == 1).then(|| choices.text()));
    Texts { required, others, organization, position }
}

fn entry(texts: &Texts) -> Entry<'_> {
    let [object, flow, old, new] = texts.others.each_ref().map(Option::as_deref);
    let [actor, role, action] = texts.required.each_ref().map(String::as_str);
    let (position, organization) = (texts.position, texts.organization);
    Entry {
        position,
        recorded_at: 1,
        id: [1; 16],
        correlation: [2; 16],
        organization,
        actor,
        role,
        action,
        object,
        flow,
        images: Images { salt: texts.organization, old, new }.hash(),
    }
}

fn field(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => out.push(0),
        Some(bytes) => {
            out.push(1);
            out.extend((bytes.len() as u32).to_be_bytes());
            out.extend(bytes);
        }
    }
}

/// The bytes that docs/audit.md says are hashed.
fn documented(texts: &Texts) -> Vec<u8> {
    let mut out = b"pg_usher entry 1\n".to_vec();
    out.extend(texts.position.to_be_bytes());
    out.extend(1_i64.to_be_bytes());
    out.extend([1; 16]);
    out.extend([2; 16]);
    field(&mut out, texts.organization.as_ref().map(<[u8; 16]>::as_slice));
    texts.required.iter().for_each(|text| field(&mut out, Some(text.as_bytes())));
    let [object, flow, old, new] = texts.others.each_ref().map(|text| text.as_deref().map(str::as_bytes));
    [object, flow].into_iter().for_each(|text| field(&mut out, text));
    let mut images = b"pg_usher images 1\n".to_vec();
    field(&mut images, texts.organization.as_ref().map(<[u8; 16]>::as_slice));
    [old, new].into_iter().for_each(|text| field(&mut images, text));
    out.extend(digest(&SHA256, &images).as_ref());
    out
}

fuzz_target!(entries, |bytes: &[u8]| {
    let mut choices = Choices::of(bytes);
    let (one, other) = (texts(&mut choices), texts(&mut choices));
    let (left, right) = (documented(&one), documented(&other));
    assert_eq!(entry(&one).hash(), digest(&SHA256, &left).as_ref());
    assert_eq!(entry(&one).hash() == entry(&other).hash(), left == right);
    // The same letters, one of them in the field before: another entry.
    let mut moved = texts(&mut Choices::of(bytes));
    if let Some(letter) = moved.required[1].chars().next() {
        moved.required[1].remove(0);
        moved.required[0].push(letter);
        assert_ne!(entry(&moved).hash(), entry(&one).hash());
    }
});

fuzz_target!(anchor, |bytes: &[u8]| {
    let given = text(bytes);
    let made: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    for given in [&*given, made.as_str()] {
        match hash_of(given) {
            Ok(hash) => {
                let written: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                // One hash has one text.
                assert_eq!(written, given.to_ascii_lowercase());
            }
            Err(error) => refused_well(&error),
        }
    }
});

fuzz_target!(marks, |bytes: &[u8]| {
    let mut choices = Choices::of(bytes);
    let count = choices.below(20) + 1;
    let entries: Vec<Hashed> =
        (1..=count as i64).map(|position| Hashed { position, day: 0, hash: [choices.byte() ^ position as u8; 32] }).collect();
    let made = blocks(&entries, 0, count as i64, 0, BEGIN);
    let [made] = made.as_slice() else { panic!("one day is one block") };
    let found: Vec<(i64, [u8; 32])> = entries.iter().map(|entry| (entry.position, entry.hash)).collect();
    assert_eq!(difference(&made.block, &made.marks, &found), None);
    assert_eq!(difference(&made.block, bytes, &found), None, "marks only say where");
    let mut now = found.clone();
    let at = choices.below(count);
    match choices.below(3) {
        0 => drop(now.remove(at)),
        1 => now[at].1[choices.below(32)] ^= 1,
        _ => now.insert(at, (0, [choices.byte(); 32])),
    }
    assert!(difference(&made.block, &made.marks, &now).is_some());
    assert!(difference(&made.block, bytes, &now).is_some());
    assert_eq!(made.marks.len(), count * MARK);
});
