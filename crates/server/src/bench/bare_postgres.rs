//! The limit of `bench ledger` on PostgreSQL: the same rows written by bare loops, one for each of
//! the store's writers, in statements of many rows, one pipelined trip a batch.
//!
//! The loops do no work but the server's own and the protocol's: arrays are at hand before the clock
//! starts, statements are prepared, nothing is looked up, locked, checked, queued or answered.

use crate::cli::Fault;
use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};
use store::{AnyStore, PostgresUrl};
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

/// Tables that a payment writes to: name, columns, and how it is read in the order of payments.
const TABLES: [(&str, &str, &str); 4] = [
    (
        "payment",
        "merchant:T serial:T version:I state:T paid_ms:I doubt_ms:I body:T order_no:T \
         amount_minor:I currency:T created_ms:I",
        "serial",
    ),
    ("notification", "merchant:T id:T version:I state:T body:T payment:T", "payment"),
    (
        "posting",
        "merchant:T payment:T subject:T event:T line:I journal:T at_ms:I debit:T credit:T \
         amount_minor:I",
        "payment",
    ),
    ("intent", "merchant:T kind:T subject:T due_ms:I tries:I holder:T", ""),
];

#[derive(Clone)]
enum Cell {
    Text(Option<String>),
    Int(Option<i64>),
}

type Row = Vec<Cell>;

/// The rows of one payment, by table.
#[derive(Default)]
struct Rows([Vec<Row>; TABLES.len()]);

pub struct BarePostgres {
    source: Client,
    target: String,
    /// The last payment that was read.
    seen: String,
    writers: usize,
}

fn columns(table: usize) -> impl Iterator<Item = (&'static str, bool)> {
    let list = TABLES[table].1.split_whitespace();
    list.filter_map(|it| it.split_once(':')).map(|(name, kind)| (name, kind == "T"))
}

fn arrays(table: usize) -> String {
    let kinds = columns(table).map(|it| if it.1 { "TEXT[]" } else { "BIGINT[]" });
    let marks: Vec<_> = (1..).zip(kinds).map(|(index, kind)| format!("${index}::{kind}")).collect();
    marks.join(", ")
}

fn insert(table: usize) -> String {
    let names: Vec<_> = columns(table).map(|it| it.0).collect();
    let (name, names, arrays) = (TABLES[table].0, names.join(", "), arrays(table));
    format!("INSERT INTO {name} ({names}) SELECT * FROM UNNEST({arrays})")
}

const PUT_BALANCE: &str = "INSERT INTO balance (merchant, account, stripe, debit_minor, credit_minor) \
    SELECT m, a, $5, d, c FROM UNNEST($1::TEXT[], $2::TEXT[], $3::BIGINT[], $4::BIGINT[]) \
    AS n (m, a, d, c) ON CONFLICT (merchant, account, stripe) DO UPDATE SET \
    debit_minor = excluded.debit_minor, credit_minor = excluded.credit_minor";

async fn connect(url: &str) -> Result<Client, Fault> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        connection.await.ok();
    });
    Ok(client)
}

impl BarePostgres {
    /// - Input: addresses of the store that is measured and of an empty database beside it.
    pub async fn new(source: &str, target: &str, writers: usize) -> Result<BarePostgres, Fault> {
        // The same schema: made by the store itself.
        let address = store::Address::Postgres(PostgresUrl::parse(target)?);
        drop(AnyStore::open(&address).await?);
        let source = connect(source).await?;
        Ok(BarePostgres { source, target: target.into(), seen: String::new(), writers })
    }

    /// What was written since the last call.
    async fn fresh(&mut self) -> Result<Vec<Rows>, Fault> {
        let mut commits: BTreeMap<String, Rows> = BTreeMap::new();
        for (index, (table, _, order)) in TABLES.into_iter().enumerate() {
            let names: Vec<_> = columns(index).map(|it| format!("it.{}", it.0)).collect();
            let names = names.join(", ");
            let sql = match table {
                "intent" => format!(
                    "SELECT n.payment, {names} FROM intent AS it JOIN notification AS n \
                     ON n.merchant = it.merchant AND n.id = it.subject WHERE n.payment > $1"
                ),
                _ => format!("SELECT it.{order}, {names} FROM {table} AS it WHERE it.{order} > $1"),
            };
            for row in self.source.query(&sql, &[&self.seen]).await? {
                let cells = columns(index).enumerate().map(|(at, (_, is_text))| match is_text {
                    true => row.try_get(at + 1).map(Cell::Text),
                    false => row.try_get(at + 1).map(Cell::Int),
                });
                let cells = cells.collect::<Result<Row, _>>()?;
                commits.entry(row.try_get(0)?).or_default().0[index].push(cells);
            }
        }
        if let Some((last, _)) = commits.last_key_value() {
            self.seen.clone_from(last);
        }
        Ok(commits.into_values().collect())
    }

    /// Writes what the store has written since the last call, in batches of `batch`. Returns how
    /// long that took and how many commits it was.
    pub async fn write(&mut self, batch: usize) -> Result<(Duration, u64), Fault> {
        let commits = self.fresh().await?;
        let count = u64::try_from(commits.len())?;
        let mut parts: Vec<Vec<Rows>> = (0..self.writers).map(|_| Vec::new()).collect();
        for (index, commit) in commits.into_iter().enumerate() {
            parts[index % self.writers].push(commit);
        }
        let mut loops = Vec::new();
        for (stripe, part) in (0_i64..).zip(parts) {
            loops.push(Loop::new(&self.target, stripe, part, batch.max(1)).await?);
        }
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for it in loops {
            tasks.spawn(it.run());
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok((start.elapsed(), count))
    }
}

type Values = Vec<Box<dyn ToSql + Sync + Send>>;

/// One connection and its batches, arrays ready.
struct Loop {
    client: Client,
    statements: Vec<Statement>,
    batches: Vec<Vec<Values>>,
}

impl Loop {
    async fn new(url: &str, stripe: i64, rows: Vec<Rows>, batch: usize) -> Result<Loop, Fault> {
        let client = connect(url).await?;
        client
            .batch_execute("SET synchronous_commit = on; SET plan_cache_mode = force_generic_plan")
            .await?;
        let mut statements = Vec::new();
        for table in 0..TABLES.len() {
            statements.push(client.prepare(&insert(table)).await?);
        }
        statements.push(client.prepare(PUT_BALANCE).await?);
        let batches = rows.chunks(batch).map(|it| arrays_of(it, stripe)).collect();
        Ok(Loop { client, statements, batches })
    }

    async fn run(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        for batch in &self.batches {
            let begin = self.client.batch_execute("BEGIN");
            let writes = self.statements.iter().zip(batch).map(async |(statement, values)| {
                let values: Vec<&(dyn ToSql + Sync)> =
                    values.iter().map(|it| &**it as &(dyn ToSql + Sync)).collect();
                self.client.execute(statement, &values).await
            });
            let writes = futures::future::try_join_all(writes);
            let (begun, written, committed) =
                futures::join!(begin, writes, self.client.batch_execute("COMMIT"));
            begun?;
            written?;
            committed?;
        }
        Ok(())
    }
}

/// The arrays of one batch: of each table, then of the balances it touches, each once.
fn arrays_of(batch: &[Rows], stripe: i64) -> Vec<Values> {
    let mut all: Vec<Values> = Vec::new();
    for table in 0..TABLES.len() {
        let rows = || batch.iter().flat_map(|it| &it.0[table]);
        let values = columns(table).enumerate().map(|(at, (_, is_text))| match is_text {
            true => Box::new(rows().map(|it| text(&it[at])).collect::<Vec<_>>())
                as Box<dyn ToSql + Sync + Send>,
            false => Box::new(rows().map(|it| int(&it[at])).collect::<Vec<_>>()),
        });
        all.push(values.collect());
    }
    let mut balances: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
    for row in batch.iter().flat_map(|it| &it.0[2]) {
        let (merchant, minor) = (text(&row[0]).unwrap_or_default(), int(&row[9]).unwrap_or(0));
        let account = |at: usize| text(&row[at]).unwrap_or_default();
        balances.entry((merchant.clone(), account(7))).or_default().0 += minor;
        balances.entry((merchant, account(8))).or_default().1 += minor;
    }
    let (keys, sums): (Vec<_>, Vec<_>) = balances.into_iter().unzip();
    let (merchants, accounts): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    let (debits, credits): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
    all.push(vec![
        Box::new(merchants),
        Box::new(accounts),
        Box::new(debits),
        Box::new(credits),
        Box::new(stripe),
    ]);
    all
}

fn text(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(it) => it.clone(),
        Cell::Int(_) => None,
    }
}

fn int(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(it) => *it,
        Cell::Text(_) => None,
    }
}
