//! A network between a store and PostgreSQL that fails when it is told to, in the middle of a
//! COMMIT. Knows just enough of the protocol to see one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens to the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It never reaches the server; both ends see the connection end.
    Before = 1,
    /// The server commits; its answer is lost and both ends see the connection end.
    After,
    /// It never reaches the server, and nobody hears anything any more.
    SilentBefore,
    /// The server commits, and nobody hears anything any more.
    SilentAfter,
}

const CUTS: [Cut; 4] = [Cut::Before, Cut::After, Cut::SilentBefore, Cut::SilentAfter];

#[derive(Default)]
struct State {
    armed: AtomicU8,
    /// Everything is swallowed, on every connection, new ones too.
    silent: AtomicBool,
    cuts: AtomicU32,
}

pub struct Proxy {
    state: Arc<State>,
    pub port: u16,
}

impl Proxy {
    pub async fn to(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let all = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                tokio::spawn(carry(client, server, all.clone()));
            }
        });
        Proxy { state, port }
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://feiqian@127.0.0.1:{}/{database}", self.port)
    }

    pub fn cut_next(&self, cut: Cut) {
        self.state.armed.store(cut as u8, Ordering::SeqCst);
    }

    pub fn cuts(&self) -> u32 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    pub fn silence(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }
}

/// One connection's own part of the state.
#[derive(Default)]
struct Line {
    /// Nothing of what the server says is passed on.
    deaf: AtomicBool,
    /// The server's word that it committed ends the line.
    ends: AtomicBool,
    ended: Notify,
}

async fn carry(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let line = Arc::<Line>::default();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = forth(from_client, to_server, &state, &line) => {}
        _ = back(from_server, to_client, &state, &line) => {}
        () = line.ended.notified() => {}
    }
}

/// Messages to the server, each in whole.
async fn forth(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    line: &Line,
) -> std::io::Result<()> {
    let mut message = Vec::new();
    let mut head = 0;
    loop {
        // The first message has no letter in front of its length.
        message.resize(head + 4, 0);
        from.read_exact(&mut message).await?;
        let length = i32::from_be_bytes(message[head..].try_into().unwrap());
        message.resize(head + usize::try_from(length).unwrap(), 0);
        from.read_exact(&mut message[head + 4..]).await?;
        if message == *b"Q\0\0\0\x0bCOMMIT\0" {
            let armed = state.armed.swap(0, Ordering::SeqCst);
            let cut = CUTS.into_iter().find(|it| *it as u8 == armed);
            state.cuts.fetch_add(u32::from(cut.is_some()), Ordering::SeqCst);
            match cut {
                None => {}
                Some(Cut::Before) => return Ok(()),
                Some(Cut::After) => {
                    line.deaf.store(true, Ordering::SeqCst);
                    line.ends.store(true, Ordering::SeqCst);
                }
                // The server must find out by itself.
                Some(Cut::SilentBefore) => std::future::pending().await,
                Some(Cut::SilentAfter) => line.deaf.store(true, Ordering::SeqCst),
            }
        }
        if !state.silent.load(Ordering::SeqCst) {
            to.write_all(&message).await?;
        }
        head = 1;
    }
}

async fn back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    line: &Line,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 65_536];
    let mut heard = Vec::new();
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if line.deaf.load(Ordering::SeqCst) {
            heard.extend_from_slice(&buffer[..count]);
            let committed = heard.windows(7).any(|it| it == b"COMMIT\0");
            if committed && line.ends.load(Ordering::SeqCst) {
                line.ended.notify_one();
            }
        } else if !state.silent.load(Ordering::SeqCst) {
            to.write_all(&buffer[..count]).await?;
        }
    }
}
