//! Notifications: contents, the retry ladder under a moved clock, repeats.

use crate::world::{NOTIFY_URL, PUBLIC_KEY_ID, World};
use wechatpay::notification::NOTIFY_LADDER_S;

#[test]
fn a_payment_and_a_refund_are_announced_once_each() {
    let mut world = World::new();
    world.order("T00001");
    assert_eq!(world.deliver(Some(200)).len(), 0);
    world.pay("T00001");
    let sent = world.deliver(Some(200));
    assert_eq!(sent.len(), 1);
    let notice = &sent[0];
    assert!(notice.signed);
    assert_eq!((notice.url.as_str(), notice.event.as_str()), (NOTIFY_URL, "TRANSACTION.SUCCESS"));
    assert_eq!(notice.serial, PUBLIC_KEY_ID);
    assert_eq!(notice.transaction(), world.query("T00001"));
    assert!(notice.id.len() <= 36, "{}", notice.id);

    world.refund("T00001", "R1", 300);
    assert_eq!(world.deliver(Some(204)).len(), 0, "PROCESSING is not announced");
    world.now = world.now.plus_s(3);
    let sent = world.deliver(Some(204));
    assert_eq!((sent.len(), sent[0].event.as_str()), (1, "REFUND.SUCCESS"));
    let notice = sent[0].refund();
    assert_eq!((notice.out_refund_no.as_str(), notice.refund, notice.total), ("R1", 300, 1_000));
    world.sim.advance(86_400);
    assert_eq!(world.deliver(Some(200)).len(), 0);
}

#[test]
fn a_refused_notification_climbs_the_ladder() {
    let mut world = World::new();
    world.order("T00001");
    world.pay("T00001");
    let first = world.deliver(Some(500)).remove(0);
    for (step, &wait_s) in NOTIFY_LADDER_S.iter().enumerate() {
        let wait = u32::try_from(wait_s).unwrap();
        world.sim.advance(wait - 1);
        assert_eq!(world.deliver(Some(500)).len(), 0, "step {step}: not yet");
        world.sim.advance(1);
        // Refusals of every kind: an error, silence, a redirect, an undocumented 2xx.
        let answer = [Some(500), None, Some(302), Some(202), Some(404)][step % 5];
        let sent = world.deliver(answer);
        assert_eq!(sent.len(), 1, "step {step}: now");
        assert_eq!(sent[0].id, first.id, "the id stays");
        assert!(sent[0].signed, "each try is signed anew");
    }
    world.sim.advance(30 * 86_400);
    assert_eq!(world.deliver(Some(500)).len(), 0, "after 15 more tries it is given up");
    let log = world.sim.callback_log();
    assert_eq!((log.len(), log[0].tries.len(), log[0].accepted, log[0].next), (1, 16, false, None));
}

#[test]
fn an_accepted_notification_is_not_sent_again() {
    let mut world = World::new();
    world.order("T00001");
    world.pay("T00001");
    world.deliver(None);
    world.sim.advance(15);
    assert_eq!(world.deliver(Some(200)).len(), 1);
    world.sim.advance(86_400);
    assert_eq!(world.deliver(Some(200)).len(), 0);
    assert!(world.sim.callback_log()[0].accepted);
}

#[test]
fn a_try_under_way_is_not_handed_out_twice() {
    let mut world = World::new();
    world.order("T00001");
    world.pay("T00001");
    let due = world.sim.due_callbacks(world.now);
    assert_eq!(due.len(), 1);
    world.sim.advance(86_400);
    assert_eq!(world.sim.due_callbacks(world.now).len(), 0);
    world.sim.callback_answered(due[0].id, Some(500), world.now);
    world.sim.callback_answered(due[0].id, Some(500), world.now);
    world.sim.advance(15);
    assert_eq!(world.sim.due_callbacks(world.now).len(), 1);
}
