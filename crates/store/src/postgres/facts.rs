//! What a batch needs to know, read and locked at once.
//!
//! Rows are locked in one order everywhere: table by table, in each by its key. A batch writes only
//! rows that it has locked or that nobody can see yet, so two writers wait for each other in one
//! direction only, and there are no dead-locks.
//!
//! What is drawn from an account is booked on its stripe [`DRAWS`]: who draws holds that one, and
//! only then adds all stripes up. The others only grow, and growing needs no leave.

use super::writer::Op;
use crate::batch::{Facts, IntentKey, IntentState, Row, Table, Unique, drawn, intent_key};
use crate::rows::Prepared;
use ledger::Balance;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;

type Key<'b> = (&'b str, &'b str);

/// The keys of a batch.
#[derive(Default)]
pub(crate) struct Needs<'b> {
    versions: BTreeMap<Table, BTreeSet<Key<'b>>>,
    numbers: BTreeMap<Table, BTreeSet<Key<'b>>>,
    intents: BTreeSet<IntentKey<'b>>,
    /// Parts of accounts; true: something is drawn from it.
    accounts: BTreeMap<Key<'b>, bool>,
}

impl<'b> Needs<'b> {
    /// - Input: `look` at every balance, also at those that only grow.
    pub fn of(batch: &'b [Prepared], look: bool) -> Needs<'b> {
        let mut needs = Needs::default();
        for commit in batch {
            needs.rows(&commit.merchants);
            needs.rows(&commit.payments);
            needs.rows(&commit.refunds);
            needs.rows(&commit.notifications);
            needs.intents.extend(commit.intents.iter().map(intent_key));
            for (it, drawn) in commit.accounts.iter().zip(drawn(commit)) {
                let key = (it.merchant.as_str(), it.name.as_str());
                *needs.accounts.entry(key).or_default() |= drawn || look;
            }
        }
        needs
    }

    fn rows<R: Row>(&mut self, rows: &'b [R]) {
        for row in rows {
            let merchant = row.merchant();
            let by_key = self.versions.entry(R::TABLE).or_default();
            match (row.expected(), row.unique()) {
                (0, Unique::Number(number)) => {
                    self.numbers.entry(R::TABLE).or_default().insert((merchant, number));
                }
                (0, Unique::Drawn) => {}
                (_, Unique::Number(_) | Unique::Drawn | Unique::Key) => {
                    by_key.insert((merchant, row.key()));
                }
            }
        }
    }

    /// The statements that bring the facts, in the order of locking.
    pub fn asks(&self, stripe: i64) -> Vec<(Ask, Op<'b>)> {
        let mut asks = Vec::new();
        for (table, keys) in &self.versions {
            if !keys.is_empty() {
                let (merchants, keys) = split(keys);
                let op = Op::new(lock_versions(*table)).with(merchants).with(keys);
                asks.push((Ask::Versions(*table), op));
            }
        }
        for (table, numbers) in &self.numbers {
            let (merchants, numbers) = split(numbers);
            let op = Op::new(find_numbers(*table)).with(merchants).with(numbers);
            asks.push((Ask::Numbers(*table), op));
        }
        if !self.intents.is_empty() {
            let column = |pick: fn(&IntentKey<'b>) -> &'b str| -> Vec<&'b str> {
                self.intents.iter().map(pick).collect()
            };
            let op = Op::new(LOCK_INTENTS);
            let op = op.with(column(|it| it.0)).with(column(|it| it.1)).with(column(|it| it.2));
            asks.push((Ask::Intents, op));
        }
        if !self.accounts.is_empty() {
            let merchants: Vec<_> = self.accounts.keys().map(|it| it.0).collect();
            let accounts: Vec<_> = self.accounts.keys().map(|it| it.1).collect();
            let stripe = |drawn: &bool| if *drawn { DRAWS } else { stripe };
            let stripes: Vec<i64> = self.accounts.values().map(stripe).collect();
            let (drawn, of): (Vec<_>, Vec<_>) =
                self.accounts.iter().filter(|it| *it.1).map(|it| *it.0).unzip();
            if !drawn.is_empty() {
                let op = Op::new(MAKE_DRAWS).with(drawn.clone()).with(of.clone());
                asks.push((Ask::Nothing, op));
            }
            let op = Op::new(LOCK_BALANCES).with(merchants).with(accounts).with(stripes);
            asks.push((Ask::Nothing, op));
            let (grown, of_grown): (Vec<_>, Vec<_>) =
                self.accounts.iter().filter(|it| !*it.1).map(|it| *it.0).unzip();
            if !grown.is_empty() {
                asks.push((Ask::Full, Op::new(FIND_FULL).with(grown).with(of_grown)));
            }
            if !drawn.is_empty() {
                asks.push((Ask::Balances, Op::new(ADD_UP).with(drawn).with(of)));
            }
        }
        asks
    }
}

fn split<'b>(keys: &BTreeSet<Key<'b>>) -> (Vec<&'b str>, Vec<&'b str>) {
    keys.iter().copied().unzip()
}

/// The stripe on which draws are booked. Writers that only add have others.
pub(crate) const DRAWS: i64 = 0;

fn lock_versions(table: Table) -> &'static str {
    match table {
        Table::Merchant => {
            "SELECT it.id, it.id, it.version FROM merchant AS it \
             JOIN UNNEST($1::TEXT[], $2::TEXT[]) AS n (merchant, key) ON it.id = n.merchant \
             ORDER BY it.id FOR UPDATE OF it"
        }
        Table::Payment => {
            "SELECT it.merchant, it.serial, it.version FROM payment AS it \
             JOIN UNNEST($1::TEXT[], $2::TEXT[]) AS n (merchant, key) \
             ON it.merchant = n.merchant AND it.serial = n.key{of_one} \
             ORDER BY it.merchant, it.serial FOR UPDATE OF it"
        }
        Table::Refund => {
            "SELECT it.merchant, it.serial, it.version FROM refund AS it \
             JOIN UNNEST($1::TEXT[], $2::TEXT[]) AS n (merchant, key) \
             ON it.merchant = n.merchant AND it.serial = n.key{of_one} \
             ORDER BY it.merchant, it.serial FOR UPDATE OF it"
        }
        Table::Notification => {
            "SELECT it.merchant, it.id, it.version FROM notification AS it \
             JOIN UNNEST($1::TEXT[], $2::TEXT[]) AS n (merchant, key) \
             ON it.merchant = n.merchant AND it.id = n.key{of_one} \
             ORDER BY it.merchant, it.id FOR UPDATE OF it"
        }
    }
}

fn find_numbers(table: Table) -> &'static str {
    match table {
        Table::Payment | Table::Merchant | Table::Notification => {
            "SELECT it.merchant, it.order_no, it.version FROM payment AS it \
             JOIN UNNEST($1::TEXT[], $2::TEXT[]) AS n (merchant, number) \
             ON it.merchant = n.merchant AND it.order_no = n.number{of_one}"
        }
        Table::Refund => {
            "SELECT it.merchant, it.refund_no, it.version FROM refund AS it \
             JOIN UNNEST($1::TEXT[], $2::TEXT[]) AS n (merchant, number) \
             ON it.merchant = n.merchant AND it.refund_no = n.number{of_one}"
        }
    }
}

const LOCK_INTENTS: &str = "SELECT it.merchant, it.kind, it.subject, it.due_ms, it.tries, it.holder \
     FROM intent AS it JOIN UNNEST($1::TEXT[], $2::TEXT[], $3::TEXT[]) AS n (merchant, kind, \
     subject) ON it.merchant = n.merchant AND it.kind = n.kind AND it.subject = n.subject{of_one} \
     ORDER BY it.merchant, it.kind, it.subject FOR UPDATE OF it";

/// So that there is something to lock.
const MAKE_DRAWS: &str = "INSERT INTO balance (merchant, account, stripe, debit_minor, \
     credit_minor) SELECT merchant, account, 0, 0, 0 FROM UNNEST($1::TEXT[], $2::TEXT[]) \
     AS n (merchant, account) ON CONFLICT (merchant, account, stripe) DO NOTHING";

const LOCK_BALANCES: &str = "SELECT 1 FROM balance AS it \
     JOIN UNNEST($1::TEXT[], $2::TEXT[], $3::BIGINT[]) AS n (merchant, account, stripe) \
     ON it.merchant = n.merchant AND it.account = n.account AND it.stripe = n.stripe{of_one} \
     ORDER BY it.merchant, it.account, it.stripe FOR UPDATE OF it";

/// Accounts on which even a small sum may be too much: what is very large is on the stripe of draws.
const FIND_FULL: &str = "SELECT 1 FROM balance AS it \
     JOIN UNNEST($1::TEXT[], $2::TEXT[]) AS n (merchant, account) \
     ON it.merchant = n.merchant AND it.account = n.account AND it.stripe = 0{of_one} \
     WHERE it.debit_minor > 4611686018427387904 OR it.credit_minor > 4611686018427387904";

/// A statement after the locks: what it sees was committed no earlier than they were ours.
const ADD_UP: &str = "SELECT it.merchant, it.account, \
     LEAST(SUM(it.debit_minor), 9223372036854775807)::BIGINT, \
     LEAST(SUM(it.credit_minor), 9223372036854775807)::BIGINT \
     FROM balance AS it JOIN UNNEST($1::TEXT[], $2::TEXT[]) AS n (merchant, account) \
     ON it.merchant = n.merchant AND it.account = n.account{of_one} \
     GROUP BY it.merchant, it.account";

#[derive(Clone, Copy)]
pub(crate) enum Ask {
    Versions(Table),
    Numbers(Table),
    Intents,
    Balances,
    Full,
    /// It is only there for its effect.
    Nothing,
}

/// What the database said.
#[derive(Default)]
pub(crate) struct Known {
    versions: HashMap<(Table, String, String), u32>,
    numbers: HashMap<(Table, String, String), u32>,
    intents: HashMap<(String, String, String), IntentState>,
    /// Of accounts that are drawn from.
    balances: HashMap<(String, String), Balance>,
    looked_at_all: bool,
    /// An account that nobody looked at is nearly full.
    pub full: bool,
}

/// PostgreSQL's integers are wider than what we count.
fn count(it: i64) -> u32 {
    u32::try_from(it).unwrap_or(u32::MAX)
}

impl Known {
    pub fn new(looked_at_all: bool) -> Known {
        Known { looked_at_all, ..Known::default() }
    }

    pub fn learn(
        &mut self,
        ask: Ask,
        rows: &[tokio_postgres::Row],
    ) -> Result<(), tokio_postgres::Error> {
        for row in rows {
            match ask {
                Ask::Versions(table) => {
                    let key = (table, row.try_get(0)?, row.try_get(1)?);
                    self.versions.insert(key, count(row.try_get(2)?));
                }
                Ask::Numbers(table) => {
                    let key = (table, row.try_get(0)?, row.try_get(1)?);
                    self.numbers.insert(key, count(row.try_get(2)?));
                }
                Ask::Intents => {
                    let key = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                    let state = IntentState {
                        due_ms: row.try_get(3)?,
                        tries: count(row.try_get(4)?),
                        holder: row.try_get(5)?,
                    };
                    self.intents.insert(key, state);
                }
                Ask::Balances => {
                    let key = (row.try_get(0)?, row.try_get(1)?);
                    let (debit_minor, credit_minor) = (row.try_get(2)?, row.try_get(3)?);
                    self.balances.insert(key, Balance { debit_minor, credit_minor });
                }
                Ask::Full => self.full = true,
                Ask::Nothing => {}
            }
        }
        Ok(())
    }

    /// Whether the part of an account is ours to draw from.
    pub fn may_draw(&self, merchant: &str, account: &str) -> bool {
        self.balances.contains_key(&(merchant.into(), account.into()))
    }
}

impl Facts for Known {
    type Error = Infallible;

    fn version(
        &mut self,
        table: Table,
        merchant: &str,
        key: &str,
    ) -> Result<Option<u32>, Infallible> {
        Ok(self.versions.get(&(table, merchant.into(), key.into())).copied())
    }

    fn numbered(
        &mut self,
        table: Table,
        merchant: &str,
        number: &str,
    ) -> Result<Option<u32>, Infallible> {
        Ok(self.numbers.get(&(table, merchant.into(), number.into())).copied())
    }

    fn intent(&mut self, key: IntentKey<'_>) -> Result<Option<IntentState>, Infallible> {
        let key = (key.0.to_owned(), key.1.to_owned(), key.2.to_owned());
        Ok(self.intents.remove(&key))
    }

    fn balance(&mut self, merchant: &str, account: &str) -> Result<Balance, Infallible> {
        Ok(self.balances.get(&(merchant.into(), account.into())).copied().unwrap_or_default())
    }

    fn looks_at_all(&self) -> bool {
        self.looked_at_all
    }
}
