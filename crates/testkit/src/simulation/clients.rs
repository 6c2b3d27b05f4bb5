//! Merchants, payers and operators, and what each was told.

use super::pause::lock;
use super::run::{Ended, Run, at_once};
use super::world::short;
use crate::wechat::{OrderView, Outcome, Reference};
use app::{OrderRef, PayRequest, PlaceError, RefundAsk, RefundError, Store};
use channel::ChannelId;
use kernel::{Currency, Money, Serial};
use payments::{Payment, RefundTerms, Terms, TradeProduct};

const MOST_ORDERS: usize = 7;
const MOST_ASKS: usize = 10;

/// An order in a merchant's own notebook.
pub(super) struct Order {
    pub(super) merchant: usize,
    pub(super) terms: Terms,
    /// Our number, once we have acknowledged it.
    pub(super) acknowledged: Option<Serial>,
    /// A refusal that repeating does not change.
    pub(super) refused: bool,
    pub(super) close_acknowledged: bool,
}

/// A refund in a merchant's own notebook.
pub(super) struct Ask {
    pub(super) order: usize,
    pub(super) terms: RefundTerms,
    pub(super) acknowledged: Option<Serial>,
    pub(super) refused: bool,
}

fn yuan(minor: i64) -> Money {
    Money::new(minor, Currency::Cny)
}

impl Run {
    pub(super) fn merchant_orders(&mut self) {
        if self.orders.len() >= MOST_ORDERS {
            return self.merchant_repeats();
        }
        let number = self.orders.len() + 1;
        let (merchant, terms) = {
            let mut world = lock(&self.world);
            let now = world.now;
            let dice = &mut world.dice;
            let product = [
                TradeProduct::Native,
                TradeProduct::Native,
                TradeProduct::Jsapi,
                TradeProduct::App,
                TradeProduct::H5,
                TradeProduct::Cashier,
            ][dice.below(6)];
            let life_s = [None, Some(90), Some(300), Some(1_800)][dice.below(4)];
            let ip = product == TradeProduct::H5 || dice.chance(300);
            let terms = Terms {
                order_no: format!("T{number}"),
                appid: "wx2421b1c4370ec43b".into(),
                product,
                amount: yuan(match dice.below(4) {
                    0 => dice.between(1, 9),
                    1 => dice.between(40_001, 90_000),
                    _ => dice.between(10, 40_000),
                }),
                description: "茶".into(),
                attach: None,
                notify_url: (!dice.chance(100)).then(|| "https://shop.example/paid".into()),
                time_expire: life_s.map(|it| now.plus_s(it)),
                payer: Some("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o".into()),
                payer_ip: ip.then(|| "203.0.113.7".into()),
                h5_type: (product == TradeProduct::H5).then(|| "Wap".into()),
                device_id: None,
                return_url: None,
                extras: None,
            };
            (dice.below(self.merchants.len()), terms)
        };
        let order = Order {
            merchant,
            terms,
            acknowledged: None,
            refused: false,
            close_acknowledged: false,
        };
        self.orders.push(order);
        self.place(self.orders.len() - 1);
    }

    fn place(&mut self, order: usize) {
        let (platform, now) = (self.platform.clone(), self.now());
        let known = &self.orders[order];
        let (merchant, terms) = (self.merchants[known.merchant].clone(), known.terms.clone());
        let label = format!("place {} {:?} {}", terms.order_no, terms.product, terms.amount);
        self.begin(label, async move {
            let result = Box::new(platform.place_order(&merchant, terms, None, now).await);
            Ended::Placed { order, result }
        });
    }

    fn place_twisted(&mut self, order: usize) {
        let (platform, now) = (self.platform.clone(), self.now());
        let known = &self.orders[order];
        let merchant = self.merchants[known.merchant].clone();
        let amount = yuan(known.terms.amount.minor() + 1);
        let terms = Terms { amount, ..known.terms.clone() };
        self.begin(format!("place {} with another amount", terms.order_no), async move {
            let result = Box::new(platform.place_order(&merchant, terms, None, now).await);
            Ended::Twisted { result }
        });
    }

    fn ask_refund(&mut self, ask: usize) {
        let (platform, now) = (self.platform.clone(), self.now());
        let known = &self.asks[ask];
        let order = &self.orders[known.order];
        let merchant = self.merchants[order.merchant].clone();
        let terms = known.terms.clone();
        let by_number = OrderRef::OrderNo(order.terms.order_no.clone());
        let reference = match order.acknowledged {
            Some(serial) if self.roll(2) == 0 => OrderRef::Transaction(serial),
            Some(_) | None => by_number,
        };
        let label =
            format!("refund {} {} of {}", terms.refund_no, terms.amount, order.terms.order_no);
        self.begin(label, async move {
            let asked = RefundAsk { order: reference, terms };
            let result = Box::new(platform.refund(&merchant, &asked, now).await);
            Ended::Refunded { ask, result }
        });
    }

    fn ask_twisted(&mut self, ask: usize) {
        let (platform, now) = (self.platform.clone(), self.now());
        let known = &self.asks[ask];
        let order = &self.orders[known.order];
        let merchant = self.merchants[order.merchant].clone();
        let amount = yuan(known.terms.amount.minor() + 1);
        let terms = RefundTerms { amount, ..known.terms.clone() };
        let reference = OrderRef::OrderNo(order.terms.order_no.clone());
        self.begin(format!("refund {} with another amount", terms.refund_no), async move {
            let asked = RefundAsk { order: reference, terms };
            let result = Box::new(platform.refund(&merchant, &asked, now).await);
            Ended::TwistedRefund { result }
        });
    }

    /// A merchant that got no answer asks again under the same number, as the guide tells it to;
    /// some ask again although they got one, and some with other terms.
    pub(super) fn merchant_repeats(&mut self) {
        let (which, twist) = (self.roll(self.orders.len() + self.asks.len()), self.roll(6) == 0);
        if let Some(order) = self.orders.get(which) {
            match (order.acknowledged.is_some(), twist) {
                (true, true) => self.place_twisted(which),
                (true | false, _) => self.place(which),
            }
        } else if let Some(ask) = self.asks.get(which - self.orders.len()) {
            let (index, known) = (which - self.orders.len(), ask.acknowledged.is_some());
            match (known, twist) {
                (true, true) => self.ask_twisted(index),
                (true | false, _) => self.ask_refund(index),
            }
        }
    }

    pub(super) fn merchant_closes(&mut self) {
        if self.orders.is_empty() {
            return;
        }
        let order = self.roll(self.orders.len());
        self.close(order);
    }

    fn close(&mut self, order: usize) {
        let (platform, now) = (self.platform.clone(), self.now());
        let known = &self.orders[order];
        let merchant = self.merchants[known.merchant].clone();
        let number = known.terms.order_no.clone();
        self.begin(format!("close {number}"), async move {
            let result = Box::new(platform.close_order(&merchant, &number, now).await);
            Ended::Closed { order, result }
        });
    }

    /// One refund, or two at once that the order has not enough money for together.
    pub(super) fn merchant_refunds(&mut self) {
        if self.orders.is_empty() || self.asks.len() + 1 >= MOST_ASKS {
            return;
        }
        let order = {
            let paid = |it: &usize| self.payment_of(*it).is_some_and(|it| it.receipt.is_some());
            let all: Vec<usize> = (0..self.orders.len()).collect();
            let paid: Vec<usize> = all.iter().copied().filter(paid).collect();
            let mut world = lock(&self.world);
            let list = if paid.is_empty() || world.dice.chance(100) { &all } else { &paid };
            world.dice.pick(list).copied().unwrap_or(0)
        };
        let total = self.orders[order].terms.amount.minor();
        let (amounts, lied) = {
            let mut world = lock(&self.world);
            let part = world.dice.between(1, total);
            let amounts = match world.dice.below(6) {
                0 => vec![total],
                1 => vec![total + 1],
                2 => vec![total - total / 3, total - total / 3],
                3 => vec![part, total - part],
                _ => vec![part],
            };
            (amounts, world.dice.chance(50))
        };
        for amount in amounts.into_iter().filter(|it| *it > 0) {
            let number = self.asks.len() + 1;
            let terms = RefundTerms {
                refund_no: format!("R{number}"),
                amount: yuan(amount),
                total: yuan(if lied { total + 5 } else { total }),
                reason: Some("不想要了".into()),
                notify_url: number
                    .is_multiple_of(2)
                    .then(|| "https://shop.example/refunded".into()),
                extras: None,
            };
            self.asks.push(Ask { order, terms, acknowledged: None, refused: false });
            self.ask_refund(self.asks.len() - 1);
        }
    }

    /// The order as it is stored.
    pub(super) fn payment_of(&self, order: usize) -> Option<Payment> {
        let known = &self.orders[order];
        let merchant = &self.merchants[known.merchant].id;
        let found = at_once(self.store.payment_by_order(merchant, &known.terms.order_no));
        found.ok().flatten().map(|it| it.value)
    }

    /// A payer opens the cashier of an order, perhaps a second time with another device or wallet.
    pub(super) fn payer_opens_cashier(&mut self) {
        if self.orders.is_empty() {
            return;
        }
        let order = self.roll(self.orders.len());
        let Some(payment) = self.payment_of(order) else { return };
        let request = {
            let mut world = lock(&self.world);
            let dice = &mut world.dice;
            let product =
                [TradeProduct::Native, TradeProduct::Native, TradeProduct::Jsapi, TradeProduct::H5]
                    [dice.below(4)];
            let channel = [None, Some("wechat-a"), Some("wechat-b")][dice.below(3)];
            PayRequest {
                merchant: payment.merchant.clone(),
                payment: payment.serial,
                product,
                channel: channel.map(ChannelId::new),
                payer_ip: Some("198.51.100.9".into()),
            }
        };
        let (platform, now) = (self.platform.clone(), self.now());
        let (number, product) = (&payment.terms.order_no, request.product);
        self.begin(format!("pay {number} {product:?} {:?}", request.channel), async move {
            let result = Box::new(platform.pay(&request, now).await);
            Ended::Prepared { result }
        });
    }

    fn unpaid_at_channel(&self) -> Vec<OrderView> {
        let mut world = lock(&self.world);
        let now = world.now;
        let mut orders = world.sim.orders(now);
        orders.retain(|it| it.paid_minor.is_none());
        orders
    }

    /// A payer does something with an order that exists at the channel.
    pub(super) fn payer_acts(&mut self) {
        let orders = self.unpaid_at_channel();
        let mut world = lock(&self.world);
        let Some(order) = world.dice.pick(&orders).cloned() else { return };
        let outcome = match world.dice.below(20) {
            0..10 => Outcome::Success,
            10..12 => Outcome::SuccessSilent,
            12..15 => Outcome::Paying,
            15 | 16 => Outcome::Decline,
            17 => Outcome::PayError,
            _ => Outcome::SuccessWrongAmount { amount_minor: None },
        };
        let open = world.is_expected(&order);
        // Nobody would ever hear of silent money after the order's end.
        let outcome = match outcome {
            Outcome::SuccessSilent if !open => Outcome::Success,
            other => other,
        };
        world.confirm(&order, outcome, open);
    }

    /// The payment was under way when the order was closed or expired.
    pub(super) fn payer_is_late(&mut self) {
        let mut orders = self.unpaid_at_channel();
        let mut world = lock(&self.world);
        let now = world.now;
        orders.retain(|it| it.trade_state == "CLOSED" || it.expires < now);
        let Some(order) = world.dice.pick(&orders).cloned() else { return };
        let open = world.is_expected(&order);
        world.confirm(&order, Outcome::LateSuccess, open);
    }

    /// Whoever was still typing a password stops: the order is declined, or paid if it is too late
    /// for that.
    pub(super) fn everybody_decides(&mut self) {
        for order in self.unpaid_at_channel() {
            if order.trade_state == "USERPAYING" {
                let mut world = lock(&self.world);
                let open = world.is_expected(&order);
                if !world.confirm(&order, Outcome::Decline, open) {
                    world.confirm(&order, Outcome::LateSuccess, open);
                }
            }
        }
    }

    /// Operators replay notifications and send held money back.
    pub(super) fn operator_acts(&mut self) {
        if self.orders.is_empty() {
            return;
        }
        let order = self.roll(self.orders.len());
        let Some(payment) = self.payment_of(order) else { return };
        let (platform, now) = (self.platform.clone(), self.now());
        let merchant = payment.merchant.clone();
        if let Some(held) = payment.unexpected.first() {
            let attempt = held.attempt;
            self.begin(format!("release {}", payment.terms.order_no), async move {
                let result = platform.release_held(&merchant, payment.serial, attempt, now).await;
                Ended::Operated(format!("{:?}", result.map(|it| it.is_some())))
            });
            return;
        }
        let found = at_once(self.store.notifications(&merchant, Some(payment.serial), None, 9));
        let Some(notification) = found.unwrap_or_default().pop() else { return };
        self.begin(format!("replay {}", short(notification.id.as_str())), async move {
            let result = platform.replay(&merchant, notification.id, now).await;
            Ended::Operated(format!("{:?}", result.map(|it| it.state)))
        });
    }

    /// Everybody who was not answered asks again.
    pub(super) fn everybody_repeats(&mut self) {
        for order in 0..self.orders.len() {
            let it = &self.orders[order];
            if it.acknowledged.is_none() && !it.refused {
                self.place(order);
            }
        }
        for ask in 0..self.asks.len() {
            let it = &self.asks[ask];
            if it.acknowledged.is_none() && !it.refused {
                self.ask_refund(ask);
            }
        }
    }

    /// What a client is told. Promises are written down; answers that must never come are found.
    pub(super) fn answered(&mut self, label: &str, ended: Ended) {
        let mut world = lock(&self.world);
        let quiet = world.calmed;
        match ended {
            Ended::Placed { order, result } => {
                let known = &mut self.orders[order];
                match *result {
                    Ok(placed) => {
                        let serial = placed.payment.serial;
                        world.note(|_| format!("<- {label}: {}", short(serial.as_str())));
                        let before = known.acknowledged.replace(serial);
                        if before.is_some_and(|it| it != serial) {
                            world.find(format!("{label}: acknowledged twice, as two orders"));
                        }
                        if placed.payment.terms != known.terms {
                            world.find(format!("{label}: acknowledged with other terms"));
                        }
                    }
                    Err(error) => {
                        world.note(|_| format!("<- {label}: {error:?}"));
                        match error {
                            PlaceError::Different(_) => {
                                world.find(format!("{label}: the same terms are called others"));
                            }
                            PlaceError::Paid(_)
                            | PlaceError::Closed(_)
                            | PlaceError::Expired
                            | PlaceError::Risk(_)
                            | PlaceError::NoChannel(_) => known.refused = true,
                            PlaceError::Declined(_) | PlaceError::InDoubt => {}
                            PlaceError::Store(_) | PlaceError::Commit(_) if quiet => {
                                world.find(format!("{label} failed without a fault: {error:?}"));
                            }
                            PlaceError::Store(_) | PlaceError::Commit(_) => {}
                        }
                    }
                }
            }
            Ended::Twisted { result } => {
                world.note(|_| format!("<- {label}: {:?}", (*result).as_ref().err()));
                if result.is_ok() {
                    world.find(format!("{label}: acknowledged"));
                }
            }
            Ended::Prepared { result } => {
                world.note(|_| format!("<- {label}: {:?}", result.err()));
            }
            Ended::Closed { order, result } => {
                world.note(|_| format!("<- {label}: {:?}", (*result).as_ref().err()));
                self.orders[order].close_acknowledged |= result.is_ok();
            }
            Ended::Refunded { ask, result } => {
                let known = &mut self.asks[ask];
                match *result {
                    Ok((_, refund)) => {
                        let serial = refund.serial;
                        world.note(|_| format!("<- {label}: {}", short(serial.as_str())));
                        let before = known.acknowledged.replace(serial);
                        if before.is_some_and(|it| it != serial) {
                            world.find(format!("{label}: acknowledged twice, as two refunds"));
                        }
                        if refund.terms != known.terms {
                            world.find(format!("{label}: acknowledged with other terms"));
                        }
                    }
                    Err(error) => {
                        world.note(|_| format!("<- {label}: {error:?}"));
                        match error {
                            RefundError::Different(_) => {
                                world.find(format!("{label}: the same terms are called others"));
                            }
                            RefundError::NoSuchOrder | RefundError::Refused(_) => {
                                known.refused = true;
                            }
                            RefundError::NotEnough => {}
                            RefundError::Store(_) | RefundError::Commit(_) if quiet => {
                                world.find(format!("{label} failed without a fault: {error:?}"));
                            }
                            RefundError::Store(_) | RefundError::Commit(_) => {}
                        }
                    }
                }
            }
            Ended::TwistedRefund { result } => {
                world.note(|_| format!("<- {label}: {:?}", (*result).as_ref().err()));
                if result.is_ok() {
                    world.find(format!("{label}: acknowledged"));
                }
            }
            Ended::Operated(words) => world.note(|_| format!("<- {label}: {words}")),
            Ended::Attended { .. } | Ended::CalledBack { .. } => {}
        }
    }
}

impl super::world::World {
    /// A payer's decision. False if the channel does not allow it.
    pub(super) fn confirm(&mut self, order: &OrderView, outcome: Outcome, open: bool) -> bool {
        let reference =
            Reference::Number { out_trade_no: &order.out_trade_no, mchid: Some(&order.mchid) };
        let result = self.sheltered(open, |it| it.sim.confirm(reference, outcome, None, it.now));
        let number = short(&order.out_trade_no);
        self.note(|_| format!("payer {outcome:?} {number}: {:?}", result.as_ref().err()));
        result.is_ok()
    }
}
