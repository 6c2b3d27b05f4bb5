//! Deciding a batch of commits in memory: what each is answered, and what is to be written.
//!
//! Engines bring the facts and write the outcome; the decision is here, once for all of them.
//! Commits are taken in order, each on top of those before it. One that fails leaves nothing
//! behind. A row that several commits change is written once, with its last value; a balance is
//! written once, as the sum of what moved.
//!
//! What only a slip can cause (a serial drawn twice, an event booked twice) is left to the keys
//! of the tables: it undoes the batch, which is then halved until the culprit is alone.

use crate::rows::{MerchantRow, NotificationRow, PaymentRow, Prepared, RefundRow, Word};
use app::{CommitError, Intent, IntentChange};
use ledger::{Balance, BalanceError, Side};
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    Merchant,
    Payment,
    Refund,
    Notification,
}

/// What keeps a new row from being written twice.
pub(crate) enum Unique<'b> {
    /// A number that its maker chose: asked for.
    Number(&'b str),
    /// Its own key: asked for.
    Key,
    /// We drew its key; asking costs more than it finds.
    Drawn,
}

/// A row with a version.
pub(crate) trait Row {
    const TABLE: Table;
    const NAME: &'static str;
    fn merchant(&self) -> &str;
    fn key(&self) -> &str;
    fn unique(&self) -> Unique<'_>;
    fn expected(&self) -> u32;
}

impl Row for MerchantRow {
    const TABLE: Table = Table::Merchant;
    const NAME: &'static str = "merchant";
    fn merchant(&self) -> &str {
        &self.id
    }
    fn key(&self) -> &str {
        &self.id
    }
    fn unique(&self) -> Unique<'_> {
        Unique::Key
    }
    fn expected(&self) -> u32 {
        self.expected
    }
}

impl Row for PaymentRow {
    const TABLE: Table = Table::Payment;
    const NAME: &'static str = "order";
    fn merchant(&self) -> &str {
        &self.merchant
    }
    fn key(&self) -> &str {
        &self.serial
    }
    fn unique(&self) -> Unique<'_> {
        Unique::Number(&self.order_no)
    }
    fn expected(&self) -> u32 {
        self.expected
    }
}

impl Row for RefundRow {
    const TABLE: Table = Table::Refund;
    const NAME: &'static str = "refund";
    fn merchant(&self) -> &str {
        &self.merchant
    }
    fn key(&self) -> &str {
        &self.serial
    }
    fn unique(&self) -> Unique<'_> {
        Unique::Number(&self.refund_no)
    }
    fn expected(&self) -> u32 {
        self.expected
    }
}

impl Row for NotificationRow {
    const TABLE: Table = Table::Notification;
    const NAME: &'static str = "notification";
    fn merchant(&self) -> &str {
        &self.merchant
    }
    fn key(&self) -> &str {
        &self.id
    }
    fn unique(&self) -> Unique<'_> {
        Unique::Drawn
    }
    fn expected(&self) -> u32 {
        self.expected
    }
}

/// Merchant, kind, subject.
pub(crate) type IntentKey<'b> = (&'b str, &'static str, &'b str);

pub(crate) fn intent_key(change: &IntentChange) -> IntentKey<'_> {
    let (merchant, kind, subject) = match change {
        IntentChange::Schedule(it) | IntentChange::Settle { claimed: it, .. } => {
            (&it.merchant, it.kind, &it.subject)
        }
        IntentChange::Finish { merchant, kind, subject } => (merchant, *kind, subject),
    };
    (merchant.as_str(), kind.word(), subject.as_str())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IntentState {
    pub due_ms: i64,
    pub tries: u32,
    pub holder: Option<String>,
}

/// What the database holds of the rows that a batch touches.
pub(crate) trait Facts {
    type Error;
    /// The version of the row with this key.
    fn version(
        &mut self,
        table: Table,
        merchant: &str,
        key: &str,
    ) -> Result<Option<u32>, Self::Error>;
    /// The version of the row with this number.
    fn numbered(
        &mut self,
        table: Table,
        merchant: &str,
        number: &str,
    ) -> Result<Option<u32>, Self::Error>;
    fn intent(&mut self, key: IntentKey<'_>) -> Result<Option<IntentState>, Self::Error>;
    fn balance(&mut self, merchant: &str, account: &str) -> Result<Balance, Self::Error>;
    /// Whether each balance is looked at, even if it can only grow.
    fn looks_at_all(&self) -> bool;
}

/// A row to be written: its version was `base` and will be `version`.
pub(crate) struct Change<'b, R> {
    /// As the batch met it first: what never changes is taken from it.
    pub first: &'b R,
    pub row: &'b R,
    pub base: u32,
    pub version: u32,
}

fn clash<R: Row>(a: &R, b: &R) -> bool {
    let numbers = match (a.unique(), b.unique()) {
        (Unique::Number(x), Unique::Number(y)) => x == y && (a.expected(), b.expected()) == (0, 0),
        (_, _) => false,
    };
    a.merchant() == b.merchant() && (a.key() == b.key() || numbers)
}

/// The rows of one table.
pub(crate) struct Rows<'b, R> {
    pub changes: Vec<Change<'b, R>>,
    index: HashMap<(&'b str, &'b str), usize>,
    numbers: HashMap<(&'b str, &'b str), usize>,
}

impl<R> Default for Rows<'_, R> {
    fn default() -> Self {
        Rows { changes: Vec::new(), index: HashMap::new(), numbers: HashMap::new() }
    }
}

impl<'b, R: Row> Rows<'b, R> {
    fn check<F: Facts>(
        &self,
        list: &'b [R],
        facts: &mut F,
    ) -> Result<Result<(), CommitError>, F::Error> {
        for (index, row) in list.iter().enumerate() {
            if list[..index].iter().any(|it| clash(it, row)) {
                let what = format!("{} {} in the commit itself", R::NAME, row.key());
                return Ok(Err(CommitError::Exists(what)));
            }
            let (found, shown) = self.found(row, facts)?;
            let error = match (found, row.expected()) {
                (None, 0) => continue,
                (Some(_), 0) => CommitError::Exists(format!("{} {shown}", R::NAME)),
                (Some(found), expected) if found == expected => continue,
                (Some(_) | None, _) => CommitError::Stale(format!("{} {shown}", R::NAME)),
            };
            return Ok(Err(error));
        }
        Ok(Ok(()))
    }

    /// The version that a row has by now, and the name by which it is known.
    fn found<F: Facts>(
        &self,
        row: &'b R,
        facts: &mut F,
    ) -> Result<(Option<u32>, &'b str), F::Error> {
        let (merchant, key) = (row.merchant(), row.key());
        let slot = |it: Option<&usize>| it.map(|it| self.changes[*it].version);
        if let Some(version) = slot(self.index.get(&(merchant, key))) {
            return Ok((Some(version), key));
        }
        if row.expected() > 0 {
            return Ok((facts.version(R::TABLE, merchant, key)?, key));
        }
        Ok(match row.unique() {
            Unique::Number(number) => match slot(self.numbers.get(&(merchant, number))) {
                Some(version) => (Some(version), number),
                None => (facts.numbered(R::TABLE, merchant, number)?, number),
            },
            Unique::Key => (facts.version(R::TABLE, merchant, key)?, key),
            Unique::Drawn => (None, key),
        })
    }

    fn apply(&mut self, list: &'b [R]) {
        for row in list {
            let next = self.changes.len();
            let key = (row.merchant(), row.key());
            match self.index.get(&key) {
                Some(known) => {
                    let change = &mut self.changes[*known];
                    (change.row, change.version) = (row, change.version + 1);
                }
                None => {
                    let base = row.expected();
                    self.changes.push(Change { first: row, row, base, version: base + 1 });
                    self.index.insert(key, next);
                    if let (0, Unique::Number(number)) = (base, row.unique()) {
                        self.numbers.insert((row.merchant(), number), next);
                    }
                }
            }
        }
    }
}

/// What becomes of an intent.
pub(crate) struct IntentWrite<'b> {
    pub key: IntentKey<'b>,
    was: Option<IntentState>,
    pub now: Option<IntentState>,
}

impl IntentWrite<'_> {
    pub fn is_change(&self) -> bool {
        self.was != self.now
    }
}

#[derive(Default)]
pub(crate) struct Intents<'b> {
    pub writes: Vec<IntentWrite<'b>>,
    index: HashMap<IntentKey<'b>, usize>,
}

impl<'b> Intents<'b> {
    fn apply<F: Facts>(&mut self, list: &'b [IntentChange], facts: &mut F) -> Result<(), F::Error> {
        for change in list {
            let key = intent_key(change);
            let slot = match self.index.get(&key) {
                Some(known) => *known,
                None => {
                    let was = facts.intent(key)?;
                    self.writes.push(IntentWrite { key, now: was.clone(), was });
                    self.index.insert(key, self.writes.len() - 1);
                    self.writes.len() - 1
                }
            };
            let now = &mut self.writes[slot].now;
            *now = after(now.take(), change);
        }
        Ok(())
    }
}

fn after(now: Option<IntentState>, change: &IntentChange) -> Option<IntentState> {
    match change {
        IntentChange::Schedule(it) => {
            let holder = now.and_then(|it| it.holder).or_else(|| it.holder.clone());
            Some(IntentState { due_ms: it.due.ms(), tries: it.tries, holder })
        }
        IntentChange::Finish { .. } => None,
        IntentChange::Settle { claimed, next } => {
            let now = now?;
            if now.holder != claimed.holder {
                return Some(now);
            }
            if !same_try(&now, claimed) {
                return Some(IntentState { holder: None, ..now });
            }
            let (due, tries) = (*next)?;
            Some(IntentState { due_ms: due.ms(), tries, holder: None })
        }
    }
}

fn same_try(now: &IntentState, claimed: &Intent) -> bool {
    (now.due_ms, now.tries) == (claimed.due.ms(), claimed.tries)
}

/// A part of an account and what the batch moves on it.
pub(crate) struct Line<'b> {
    pub merchant: &'b str,
    pub account: &'b str,
    pub moved: Balance,
    /// What was there before the batch, if anybody had to know.
    pub held: Option<Balance>,
}

#[derive(Default)]
pub(crate) struct Books<'b> {
    pub lines: Vec<Line<'b>>,
    index: HashMap<(&'b str, &'b str), usize>,
}

impl<'b> Books<'b> {
    /// Posts a commit's journals, all of them or none.
    fn post<F: Facts>(
        &mut self,
        commit: &'b Prepared,
        facts: &mut F,
    ) -> Result<Result<(), CommitError>, F::Error> {
        if commit.journals.is_empty() {
            return Ok(Ok(()));
        }
        let mut slots = Vec::with_capacity(commit.accounts.len());
        let mut before = vec![Balance::default(); commit.accounts.len()];
        for (index, drawn) in drawn(commit).into_iter().enumerate() {
            let it = &commit.accounts[index];
            let slot = self.slot(it.merchant.as_str(), &it.name);
            slots.push(slot);
            if drawn || facts.looks_at_all() {
                let line = &mut self.lines[slot];
                let held = match line.held {
                    Some(held) => held,
                    None => *line.held.insert(facts.balance(line.merchant, line.account)?),
                };
                let Some(sum) = plus(held, line.moved) else {
                    let account = it.account.clone();
                    return Ok(Err(CommitError::Books(BalanceError::Overflow { account })));
                };
                before[index] = sum;
            }
        }
        let mut now = before.clone();
        for posting in commit.journals.iter().flat_map(|it| &it.postings) {
            for (index, side) in [(posting.debit, Side::Debit), (posting.credit, Side::Credit)] {
                match now[index].post(&commit.accounts[index].account, side, posting.amount) {
                    Ok(balance) => now[index] = balance,
                    Err(error) => return Ok(Err(CommitError::Books(error))),
                }
            }
        }
        let mut moved = Vec::with_capacity(slots.len());
        for (index, slot) in slots.into_iter().enumerate() {
            let by = Balance {
                debit_minor: now[index].debit_minor - before[index].debit_minor,
                credit_minor: now[index].credit_minor - before[index].credit_minor,
            };
            let Some(sum) = plus(self.lines[slot].moved, by) else {
                let account = commit.accounts[index].account.clone();
                return Ok(Err(CommitError::Books(BalanceError::Overflow { account })));
            };
            moved.push((slot, sum));
        }
        for (slot, sum) in moved {
            self.lines[slot].moved = sum;
        }
        Ok(Ok(()))
    }

    fn slot(&mut self, merchant: &'b str, account: &'b str) -> usize {
        *self.index.entry((merchant, account)).or_insert_with(|| {
            let moved = Balance::default();
            self.lines.push(Line { merchant, account, moved, held: None });
            self.lines.len() - 1
        })
    }
}

fn plus(a: Balance, b: Balance) -> Option<Balance> {
    Some(Balance {
        debit_minor: a.debit_minor.checked_add(b.debit_minor)?,
        credit_minor: a.credit_minor.checked_add(b.credit_minor)?,
    })
}

/// An amount with which an account may overflow, whatever is on its other parts.
const HUGE: i128 = 1 << 56;

/// Which of a commit's accounts give something that the commit did not bring: whether they have it
/// must be looked up. The others only grow, and are looked at only if it is by very much.
pub(crate) fn drawn(commit: &Prepared) -> Vec<bool> {
    let mut held = vec![0_i128; commit.accounts.len()];
    let mut drawn = vec![false; commit.accounts.len()];
    for posting in commit.journals.iter().flat_map(|it| &it.postings) {
        for (index, side) in [(posting.debit, Side::Debit), (posting.credit, Side::Credit)] {
            let kind = commit.accounts[index].account.kind;
            let minor = i128::from(posting.amount.minor());
            held[index] += if kind.side() == side { minor } else { -minor };
            drawn[index] |= kind.is_guarded() && held[index] < 0 || minor >= HUGE;
        }
    }
    drawn
}

/// What a batch of commits comes to.
#[derive(Default)]
pub(crate) struct Outcome<'b> {
    pub answers: Vec<Result<(), CommitError>>,
    pub merchants: Rows<'b, MerchantRow>,
    pub payments: Rows<'b, PaymentRow>,
    pub refunds: Rows<'b, RefundRow>,
    pub notifications: Rows<'b, NotificationRow>,
    pub intents: Intents<'b>,
    pub books: Books<'b>,
    /// The commits that hold, for what is only ever added: tries and postings.
    pub held: Vec<&'b Prepared>,
}

pub(crate) fn decide<'b, F: Facts>(
    batch: &'b [Prepared],
    facts: &mut F,
) -> Result<Outcome<'b>, F::Error> {
    let mut outcome = Outcome::default();
    for commit in batch {
        let verdict = outcome.take(commit, facts)?;
        outcome.answers.push(verdict);
    }
    Ok(outcome)
}

impl<'b> Outcome<'b> {
    fn take<F: Facts>(
        &mut self,
        commit: &'b Prepared,
        facts: &mut F,
    ) -> Result<Result<(), CommitError>, F::Error> {
        let checks = [
            self.merchants.check(&commit.merchants, facts)?,
            self.payments.check(&commit.payments, facts)?,
            self.refunds.check(&commit.refunds, facts)?,
            self.notifications.check(&commit.notifications, facts)?,
        ];
        if let Some(refused) = checks.into_iter().find(Result::is_err) {
            return Ok(refused);
        }
        // The last of the checks: balances move only if it holds.
        if let Err(refused) = self.books.post(commit, facts)? {
            return Ok(Err(refused));
        }
        self.merchants.apply(&commit.merchants);
        self.payments.apply(&commit.payments);
        self.refunds.apply(&commit.refunds);
        self.notifications.apply(&commit.notifications);
        self.intents.apply(&commit.intents, facts)?;
        self.held.push(commit);
        Ok(Ok(()))
    }
}
