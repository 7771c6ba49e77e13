use super::*;

fn entry(position: i64) -> Entry<'static> {
    Entry {
        position,
        recorded_at: 1,
        id: [1; 16],
        correlation: [2; 16],
        organization: None,
        actor: "ann",
        role: "app",
        action: "public.a.updated",
        object: Some("7"),
        flow: None,
        images: images().hash(),
    }
}

fn images() -> Images<'static> {
    Images { salt: Some([9; 16]), old: Some(r#"{"v": 1}"#), new: Some(r#"{"v": 2}"#) }
}

fn hashed(position: i64, day: i32) -> Hashed {
    Hashed { position, day, hash: entry(position).hash() }
}

fn found(entries: &[Hashed]) -> Vec<(i64, Hash)> {
    entries.iter().map(|entry| (entry.position, entry.hash)).collect()
}

#[test]
fn every_field_counts() {
    let plain = entry(1).hash();
    let mut seen = vec![plain];
    let mut other = |change: &dyn Fn(&mut Entry<'static>)| {
        let mut entry = entry(1);
        change(&mut entry);
        assert!(!seen.contains(&entry.hash()), "a change that does not show");
        seen.push(entry.hash());
    };
    other(&|e| e.position = 2);
    other(&|e| e.recorded_at = 2);
    other(&|e| e.id = [3; 16]);
    other(&|e| e.correlation = [3; 16]);
    other(&|e| e.organization = Some([0; 16]));
    other(&|e| e.actor = "bob");
    other(&|e| e.role = "bob");
    other(&|e| e.action = "public.a.deleted");
    other(&|e| e.object = None);
    other(&|e| e.object = Some(""));
    other(&|e| e.images = Images { old: None, ..images() }.hash());
    other(&|e| e.images = Images { new: Some("null"), ..images() }.hash());
    other(&|e| e.images = Images { salt: None, ..images() }.hash());
    other(&|e| e.images = Images { salt: Some([8; 16]), ..images() }.hash());
    other(&|e| e.flow = Some("f"));
    // What moves from one field to the next is another entry.
    other(&|e| (e.actor, e.role) = ("anna", "pp"));
    other(&|e| e.images = Images { old: images().new, new: images().old, ..images() }.hash());
}

/// Worked out by another program from the description at the top of chain.rs: the format must never change unnoticed.
#[test]
fn the_format_is_the_documented_one() {
    let hex = |hash: Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let tiny = Entry {
        actor: "a",
        role: "b",
        action: "c",
        object: None,
        images: Images { old: None, new: None, ..images() }.hash(),
        ..entry(1)
    };
    assert_eq!(hex(tiny.hash()), "aed9b1e2c8f5045829b264f2599363ccbcd51a0b4a793f337d611f374889561b");
    let block = Block { number: 1, kind: Kind::Entries, day: 1, after: 0, to: 2, entries: 1, root: [7; 32] };
    assert_eq!(hex(block.hash(&BEGIN)), "609fc3ca7d28d217e70ce5383ed2c55ee606eaf58e0352fc718b25b33208f180");
}

#[test]
fn a_block_names_the_entry_that_does_not_fit() {
    let entries: Vec<Hashed> = (1..=5).map(|n| hashed(n * 10, 3)).collect();
    let made = blocks(&entries, 0, 60, 0, BEGIN);
    assert_eq!((made.len(), made[0].block.to, made[0].block.entries), (1, 60, 5));
    let (block, marks) = (&made[0].block, &made[0].marks);
    assert_eq!(difference(block, marks, &found(&entries)), None);
    let without = |index: usize| {
        let mut left = found(&entries);
        left.remove(index);
        left
    };
    assert_eq!(difference(block, marks, &without(0)), Some(Difference::MissingAfter(0)));
    assert_eq!(difference(block, marks, &without(2)), Some(Difference::MissingAfter(20)));
    assert_eq!(difference(block, marks, &without(4)), Some(Difference::MissingAfter(40)));
    let mut changed = found(&entries);
    changed[3].1 = entry(99).hash();
    assert_eq!(difference(block, marks, &changed), Some(Difference::At(40)));
    let mut added = found(&entries);
    added.insert(1, (15, entry(15).hash()));
    assert_eq!(difference(block, marks, &added), Some(Difference::At(15)));
    // Of a day that is retired nothing stays to compare with but the root.
    assert_eq!(difference(block, &[], &without(0)), Some(Difference::At(20)));
}

#[test]
fn masked_images_keep_their_hash_and_nothing_else_does() {
    let (before, masked) = (images(), Images { salt: None, old: Some(r#"{"v": "***"}"#), new: None });
    let erased = Some((before.hash(), masked.hash()));
    assert_eq!(masked.vouched(erased), before.hash());
    assert_eq!(before.vouched(None), before.hash());
    for other in [before, Images { old: Some("{}"), ..masked }, Images { salt: Some([0; 16]), ..masked }] {
        assert_eq!(other.vouched(erased), other.hash());
    }
}

proptest::proptest! {
    #[test]
    fn blocks_cover_every_position_once(
        gaps in proptest::collection::vec((1i64..4, 0i32..2), 0..3000), rest in 0i64..5, after in 0i64..100, number in 0i64..9
    ) {
        let mut position = after;
        let entries: Vec<Hashed> = gaps.iter().map(|(gap, day)| {
            position += gap;
            Hashed { position, day: *day, hash: [*gap as u8; 32] }
        }).collect();
        let made = blocks(&entries, after, position + rest, number, BEGIN);
        proptest::prop_assert_eq!(made.iter().map(|made| made.block.entries as usize).sum::<usize>(), entries.len());
        let mut previous = BEGIN;
        for (index, made) in made.iter().enumerate() {
            proptest::prop_assert_eq!(made.block.number, number + 1 + index as i64);
            proptest::prop_assert_eq!(made.hash, made.block.hash(&previous));
            previous = made.hash;
            let own: Vec<Hashed> = entries.iter().copied()
                .filter(|e| e.day == made.block.day && e.position > made.block.after && e.position <= made.block.to).collect();
            proptest::prop_assert_eq!(own.len(), made.block.entries as usize);
            proptest::prop_assert!(own.len() <= BLOCK);
            proptest::prop_assert_eq!(difference(&made.block, &made.marks, &found(&own)), None);
        }
        if let Some(last) = made.last() {
            proptest::prop_assert_eq!(last.block.to, position + rest);
        }
    }

    #[test]
    fn any_tampering_shows(count in 1usize..40, which in 0usize..40, how in 0u8..3) {
        let entries: Vec<Hashed> = (1..=count as i64).map(|n| hashed(n, 0)).collect();
        let made = blocks(&entries, 0, count as i64, 0, BEGIN);
        let mut now = found(&entries);
        let which = which % count;
        match how {
            0 => { now.remove(which); }
            1 => now[which].1 = entry(1000).hash(),
            _ => now.insert(which, (0, entry(1000).hash())),
        }
        proptest::prop_assert!(difference(&made[0].block, &made[0].marks, &now).is_some());
    }
}
