//! The channel's callbacks on their way to us: late, doubled, garbled, to the wrong door.

use super::accounts::CALLBACK_BASE;
use super::pause::lock;
use super::ports::corrupt;
use super::run::{Ended, Run};
use crate::wechat::OutgoingCallback;
use channel::{Callback, ChannelId, HttpMessage};
use kernel::{MerchantId, Serial};

/// A callback between the channel and us.
#[derive(Clone)]
struct Parcel {
    /// `None`: a copy that the network made; nobody waits for its answer.
    id: Option<u64>,
    channel: ChannelId,
    merchant: MerchantId,
    payment: Serial,
    message: HttpMessage,
}

/// Reads the address as the server's router does.
fn parcel(callback: OutgoingCallback) -> Option<Parcel> {
    let path = callback.url.strip_prefix(CALLBACK_BASE)?;
    let mut parts = path.split('/');
    let (channel, merchant, payment) = (parts.next()?, parts.next()?, parts.next()?);
    let headers = callback.headers.into_iter().map(|(name, value)| (name.to_owned(), value));
    Some(Parcel {
        id: Some(callback.id),
        channel: ChannelId::new(channel),
        merchant: MerchantId::parse(merchant).ok()?,
        payment: Serial::parse(payment).ok()?,
        message: HttpMessage { status: 0, headers: headers.collect(), body: callback.body },
    })
}

impl Run {
    /// What the channel sends now.
    pub(super) fn take_callbacks(&mut self) {
        let due = {
            let mut world = lock(&self.world);
            let now = world.now;
            world.sim.due_callbacks(now)
        };
        for callback in due {
            let (id, url) = (callback.id, callback.url.clone());
            let Some(mut parcel) = parcel(callback) else {
                lock(&self.world).find(format!("callback {id} goes to {url}"));
                continue;
            };
            if lock(&self.world).strikes(|it| it.callback_doubled) {
                self.receive(Parcel { id: None, ..parcel.clone() });
            }
            if lock(&self.world).strikes(|it| it.callback_corrupted) {
                corrupt(&self.world, &mut parcel.message);
            }
            self.misroute(&mut parcel);
            self.receive(parcel);
        }
    }

    fn misroute(&mut self, parcel: &mut Parcel) {
        let mut world = lock(&self.world);
        if world.strikes(|it| it.callback_misrouted) {
            let others: Vec<(Serial, MerchantId)> =
                world.watch.payments.values().map(|it| (it.serial, it.merchant.clone())).collect();
            if let Some((payment, merchant)) = world.dice.pick(&others).cloned() {
                (parcel.payment, parcel.merchant) = (payment, merchant);
            }
        }
    }

    /// Does what the server does with a callback. On a slow line it waits until its turn comes.
    fn receive(&mut self, parcel: Parcel) {
        let (platform, world) = (self.platform.clone(), self.world.clone());
        let (id, arrives) = {
            let mut world = lock(&self.world);
            let delay_ms = match world.strikes(|it| it.callback_delayed) {
                true => world.dice.between(1, 400_000),
                false => 0,
            };
            (parcel.id, world.now.plus_ms(delay_ms))
        };
        let label =
            format!("callback {:?} about {}", id, super::world::short(parcel.payment.as_str()));
        self.begin(label, async move {
            loop {
                let (now, quiet) = {
                    let world = lock(&world);
                    (world.now, world.quiet)
                };
                if now >= arrives || quiet {
                    break;
                }
                super::pause::once().await;
            }
            let now = lock(&world).now;
            let Parcel { id, channel, merchant, payment, message } = parcel;
            let news = platform.provider.callback(&channel, &message, now);
            let taken = match news {
                None => Ok(false),
                Some(Err(error)) => {
                    lock(&world).note(|_| format!("   callback refused: {error}"));
                    return Ended::CalledBack { id, status: 400 };
                }
                Some(Ok(Callback::Payment(facts))) => {
                    let taken = platform
                        .payment_called_back(&channel, &merchant, payment, &facts, now)
                        .await;
                    taken.map(|it| it.is_some())
                }
                Some(Ok(Callback::Refund(facts))) => {
                    let taken = platform.refund_called_back(&channel, &merchant, &facts, now).await;
                    taken.map(|it| it.is_some())
                }
                Some(Ok(Callback::Other { .. })) => Ok(true),
            };
            let status = match taken {
                Ok(true) => 200,
                Ok(false) => 404,
                Err(_) => 500,
            };
            Ended::CalledBack { id, status }
        });
        if let Some(task) = self.tasks.last_mut() {
            task.callback = id;
        }
    }
}
