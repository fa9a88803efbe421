//! Reservations, refusals and evictions of the memory budget.

use super::*;

const MIB: usize = 1 << 20;

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(100 * MIB))
}

#[test]
fn small_amounts_are_free_and_larger_ones_are_reserved_in_chunks() {
    let budget = budget();
    for kind in MemoryKind::ALL {
        let mut charge = Charge::new(kind);
        charge.fit(&budget, kind.free()).unwrap();
        assert_eq!(budget.reserved(), 0, "{kind:?}");
        charge.fit(&budget, kind.free() + 1).unwrap();
        assert_eq!(
            charge.bytes(),
            (kind.free() + 1).next_multiple_of(kind.chunk()),
            "{kind:?}"
        );
        assert_eq!(
            (budget.reserved(), budget.reserved_for(kind)),
            (charge.bytes(), charge.bytes()),
            "{kind:?}"
        );
        charge.fit(&budget, 0).unwrap();
        assert_eq!(budget.reserved(), 0, "{kind:?}");
        charge.fit(&budget, 10 * MIB).unwrap();
        drop(charge);
        assert_eq!(
            (budget.reserved(), budget.reserved_for(kind)),
            (0, 0),
            "{kind:?}"
        );
    }
}

#[test]
fn small_changes_of_a_reservation_reserve_nothing() {
    let budget = budget();
    let mut charge = Charge::new(MemoryKind::Outbox);
    charge.fit(&budget, MIB).unwrap();
    for bytes in [MIB - 30_000, MIB, MIB - 1] {
        charge.fit(&budget, bytes).unwrap();
        assert_eq!(budget.reserved(), MIB);
    }
    charge.fit(&budget, MIB / 2).unwrap();
    assert_eq!(budget.reserved(), MIB / 2);
}

#[test]
fn a_reservation_beyond_the_budget_is_refused_and_changes_nothing() {
    let budget = budget();
    let mut charge = Charge::new(MemoryKind::Request);
    charge.fit(&budget, 80 * MIB).unwrap();
    assert_eq!(charge.fit(&budget, 86 * MIB), Err(OutOfMemory));
    assert_eq!(
        (charge.bytes(), budget.reserved(), budget.refusals()),
        (80 * MIB, 80 * MIB, 1)
    );
    charge.force(&budget, 90 * MIB);
    assert_eq!(budget.reserved(), 90 * MIB);
    let mut small = Charge::new(MemoryKind::Request);
    assert_eq!(
        small.fit(&budget, 10_000),
        Ok(()),
        "what is small is served"
    );
    drop(charge);
    assert_eq!(small.fit(&budget, 80 * MIB), Ok(()));
}

#[test]
fn reservations_end_at_the_bytes_that_the_last_look_left_free() {
    let budget = budget();
    for (measured, reserved, fits) in [
        (0, 85, true),
        (0, 86, false),
        (60, 25, true),
        (60, 26, false),
        (90, 1, false),
    ] {
        let budget = self::budget();
        budget.look(measured * MIB);
        let mut charge = Charge::new(MemoryKind::Request);
        assert_eq!(
            charge.fit(&budget, reserved * MIB).is_ok(),
            fits,
            "{measured} measured, {reserved} reserved"
        );
    }
    // The measured bytes include the reserved ones.
    let mut charge = Charge::new(MemoryKind::Request);
    budget.look(0);
    charge.fit(&budget, 50 * MIB).unwrap();
    budget.look(70 * MIB);
    assert!(charge.fit(&budget, 65 * MIB).is_ok() && charge.fit(&budget, 66 * MIB).is_err());
}

#[test]
fn uncounted_bytes_are_remembered_while_reserved_ones_are_untouched() {
    let budget = budget();
    budget.look(30 * MIB);
    let mut charge = Charge::new(MemoryKind::Request);
    charge.fit(&budget, 50 * MIB).unwrap();
    // None of it is touched, so the measured bytes are fewer than the reserved ones.
    budget.look(30 * MIB);
    assert!(
        charge.fit(&budget, 56 * MIB).is_err(),
        "the 30 MiB are still there"
    );
    (0..1000).for_each(|_| _ = budget.look(30 * MIB));
    assert!(
        charge.fit(&budget, 84 * MIB).is_ok(),
        "they are forgotten with time"
    );
    // Most bytes that may be handed over never are.
    let budget = self::budget();
    let mut charge = Charge::new(MemoryKind::HandOver);
    charge.fit(&budget, 50 * MIB).unwrap();
    budget.look(30 * MIB);
    assert!(charge.fit(&budget, 56 * MIB).is_err());
}

#[test]
fn small_instances_are_admitted_as_far_as_the_last_look_left_room() {
    let budget = budget();
    budget.look(60 * MIB);
    let admit = |count: usize| {
        (0..count)
            .filter(|_| budget.admit_small(MIB).is_ok())
            .count()
    };
    assert_eq!((admit(50), budget.reserved()), (35, 0));
    let mut charge = Charge::new(MemoryKind::Request);
    assert_eq!(
        charge.fit(&budget, 100_000),
        Err(OutOfMemory),
        "what was admitted counts until the next look"
    );
    budget.look(70 * MIB);
    assert_eq!((charge.fit(&budget, 15 * MIB), admit(50)), (Ok(()), 10));
    // It is a consumer, without a reservation.
    let mut share = Share::new(&MemoryAccount::new(&budget), MemoryKind::Instance);
    share.fit(MIB).unwrap();
    assert_eq!(
        (budget.reserved(), budget.close_largest(1)),
        (15 * MIB, (1, MIB))
    );
}

#[test]
fn values_that_were_handed_over_leave_room_for_small_instances() {
    let budget = budget();
    budget.reserve(MemoryKind::HandOver, 40 * MIB).unwrap();
    // All of it was handed over, and is measured.
    budget.look(40 * MIB);
    let admitted = (0..50).filter(|_| budget.admit_small(MIB).is_ok()).count();
    assert_eq!(admitted, 35);
    budget.look(40 * MIB);
    // Large amounts fit up to their bound, as if no value were handed over yet.
    let reserved = |mib: usize| budget.reserve(MemoryKind::Request, mib * MIB);
    assert_eq!((reserved(6), reserved(5)), (Err(OutOfMemory), Ok(())));
}

#[test]
fn a_burst_of_small_instances_does_not_refuse_larger_amounts() {
    // MiB: instances admitted since the look, and the most that is reserved after them. With 60
    // measured, the bound of large amounts is 85, and that of both together is 95.
    for (admitted, reserved_max) in [(0, 25), (1, 25), (10, 25), (11, 24), (20, 15), (35, 0)] {
        let budget = budget();
        budget.look(60 * MIB);
        for _ in 0..admitted {
            budget.admit_small(MIB).unwrap();
        }
        let reserved = |mib: usize| budget.reserve(MemoryKind::Request, mib * MIB);
        assert_eq!(
            (reserved(reserved_max + 1), budget.reserved()),
            (Err(OutOfMemory), 0),
            "{admitted} admitted"
        );
        assert_eq!(
            (reserved(reserved_max), budget.reserved()),
            (Ok(()), reserved_max * MIB),
            "{admitted} admitted"
        );
    }
}

#[test]
fn http_connections_always_have_a_part_of_the_budget() {
    let budget = budget();
    let admit = |charge: &mut Charge| charge.admit(&budget, MIB).is_ok();
    let new = || Charge::new(MemoryKind::Socket);
    let mut all = Charge::new(MemoryKind::Request);
    all.fit(&budget, 85 * MIB).unwrap();
    let mut sockets: Vec<Charge> = (0..12).map(|_| new()).collect();
    assert_eq!(
        sockets
            .iter_mut()
            .filter_map(|one| admit(one).then_some(()))
            .count(),
        10
    );
    assert!(!budget.is_crowded());
    drop((all, sockets));
    let mut sockets: Vec<Charge> = (0..100).map(|_| new()).collect();
    assert_eq!(
        sockets
            .iter_mut()
            .filter_map(|one| admit(one).then_some(()))
            .count(),
        85
    );
    assert!(budget.is_crowded());
    sockets[0].fit(&budget, 0).unwrap();
    assert!(admit(&mut new()), "one has ended");
    drop(sockets);
    assert_eq!(budget.reserved(), 0);
}

#[test]
fn the_stage_follows_the_measured_bytes() {
    let budget = budget();
    let stages = [
        (0, MemoryStage::Calm),
        (69, MemoryStage::Calm),
        (70, MemoryStage::Shed),
        (85, MemoryStage::Refuse),
        (92, MemoryStage::Close),
        (10, MemoryStage::Calm),
    ];
    for (measured, stage) in stages {
        assert_eq!(
            (budget.look(measured * MIB), budget.stage()),
            (stage, stage),
            "{measured}"
        );
        assert_eq!(budget.is_scarce(), stage >= MemoryStage::Refuse);
    }
    assert_eq!(budget.excess(95 * MIB), 10 * MIB);
    let unbounded = Arc::new(Budget::new(0));
    assert_eq!(unbounded.look(usize::MAX), MemoryStage::Calm);
    assert_eq!(
        Charge::new(MemoryKind::Request).fit(&unbounded, 1 << 50),
        Ok(())
    );
}

#[test]
fn the_largest_consumers_are_closed_and_the_small_ones_never() {
    let budget = budget();
    let accounts = [MIB, 3 * MIB, 2 * MIB, 20_000].map(|bytes| {
        let mut share = Share::new(&MemoryAccount::new(&budget), MemoryKind::Request);
        share.fit(bytes).unwrap();
        share
    });
    let evicted = || {
        accounts
            .each_ref()
            .map(|share| share.account().is_evicted())
    };
    assert_eq!(budget.close_largest(4 * MIB), (2, 5 * MIB));
    assert_eq!(evicted(), [false, true, true, false]);
    assert_eq!(budget.close_largest(100 * MIB).0, 3);
    assert_eq!(evicted(), [true, true, true, false]);
    drop(accounts);
    assert_eq!(
        (
            budget.close_largest(1),
            budget.reserved(),
            budget.evictions()
        ),
        ((0, 0), 0, 5)
    );
}
