//! A writer: takes what queued while its last batch was made durable, and makes that durable.
//!
//! A batch is one transaction and two trips: facts are read and locked, the batch is decided in
//! memory ([`crate::batch`]), everything is written in statements of many rows and committed.
//! Until the second trip starts nothing can be written; after that, silence means that nobody
//! knows.

use super::connect::{PostgresError, PostgresUrl, Session, told};
use super::facts::{DRAWS, Known, Needs};
use crate::batch::{Change, Outcome, Unique, decide};
use crate::figures::Done;
use crate::rows::{Prepared, TryRow};
use app::CommitError;
use futures::future::join_all;
use ledger::Balance;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Commits that one transaction takes at most.
const BATCH: usize = 1024;
/// How long a new session may take.
const OPENED_WITHIN: Duration = Duration::from_secs(5);
/// How long facts and locks may take. The server gives up on a lock before.
const FACTS_WITHIN: Duration = Duration::from_secs(10);
/// How long the writing may take; then nobody knows what became of it.
const WRITTEN_WITHIN: Duration = Duration::from_secs(15);
/// How often a batch that the server undid for the sake of another is tried again.
const AGAIN: u32 = 8;

/// One statement and its values: arrays, a value for each row. `{of_one}` stands where a statement
/// that concerns one merchant only says so, for a database that is distributed by merchant.
pub(crate) struct Op<'b> {
    sql: &'static str,
    values: Vec<Box<dyn ToSql + Sync + Send + 'b>>,
}

const OF_ONE: &str = "{of_one}";

impl<'b> Op<'b> {
    pub fn new(sql: &'static str) -> Op<'b> {
        Op { sql, values: Vec::with_capacity(12) }
    }

    pub fn with(mut self, values: impl ToSql + Sync + Send + 'b) -> Op<'b> {
        self.values.push(Box::new(values));
        self
    }
}

pub(crate) struct Waiting {
    pub commit: Prepared,
    pub answer: oneshot::Sender<Answer>,
}

/// The commit goes back with its answer: its caller takes it apart, not the writer.
pub(crate) type Answer = (Result<(), CommitError>, Prepared);

/// Where a batch broke.
enum Failure {
    /// No server to talk to, or it went away before it could write anything.
    Gone(String),
    /// The server undid it for the sake of another transaction: again, it may succeed.
    Yielded(String),
    /// A key refused it.
    Slip(String),
    Refused(String),
    /// It was being committed when the server fell silent.
    Unknown(String),
}

impl Failure {
    /// What the server said before anything was committed.
    fn told(error: &tokio_postgres::Error) -> Failure {
        let text = told(error);
        let Some(state) = error.code() else { return Failure::Gone(text) };
        match *state {
            SqlState::T_R_SERIALIZATION_FAILURE
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::LOCK_NOT_AVAILABLE => Failure::Yielded(text),
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::READ_ONLY_SQL_TRANSACTION => Failure::Gone(text),
            // Classes 22 and 23: a value or a key.
            _ if state.code().starts_with("22") || state.code().starts_with("23") => {
                Failure::Slip(text)
            }
            _ => Failure::Refused(text),
        }
    }

    fn answer(&self) -> CommitError {
        match self {
            Failure::Slip(text) => CommitError::Exists(format!("a number in the commit ({text})")),
            Failure::Gone(text) | Failure::Yielded(text) | Failure::Refused(text) => {
                CommitError::Refused(text.clone())
            }
            Failure::Unknown(text) => CommitError::Unknown(text.clone()),
        }
    }
}

/// A session with its statements prepared.
struct Open {
    session: Session,
    statements: HashMap<&'static str, Statement>,
    /// Which stripe of an account that only grows is ours. Two writers on one stripe are correct,
    /// and wait for each other.
    stripe: i64,
}

pub(crate) struct Writer {
    /// The tables are distributed by merchant: a transaction takes commits of one merchant and so
    /// stays on one machine.
    distributed: bool,
    url: PostgresUrl,
    tls: MakeRustlsConnect,
    open: Option<Open>,
    done: Arc<Done>,
}

/// Of an account that many writers add to.
const STRIPES: i32 = 32;
/// The first half of the advisory locks that stand for stripes: "feiq" in ASCII.
const STRIPE_LOCK: i32 = 0x6665_6971;

/// A stripe that no other living writer has, as long as there are enough of them.
async fn own_stripe(client: &Client) -> Result<i64, tokio_postgres::Error> {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
    let first = row.get::<_, i32>(0) % STRIPES;
    let lock = "SELECT pg_try_advisory_lock($1, $2)";
    for stripe in (0..STRIPES).map(|it| (first + it) % STRIPES) {
        if client.query_one(lock, &[&STRIPE_LOCK, &stripe]).await?.get(0) {
            return Ok(DRAWS + 1 + i64::from(stripe));
        }
    }
    Ok(DRAWS + 1 + i64::from(first))
}

/// Writers look rows up by key and nothing else; no statistics of a young table shall tell the
/// planner otherwise.
const BY_KEY: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; \
                      SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan";

/// Facts are read in statements of their own snapshots, whatever the server's default is: what was
/// waited for is then seen.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

impl Writer {
    pub fn new(
        url: PostgresUrl,
        tls: MakeRustlsConnect,
        distributed: bool,
        done: Arc<Done>,
    ) -> Writer {
        Writer { distributed, url, tls, open: None, done }
    }

    pub async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            if self.distributed {
                // Stable: a merchant's commits stay in their order.
                batch.sort_by(|a, b| a.commit.merchant().cmp(b.commit.merchant()));
            }
            let (commits, answers): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|it| (it.commit, it.answer)).unzip();
            let results = self.apply(&commits).await;
            self.done.count(commits.len());
            for (answer, result) in answers.into_iter().zip(results.into_iter().zip(commits)) {
                // A caller that has gone away does not mind.
                answer.send(result).ok();
            }
        }
    }

    /// Applies commits in order. Answers in the same order.
    async fn apply(&mut self, batch: &[Prepared]) -> Vec<Result<(), CommitError>> {
        let mut answers = Vec::with_capacity(batch.len());
        let mut parts = match self.distributed {
            true => batch.chunk_by(|a, b| a.merchant() == b.merchant()).rev().collect(),
            false => vec![batch],
        };
        while let Some(part) = parts.pop() {
            match self.together(part).await {
                Ok(list) => answers.extend(list),
                Err(Failure::Slip(problem)) if part.len() > 1 => {
                    tracing::warn!(%problem, commits = part.len(), "a batch is halved");
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                Err(failure) => {
                    let answer = failure.answer();
                    tracing::warn!(%answer, commits = part.len(), "a batch was not written");
                    answers.extend(part.iter().map(|_| Err(answer.clone())));
                }
            }
        }
        answers
    }

    /// One transaction, again where that may help.
    async fn together(
        &mut self,
        batch: &[Prepared],
    ) -> Result<Vec<Result<(), CommitError>>, Failure> {
        let mut left = AGAIN;
        let mut slipped = false;
        loop {
            let fresh = self.open.is_none();
            let failure = match self.once(batch, slipped).await {
                Ok(answers) => return Ok(answers),
                Err(failure) => failure,
            };
            match &failure {
                // A session that had been idle may have lost its server: a new one, once.
                Failure::Gone(_) => {
                    self.open = None;
                    if fresh {
                        return Err(failure);
                    }
                }
                // Another process inserted the key after we had looked, or a balance that nobody
                // looked at is full: the next look finds it.
                Failure::Slip(_) if !slipped => slipped = true,
                Failure::Yielded(_) if left > 0 => left -= 1,
                Failure::Unknown(_) => {
                    self.open = None;
                    return Err(failure);
                }
                Failure::Slip(_) | Failure::Yielded(_) | Failure::Refused(_) => {
                    return Err(failure);
                }
            }
        }
    }

    async fn once(
        &mut self,
        batch: &[Prepared],
        look: bool,
    ) -> Result<Vec<Result<(), CommitError>>, Failure> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&self.url, &self.tls)
                .await
                .map_err(|error| Failure::Gone(error.to_string()))?,
        };
        let open = self.open.insert(open);
        let one = batch.first().filter(|_| self.distributed).map(Prepared::merchant);
        let gathered = tokio::time::timeout(FACTS_WITHIN, open.facts(batch, look, one)).await;
        let gathered = gathered.unwrap_or_else(|_| {
            Err(Failure::Gone(format!("no answer within {} s", FACTS_WITHIN.as_secs())))
        });
        let mut known = match gathered {
            Ok(known) => known,
            Err(failure) => {
                open.roll_back().await;
                return Err(failure);
            }
        };
        if known.full {
            open.roll_back().await;
            return Err(Failure::Slip("an account is nearly full".into()));
        }
        let Ok(outcome) = decide(batch, &mut known);
        let ops = writes(&outcome, &known, open.stripe);
        if ops.is_empty() {
            open.roll_back().await;
            return Ok(outcome.answers);
        }
        let written = tokio::time::timeout(WRITTEN_WITHIN, open.write(&ops, one)).await;
        written.unwrap_or_else(|_| {
            Err(Failure::Unknown(format!("no answer within {} s", WRITTEN_WITHIN.as_secs())))
        })?;
        Ok(outcome.answers)
    }
}

impl Open {
    async fn new(url: &PostgresUrl, tls: &MakeRustlsConnect) -> Result<Open, PostgresError> {
        let opened = tokio::time::timeout(OPENED_WITHIN, async {
            let session = Session::open(url, tls).await?;
            session.client.batch_execute(BY_KEY).await?;
            let stripe = own_stripe(&session.client).await?;
            Ok(Open { session, statements: HashMap::new(), stripe })
        });
        let late = |_| PostgresError::Database(format!("no answer within {OPENED_WITHIN:?}"));
        opened.await.map_err(late)?
    }

    async fn prepare<'o, 'b: 'o>(
        &mut self,
        ops: impl Iterator<Item = &'o Op<'b>>,
        of_one: bool,
    ) -> Result<(), Failure> {
        for Op { sql, values } in ops {
            if !self.statements.contains_key(sql) {
                let of_one = match of_one {
                    true => format!(" AND it.merchant = ${}", values.len() + 1),
                    false => String::new(),
                };
                let prepared = self.session.client.prepare(&sql.replace(OF_ONE, &of_one)).await;
                self.statements.insert(sql, prepared.map_err(|error| Failure::told(&error))?);
            }
        }
        Ok(())
    }

    /// Begins, locks and reads, in one trip.
    async fn facts(
        &mut self,
        batch: &[Prepared],
        look: bool,
        one: Option<&str>,
    ) -> Result<Known, Failure> {
        let needs = Needs::of(batch, look);
        let asks = needs.asks(self.stripe);
        self.prepare(asks.iter().map(|it| &it.1), one.is_some()).await?;
        let client = &self.session.client;
        let begin = client.batch_execute(BEGIN);
        let queries = join_all(asks.iter().map(|it| self.query(&it.1, one.as_ref())));
        let (begun, answers) = futures::join!(begin, queries);
        begun.map_err(|error| Failure::told(&error))?;
        let mut known = Known::new(look);
        for ((ask, _), rows) in asks.iter().zip(answers) {
            let rows = rows.map_err(|error| Failure::told(&error))?;
            known.learn(*ask, &rows).map_err(|error| Failure::Refused(told(&error)))?;
        }
        Ok(known)
    }

    /// Writes and commits, in one trip. If a statement fails, the commit at the end undoes all.
    async fn write(&mut self, ops: &[Op<'_>], one: Option<&str>) -> Result<(), Failure> {
        if let Err(failure) = self.prepare(ops.iter(), one.is_some()).await {
            self.roll_back().await;
            return Err(failure);
        }
        self.session.unconfirmed.store(false, Ordering::SeqCst);
        let client = &self.session.client;
        let statements = join_all(ops.iter().map(|it| self.query(it, one.as_ref())));
        let (answers, committed) = futures::join!(statements, client.batch_execute("COMMIT"));
        for answer in answers {
            if let Err(error) = answer {
                return Err(match error.code() {
                    Some(_) => Failure::told(&error),
                    None => Failure::Unknown(told(&error)),
                });
            }
        }
        committed.map_err(|error| Failure::Unknown(told(&error)))?;
        match self.session.unconfirmed.load(Ordering::SeqCst) {
            true => Err(Failure::Unknown("the standby did not confirm".into())),
            false => Ok(()),
        }
    }

    async fn query(
        &self,
        op: &Op<'_>,
        one: Option<&&str>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let mut values: Vec<&(dyn ToSql + Sync)> =
            op.values.iter().map(|it| &**it as &(dyn ToSql + Sync)).collect();
        if let Some(one) = one.filter(|_| op.sql.contains(OF_ONE)) {
            values.push(one);
        }
        self.session.client.query(&self.statements[op.sql], &values).await
    }

    async fn roll_back(&self) {
        let rolled = self.session.client.batch_execute("ROLLBACK");
        // If it cannot be said, the connection is gone and the server undoes it.
        tokio::time::timeout(Duration::from_secs(2), rolled).await.ok();
    }
}

/// Puts one value of each row into an array.
macro_rules! column {
    ($rows:expr, |$it:pat_param| $value:expr) => {
        $rows.iter().map(|$it| $value).collect::<Vec<_>>()
    };
}

fn new_and_changed<'a, 'b, R: crate::batch::Row>(
    changes: &'a [Change<'b, R>],
) -> (Vec<&'a Change<'b, R>>, Vec<&'a Change<'b, R>>) {
    let mut sorted: Vec<_> = changes.iter().collect();
    // Whoever inserts the same numbers meets them in the same order: one waits, not both.
    sorted.sort_by_key(|it| {
        let number = match it.row.unique() {
            Unique::Number(number) if it.base == 0 => number,
            Unique::Number(_) | Unique::Key | Unique::Drawn => it.row.key(),
        };
        (it.row.merchant(), number)
    });
    sorted.into_iter().partition(|it| it.base == 0)
}

fn writes<'b>(outcome: &Outcome<'b>, known: &Known, stripe: i64) -> Vec<Op<'b>> {
    let mut ops = Vec::new();
    write_merchants(&mut ops, outcome);
    write_payments(&mut ops, outcome);
    write_refunds(&mut ops, outcome);
    write_notifications(&mut ops, outcome);
    write_tries(&mut ops, outcome);
    write_postings(&mut ops, outcome);
    write_intents(&mut ops, outcome);
    write_balances(&mut ops, outcome, known, stripe);
    ops
}

fn write_merchants<'b>(ops: &mut Vec<Op<'b>>, outcome: &Outcome<'b>) {
    let (new, changed) = new_and_changed(&outcome.merchants.changes);
    let insert = "INSERT INTO merchant (id, version, body) \
                  SELECT * FROM UNNEST($1::TEXT[], $2::BIGINT[], $3::TEXT[])";
    let update = "UPDATE merchant AS it SET version = n.version, body = n.body \
                  FROM UNNEST($1::TEXT[], $2::BIGINT[], $3::TEXT[]) AS n (id, version, body) \
                  WHERE it.id = n.id";
    for (sql, rows) in [(insert, new), (update, changed)] {
        if !rows.is_empty() {
            let op = Op::new(sql)
                .with(column!(rows, |it| it.row.id.as_str()))
                .with(column!(rows, |it| i64::from(it.version)))
                .with(column!(rows, |it| it.row.body.as_str()));
            ops.push(op);
        }
    }
}

fn write_payments<'b>(ops: &mut Vec<Op<'b>>, outcome: &Outcome<'b>) {
    let (new, changed) = new_and_changed(&outcome.payments.changes);
    let insert = "INSERT INTO payment (merchant, serial, version, state, paid_ms, doubt_ms, body, \
                  order_no, amount_minor, currency, created_ms) SELECT * FROM UNNEST($1::TEXT[], \
                  $2::TEXT[], $3::BIGINT[], $4::TEXT[], $5::BIGINT[], $6::BIGINT[], $7::TEXT[], \
                  $8::TEXT[], $9::BIGINT[], $10::TEXT[], $11::BIGINT[])";
    let update = "UPDATE payment AS it SET version = n.version, state = n.state, \
                  paid_ms = n.paid_ms, doubt_ms = n.doubt_ms, body = n.body FROM \
                  UNNEST($1::TEXT[], $2::TEXT[], $3::BIGINT[], $4::TEXT[], $5::BIGINT[], \
                  $6::BIGINT[], $7::TEXT[]) AS n (merchant, serial, version, state, paid_ms, \
                  doubt_ms, body) WHERE it.merchant = n.merchant AND it.serial = n.serial{of_one}";
    for (sql, rows, is_new) in [(insert, new, true), (update, changed, false)] {
        if rows.is_empty() {
            continue;
        }
        let op = Op::new(sql)
            .with(column!(rows, |it| it.row.merchant.as_str()))
            .with(column!(rows, |it| it.row.serial.as_str()))
            .with(column!(rows, |it| i64::from(it.version)))
            .with(column!(rows, |it| it.row.state))
            .with(column!(rows, |it| it.row.paid_ms))
            .with(column!(rows, |it| it.row.doubt_ms))
            .with(column!(rows, |it| it.row.body.as_str()));
        ops.push(match is_new {
            false => op,
            true => op
                .with(column!(rows, |it| it.first.order_no.as_str()))
                .with(column!(rows, |it| it.first.amount_minor))
                .with(column!(rows, |it| it.first.currency))
                .with(column!(rows, |it| it.first.created_ms)),
        });
    }
}

fn write_refunds<'b>(ops: &mut Vec<Op<'b>>, outcome: &Outcome<'b>) {
    let (new, changed) = new_and_changed(&outcome.refunds.changes);
    let insert = "INSERT INTO refund (merchant, serial, version, state, body, refund_no, payment, \
                  amount_minor, created_ms) SELECT * FROM UNNEST($1::TEXT[], $2::TEXT[], \
                  $3::BIGINT[], $4::TEXT[], $5::TEXT[], $6::TEXT[], $7::TEXT[], $8::BIGINT[], \
                  $9::BIGINT[])";
    let update = "UPDATE refund AS it SET version = n.version, state = n.state, body = n.body \
                  FROM UNNEST($1::TEXT[], $2::TEXT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[]) \
                  AS n (merchant, serial, version, state, body) \
                  WHERE it.merchant = n.merchant AND it.serial = n.serial{of_one}";
    for (sql, rows, is_new) in [(insert, new, true), (update, changed, false)] {
        if rows.is_empty() {
            continue;
        }
        let op = Op::new(sql)
            .with(column!(rows, |it| it.row.merchant.as_str()))
            .with(column!(rows, |it| it.row.serial.as_str()))
            .with(column!(rows, |it| i64::from(it.version)))
            .with(column!(rows, |it| it.row.state))
            .with(column!(rows, |it| it.row.body.as_str()));
        ops.push(match is_new {
            false => op,
            true => op
                .with(column!(rows, |it| it.first.refund_no.as_str()))
                .with(column!(rows, |it| it.first.payment.as_str()))
                .with(column!(rows, |it| it.first.amount_minor))
                .with(column!(rows, |it| it.first.created_ms)),
        });
    }
}

fn write_notifications<'b>(ops: &mut Vec<Op<'b>>, outcome: &Outcome<'b>) {
    let (new, changed) = new_and_changed(&outcome.notifications.changes);
    let insert = "INSERT INTO notification (merchant, id, version, state, body, payment) \
                  SELECT * FROM UNNEST($1::TEXT[], $2::TEXT[], $3::BIGINT[], $4::TEXT[], \
                  $5::TEXT[], $6::TEXT[])";
    let update = "UPDATE notification AS it SET version = n.version, state = n.state, \
                  body = n.body FROM UNNEST($1::TEXT[], $2::TEXT[], $3::BIGINT[], $4::TEXT[], \
                  $5::TEXT[]) AS n (merchant, id, version, state, body) \
                  WHERE it.merchant = n.merchant AND it.id = n.id{of_one}";
    for (sql, rows, is_new) in [(insert, new, true), (update, changed, false)] {
        if rows.is_empty() {
            continue;
        }
        let op = Op::new(sql)
            .with(column!(rows, |it| it.row.merchant.as_str()))
            .with(column!(rows, |it| it.row.id.as_str()))
            .with(column!(rows, |it| i64::from(it.version)))
            .with(column!(rows, |it| it.row.state))
            .with(column!(rows, |it| it.row.body.as_str()));
        ops.push(match is_new {
            false => op,
            true => op.with(column!(rows, |it| it.first.payment.as_str())),
        });
    }
}

fn write_tries<'b>(ops: &mut Vec<Op<'b>>, outcome: &Outcome<'b>) {
    // Of one try the last word counts, and no statement meets a row twice.
    let all = outcome.held.iter().flat_map(|it| &it.tries);
    let last: std::collections::BTreeMap<_, &TryRow> =
        all.map(|it| ((it.merchant.as_str(), it.notification.as_str(), it.number), it)).collect();
    let rows: Vec<_> = last.into_values().collect();
    if rows.is_empty() {
        return;
    }
    let sql = "INSERT INTO notification_try (merchant, notification, number, at_ms, status, \
               duration_ms, body_head, error) SELECT * FROM UNNEST($1::TEXT[], $2::TEXT[], \
               $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::TEXT[], $8::TEXT[]) \
               ON CONFLICT (merchant, notification, number) DO UPDATE SET \
               at_ms = excluded.at_ms, status = excluded.status, \
               duration_ms = excluded.duration_ms, body_head = excluded.body_head, \
               error = excluded.error";
    let op = Op::new(sql)
        .with(column!(rows, |it| it.merchant.as_str()))
        .with(column!(rows, |it| it.notification.as_str()))
        .with(column!(rows, |it| i64::from(it.number)))
        .with(column!(rows, |it| it.at_ms))
        .with(column!(rows, |it| it.status.map(i64::from)))
        .with(column!(rows, |it| it.duration_ms))
        .with(column!(rows, |it| it.body_head.as_str()))
        .with(column!(rows, |it| it.error.as_deref()));
    ops.push(op);
}

fn write_postings<'b>(ops: &mut Vec<Op<'b>>, outcome: &Outcome<'b>) {
    let mut rows = Vec::new();
    for commit in &outcome.held {
        for journal in &commit.journals {
            for (line, posting) in (0_i64..).zip(&journal.postings) {
                rows.push((*commit, journal, line, posting));
            }
        }
    }
    if rows.is_empty() {
        return;
    }
    rows.sort_by_key(|it| {
        let journal = it.1;
        (&journal.merchant, &journal.payment, &journal.subject, journal.event, it.2)
    });
    let sql = "INSERT INTO posting (merchant, payment, subject, event, line, journal, at_ms, \
               debit, credit, amount_minor) SELECT * FROM UNNEST($1::TEXT[], $2::TEXT[], \
               $3::TEXT[], $4::TEXT[], $5::BIGINT[], $6::TEXT[], $7::BIGINT[], $8::TEXT[], \
               $9::TEXT[], $10::BIGINT[])";
    let op = Op::new(sql)
        .with(column!(rows, |it| it.1.merchant.as_str()))
        .with(column!(rows, |it| it.1.payment.as_str()))
        .with(column!(rows, |it| it.1.subject.as_str()))
        .with(column!(rows, |it| it.1.event))
        .with(column!(rows, |it| it.2))
        .with(column!(rows, |it| it.1.serial.as_str()))
        .with(column!(rows, |it| it.1.at_ms))
        .with(column!(rows, |it| it.0.accounts[it.3.debit].name.as_str()))
        .with(column!(rows, |it| it.0.accounts[it.3.credit].name.as_str()))
        .with(column!(rows, |it| it.3.amount.minor()));
    ops.push(op);
}

fn write_intents<'b>(ops: &mut Vec<Op<'b>>, outcome: &Outcome<'b>) {
    let mut changed: Vec<_> = outcome.intents.writes.iter().filter(|it| it.is_change()).collect();
    changed.sort_by_key(|it| it.key);
    let (kept, gone): (Vec<_>, Vec<_>) = changed.into_iter().partition(|it| it.now.is_some());
    if !kept.is_empty() {
        let sql = "INSERT INTO intent (merchant, kind, subject, due_ms, tries, holder) \
                   SELECT * FROM UNNEST($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::BIGINT[], \
                   $5::BIGINT[], $6::TEXT[]) ON CONFLICT (merchant, kind, subject) DO UPDATE SET \
                   due_ms = excluded.due_ms, tries = excluded.tries, holder = excluded.holder";
        let now = |it: &crate::batch::IntentWrite<'b>| {
            it.now.clone().map_or((0, 0, None), |it| (it.due_ms, i64::from(it.tries), it.holder))
        };
        let states = column!(kept, |it| now(it));
        let op = Op::new(sql)
            .with(column!(kept, |it| it.key.0))
            .with(column!(kept, |it| it.key.1))
            .with(column!(kept, |it| it.key.2))
            .with(column!(states, |it| it.0))
            .with(column!(states, |it| it.1))
            .with(column!(states, |it| it.2.clone()));
        ops.push(op);
    }
    if !gone.is_empty() {
        let sql = "DELETE FROM intent AS it USING UNNEST($1::TEXT[], $2::TEXT[], $3::TEXT[]) \
                   AS n (merchant, kind, subject) WHERE it.merchant = n.merchant \
                   AND it.kind = n.kind AND it.subject = n.subject{of_one}";
        let op = Op::new(sql)
            .with(column!(gone, |it| it.key.0))
            .with(column!(gone, |it| it.key.1))
            .with(column!(gone, |it| it.key.2));
        ops.push(op);
    }
}

fn write_balances<'b>(ops: &mut Vec<Op<'b>>, outcome: &Outcome<'b>, known: &Known, stripe: i64) {
    let moved = outcome.books.lines.iter().filter(|it| it.moved != Balance::default());
    let mut lines: Vec<_> = moved
        .map(|it| {
            let stripe = if known.may_draw(it.merchant, it.account) { DRAWS } else { stripe };
            (it.merchant, it.account, stripe, it.moved)
        })
        .collect();
    lines.sort_by_key(|it| (it.0, it.1, it.2));
    if lines.is_empty() {
        return;
    }
    let sql = "INSERT INTO balance (merchant, account, stripe, debit_minor, credit_minor) \
               SELECT * FROM UNNEST($1::TEXT[], $2::TEXT[], $3::BIGINT[], $4::BIGINT[], \
               $5::BIGINT[]) ON CONFLICT (merchant, account, stripe) DO UPDATE SET \
               debit_minor = balance.debit_minor + excluded.debit_minor, \
               credit_minor = balance.credit_minor + excluded.credit_minor";
    let op = Op::new(sql)
        .with(column!(lines, |it| it.0))
        .with(column!(lines, |it| it.1))
        .with(column!(lines, |it| it.2))
        .with(column!(lines, |it| it.3.debit_minor))
        .with(column!(lines, |it| it.3.credit_minor));
    ops.push(op);
}
