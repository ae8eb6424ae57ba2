//! Tests of the table of the other replicas.

use super::*;

const GONE_AFTER: Duration = Duration::from_secs(60);

fn owner(byte: u8, address: &str) -> Owner {
    Owner { incarnation: Incarnation::from_bytes([byte; 8]), address: address.into() }
}

fn about(owner: &Owner, inherits: &[&Owner], started: i64) -> About {
    About {
        incarnation: owner.incarnation.to_string(),
        address: owner.address.clone(),
        group: "default".into(),
        started,
        inherits: inherits.iter().map(|one| one.incarnation.to_string()).collect(),
        stopping: false,
    }
}

#[test]
fn a_member_is_gone_after_a_while_and_comes_back_with_an_answer() {
    let (members, start, a) = (Members::default(), crate::clock::instant(), owner(1, "a:1"));
    assert!(!members.is_gone(a.incarnation, GONE_AFTER), "it was never tried");
    assert!(!members.refused(&a, GONE_AFTER, start));
    for secs in (5..60).step_by(5) {
        assert!(!members.refused(&a, GONE_AFTER, start + Duration::from_secs(secs)), "{secs}");
    }
    assert!(members.refused(&a, GONE_AFTER, start + GONE_AFTER));
    assert!(members.is_gone(a.incarnation, GONE_AFTER));
    assert!(members.refused(&a, GONE_AFTER, start + 5 * GONE_AFTER), "it stays gone");
    members.answered(about(&a, &[], 1), start + GONE_AFTER).unwrap();
    assert!(!members.is_gone(a.incarnation, GONE_AFTER));
    assert!(!members.refused(&a, GONE_AFTER, start + 9 * GONE_AFTER), "the count begins anew");
}

#[test]
fn a_pause_of_this_process_does_not_make_another_member_gone() {
    let (members, start, a) = (Members::default(), crate::clock::instant(), owner(1, "a:1"));
    let at = |secs| start + Duration::from_secs(secs);
    members.answered(about(&a, &[], 1), start).unwrap();
    assert!(!members.refused(&a, GONE_AFTER, at(5)));
    // This process is suspended for 600 s before the next refusal. The refusal before the suspension then does not
    // count.
    assert!(!members.is_gone(a.incarnation, GONE_AFTER));
    assert!(!members.refused(&a, GONE_AFTER, at(605)), "the member may have been reachable in between");
    for secs in (610..665).step_by(5) {
        assert!(!members.refused(&a, GONE_AFTER, at(secs)), "{secs}");
    }
    assert!(members.refused(&a, GONE_AFTER, at(665)));
}

#[test]
fn a_member_is_found_at_its_present_address() {
    let (members, now) = (Members::default(), crate::clock::instant());
    let (before, after, other) = (owner(1, "a:1"), owner(1, "b:1"), owner(2, "c:1"));
    assert_eq!(members.current(&before), before);
    members.answered(about(&after, &[], 1), now).unwrap();
    assert_eq!((members.current(&before), members.current(&other)), (after.clone(), other));
    assert_eq!(members.holders(&before, GONE_AFTER), [after]);
}

#[test]
fn the_former_process_at_an_address_is_gone() {
    let (members, now) = (Members::default(), crate::clock::instant());
    let (a, b, c) = (owner(1, "a:1"), owner(2, "a:1"), owner(3, "c:1"));
    members.answered(about(&a, &[], 1), now).unwrap();
    members.answered(about(&c, &[], 1), now).unwrap();
    members.answered(about(&b, &[], 2), now).unwrap();
    let gone = |owner: &Owner| members.is_gone(owner.incarnation, GONE_AFTER);
    assert_eq!((gone(&a), gone(&b), gone(&c)), (true, false, false));
    members.reached(&a);
    assert!(gone(&a), "an answer on an old connection does not change it");
}

#[test]
fn those_that_took_over_are_asked_first_and_the_successor_is_the_youngest_of_the_group() {
    let (members, now) = (Members::default(), crate::clock::instant());
    let (a, b, c, d) = (owner(1, "a:1"), owner(2, "b:1"), owner(3, "c:1"), owner(4, "d:1"));
    members.answered(about(&b, &[&a], 1), now).unwrap();
    members.answered(about(&c, &[], 2), now).unwrap();
    members.answered(About { group: "other".into(), ..about(&d, &[], 3) }, now).unwrap();
    assert_eq!(members.holders(&a, GONE_AFTER), [b.clone(), a.clone()]);
    assert_eq!(members.holders(&c, GONE_AFTER), std::slice::from_ref(&c));
    assert_eq!(members.successors("default", GONE_AFTER), [c.clone(), b.clone()]);
    members.answered(About { stopping: true, ..about(&c, &[], 2) }, now).unwrap();
    assert_eq!(members.successors("default", GONE_AFTER), std::slice::from_ref(&b));
    // A replica that cannot be reached at the moment still has the interactions that were moved to it.
    members.replaced(&a, now);
    members.refused(&b, GONE_AFTER, now);
    assert_eq!(members.holders(&a, GONE_AFTER), std::slice::from_ref(&b));
    members.answered(about(&c, &[&a], 2), now).unwrap();
    assert_eq!(members.holders(&a, GONE_AFTER), [c.clone(), b.clone()], "the present one is first");
    members.replaced(&b, now);
    members.replaced(&c, now);
    assert!(members.holders(&a, GONE_AFTER).is_empty());
}

#[test]
fn the_table_is_bounded() {
    let (members, now) = (Members::default(), crate::clock::instant());
    for number in 0..2000_u64 {
        let incarnation = Incarnation::from_bytes(number.to_be_bytes());
        let owner = Owner { incarnation, address: format!("h{number}:1").into() };
        members.refused(&owner, GONE_AFTER, now + Duration::from_millis(number));
    }
    assert_eq!(members.all().len(), MEMBERS_MAX);
    let last = Incarnation::from_bytes(1999_u64.to_be_bytes());
    assert!(members.is_gone(last, Duration::ZERO));
    assert!(
        members
            .answered(About { address: "nonsense".into(), ..about(&owner(1, "a:1"), &[], 1) }, now)
            .is_none()
    );
}
