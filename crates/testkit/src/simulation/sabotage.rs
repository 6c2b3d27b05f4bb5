//! Faults of our own making, to see that the auditors find them. A simulator that nothing can
//! make fail proves nothing.

/// What is deliberately broken in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    #[default]
    None,
    /// The store loses the intent to send a refund.
    ForgetRefundIntents,
    /// The store loses the intent to look after a payment.
    ForgetHealIntents,
    /// The store loses the intent to publish what became of a payment or refund.
    ForgetEvents,
    /// The store loses one posting of each journal.
    ForgetPostings,
    /// Silence of the channel is taken for a refusal.
    DoubtIsDecline,
    /// Silence of the channel is taken for "not known here".
    DoubtIsNotFound,
    /// A channel's "paid" is believed with one fen less.
    ShortPayment,
    /// A merchant who did not hear is written down as having heard.
    UnheardIsDelivered,
    /// Every try of a notification carries a new id.
    NewNotificationIds,
}
