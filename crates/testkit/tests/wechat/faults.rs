//! Each fault does what its name says, once, and nothing else.

use crate::world::{MCHID, World, holds, order_body, refund_body};
use serde_json::Value;
use testkit::wechat::{Call, Chance, Fault, Outcome, Planned};
use wechatpay::WireError;

const NATIVE: &str = "/v3/pay/transactions/native";
const REFUNDS: &str = "/v3/refund/domestic/refunds";

fn create(world: &mut World, number: &str) -> testkit::wechat::SimAnswer {
    world.raw("POST", NATIVE, &order_body(number).to_string())
}

fn exists(world: &mut World, number: &str) -> bool {
    world.sim.order(number, world.now).is_some()
}

#[test]
fn lost_and_broken_answers_before_and_after_the_effect() {
    let mut world = World::new();
    let mut check = |fault: Fault, dropped: bool, status: u16, effect: bool| {
        let number = format!("T-{}", world.sim.orders(world.now).len() + 1000);
        world.fault(fault.clone());
        let answer = create(&mut world, &number);
        assert_eq!((answer.drop, answer.status), (dropped, status), "{fault:?}");
        assert_eq!(exists(&mut world, &number), effect, "{fault:?}");
        // Once only: the repeat succeeds and finds at most one order.
        let again = create(&mut world, &number);
        assert_eq!((again.status, again.drop, again.delay_ms), (200, false, 0), "{fault:?}");
    };
    check(Fault::DropBefore, true, 0, false);
    check(Fault::DropAfter, true, 0, true);
    check(Fault::NeverAnswer, true, 0, true);
    check(Fault::ErrorBefore { status: 500 }, false, 500, false);
    check(Fault::ErrorAfter { status: 500 }, false, 500, true);
    check(Fault::ErrorAfter { status: 502 }, false, 502, true);
    check(Fault::ErrorBefore { status: 503 }, false, 503, false);
    check(Fault::Refuse { code: "FREQUENCY_LIMITED".into() }, false, 429, false);
    check(Fault::Delay { ms: 700 }, false, 200, true);
    check(Fault::BadSignature, false, 200, true);
}

#[test]
fn a_probe_is_signed_wrong_and_a_delay_is_asked_for() {
    let mut world = World::new();
    world.fault(Fault::BadSignature);
    world.fault(Fault::Delay { ms: 700 });
    let answer = create(&mut world, "T00001");
    assert!(!holds(&answer));
    assert!(answer.header("wechatpay-signature").unwrap().starts_with("WECHATPAY/SIGNTEST/"));
    assert_eq!(answer.delay_ms, 700);
    assert!(holds(&create(&mut world, "T00001")));
}

#[test]
fn a_fault_can_wait_for_its_kind_of_call() {
    let mut world = World::new();
    world.sim.plan_fault(Planned { fault: Fault::DropAfter, on: Some(Call::Query), times: 2 });
    assert!(!create(&mut world, "T00001").drop);
    let target = format!("/v3/pay/transactions/out-trade-no/T00001?mchid={MCHID}");
    let drops: Vec<bool> = (0..3).map(|_| world.raw("GET", &target, "").drop).collect();
    assert_eq!(drops, [true, true, false]);
    world.fault(Fault::DropBefore);
    world.sim.clear_faults();
    assert!(!create(&mut world, "T00001").drop);
}

#[test]
fn a_state_can_be_a_word_nobody_knows() {
    let mut world = World::new();
    world.order("T00001");
    world.pay("T00001");
    world.fault(Fault::UnknownState);
    let target = format!("/v3/pay/transactions/out-trade-no/T00001?mchid={MCHID}");
    let answer = world.raw("GET", &target, "");
    let parsed = wechatpay::Transaction::parse(&answer.body);
    let unknown = WireError::UnknownWord { member: "trade_state", word: "MYSTERY".into() };
    assert_eq!(parsed, Err(unknown));
    assert!(holds(&answer));
    world.fault(Fault::UnknownState);
    let refund = world.refund("T00001", "R1", 1);
    assert_eq!(refund["status"], "MYSTERY");
}

#[test]
fn a_notification_can_come_before_the_answer() {
    let mut world = World::new();
    world.fault(Fault::CallbackFirst);
    let answer = create(&mut world, "T00001");
    assert!(answer.delay_ms > 0);
    assert_eq!(world.deliver(Some(200)).len(), 1);
    world.state("T00001", "SUCCESS");
    world.fault(Fault::CallbackFirst);
    let body = refund_body("T00001", "R1", 100).to_string();
    let answer = world.raw("POST", REFUNDS, &body);
    let parsed: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.delay_ms > 0, &parsed["status"]), (true, &"PROCESSING".into()));
    assert_eq!(world.deliver(Some(200))[0].event, "REFUND.SUCCESS");
}

#[test]
fn notifications_can_be_doubled_late_forged_wrong_or_lost() {
    let mut world = World::new();
    let pay = |world: &mut World, number: &str, fault: Fault| {
        world.order(number);
        world.fault(fault);
        world.pay(number);
    };
    pay(&mut world, "T00001", Fault::CallbackDuplicate);
    let twice = world.deliver(Some(500));
    assert_eq!((twice.len(), twice[0].id == twice[1].id), (2, true));
    world.sim.advance(15);
    assert_eq!(world.deliver(Some(200)).len(), 1, "only one of the two climbs the ladder");

    pay(&mut world, "T00002", Fault::CallbackLate { ms: 2_000 });
    world.order("T00003");
    world.pay("T00003");
    let number = |notice: &crate::world::Notice| notice.transaction().out_trade_no;
    assert_eq!(world.deliver(Some(200)).iter().map(number).collect::<Vec<_>>(), ["T00003"]);
    world.now = world.now.plus_s(2);
    assert_eq!(world.deliver(Some(200)).iter().map(number).collect::<Vec<_>>(), ["T00002"]);

    pay(&mut world, "T00004", Fault::CallbackBadSignature);
    let forged = world.deliver(Some(401)).remove(0);
    world.sim.advance(15);
    let right = world.deliver(Some(200)).remove(0);
    assert_eq!((forged.signed, right.signed, forged.id == right.id), (false, true, true));

    pay(&mut world, "T00005", Fault::CallbackWrongAmount);
    let told = world.deliver(Some(200))[0].transaction().amount.unwrap().total.minor();
    let asked = world.query("T00005").amount.unwrap().total.minor();
    assert_eq!((told, asked), (1_001, 1_000));

    pay(&mut world, "T00006", Fault::CallbackUnknownState);
    let notice = world.deliver(Some(200)).remove(0);
    assert!(wechatpay::Transaction::parse(&notice.plain).is_err());

    pay(&mut world, "T00007", Fault::CallbackLost);
    assert_eq!(world.deliver(Some(200)).len(), 0);
    world.state("T00007", "SUCCESS");
    world.order("T00008");
    world.confirm("T00008", Outcome::SuccessSilent).unwrap();
    assert_eq!(world.deliver(Some(200)).len(), 0);
}

#[test]
fn refunds_can_end_badly() {
    let mut world = World::new();
    world.order("T00001");
    world.pay("T00001");
    world.deliver(Some(200));
    world.fault(Fault::RefundAbnormal);
    world.refund("T00001", "R1", 400);
    world.fault(Fault::RefundClosed);
    world.refund("T00001", "R2", 600);
    world.now = world.now.plus_s(3);
    let events: Vec<String> = world.deliver(Some(200)).into_iter().map(|it| it.event).collect();
    assert_eq!(events, ["REFUND.ABNORMAL", "REFUND.CLOSED"]);
    // What a closed refund took is free again; what an abnormal one took is not.
    world.refund("T00001", "R3", 600);
    let body = refund_body("T00001", "R4", 1).to_string();
    world.refused("POST", REFUNDS, &body, 400, "INVALID_REQUEST");
}

#[test]
fn chances_follow_the_seed() {
    let run = |per_mille| {
        let mut world = World::new();
        world.sim.risk_fault(Chance { fault: Fault::DropAfter, on: None, per_mille });
        let numbers = (0..40).map(|it| format!("T-{it:04}"));
        numbers.map(|it| create(&mut world, &it).drop).collect::<Vec<bool>>()
    };
    assert!(run(0).iter().all(|it| !it));
    assert!(run(1_000).iter().all(|it| *it));
    let some = run(300);
    assert!(some.contains(&true) && some.contains(&false));
    assert_eq!(some, run(300));
}
