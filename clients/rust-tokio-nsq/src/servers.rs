//! An nsqlookupd and an nsqd as child processes, on free ports and in a folder of their own.

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// For anything that a server does; far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One program, which can be stopped and started again on the same ports.
pub struct Server {
    name: &'static str,
    command: Vec<String>,
    flags: Vec<String>,
    pub tcp: SocketAddr,
    pub http: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    child: Option<Child>,
}

impl Server {
    fn new(name: &'static str, command: &str, flags: Vec<String>) -> anyhow::Result<Self> {
        let command: Vec<_> = command.split_ascii_whitespace().map(Into::into).collect();
        ensure!(!command.is_empty(), "no command for {name}");
        let [tcp, http] = free_addresses()?;
        Ok(Self { name, command, flags, tcp, http, log: Arc::default(), child: None })
    }

    /// Starts it, with more flags than it has anyway, and waits until it listens.
    async fn start(&mut self, more: &[&str]) -> anyhow::Result<()> {
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args([format!("--tcp-address={}", self.tcp), format!("--http-address={}", self.http)])
            .args(&self.flags)
            .args(more)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can't start {}", self.name))?;
        let lines = child.stderr.take().context("standard error is piped")?;
        self.child = Some(child);

        let mut missing = vec![
            format!("TCP: listening on {}", self.tcp),
            format!("HTTP: listening on {}", self.http),
        ];
        let (listens, listening) = oneshot::channel();
        let log = Arc::clone(&self.log);
        tokio::spawn(async move {
            let mut listens = Some(listens);
            let mut lines = BufReader::new(lines).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                missing.retain(|text| !line.contains(text));
                log.lock().expect("nobody panics with the log").push(line);
                if missing.is_empty()
                    && let Some(listens) = listens.take()
                {
                    // Whoever waited may have given up.
                    let _ = listens.send(());
                }
            }
        });
        if !matches!(timeout(PATIENCE, listening).await, Ok(Ok(()))) {
            self.print_log();
            bail!("{} does not listen", self.name);
        }
        Ok(())
    }

    /// Asks it to end, and sees that it does so properly.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let id = child.id().context("it has ended by itself")?;
        let sent = Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        ensure!(sent.success(), "can't signal {}", self.name);
        let status = timeout(PATIENCE, child.wait()).await.context("it does not end")??;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// The JSON at `path`.
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut stream = TcpStream::connect(self.http).await?;
        // HTTP/1.0: the answer ends with the connection.
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        Ok(serde_json::from_str(body)?)
    }

    fn print_log(&self) {
        let log = self.log.lock().expect("nobody panics with the log");
        println!("-- {}'s last lines", self.name);
        for line in log.iter().rev().take(60).rev() {
            println!("{line}");
        }
    }
}

/// nsqlookupd and an nsqd that registers with it. Both are gone when this is dropped.
pub struct Servers {
    pub nsqlookupd: Server,
    pub nsqd: Server,
    _folder: TempDir,
}

impl Servers {
    pub async fn start(nsqd: &str, nsqlookupd: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("nsq-clients-").tempdir()?;
        let local = "--broadcast-address=127.0.0.1".to_owned();
        let nsqlookupd = Server::new("nsqlookupd", nsqlookupd, vec![local.clone()])?;
        let flags = vec![
            local,
            format!("--lookupd-tcp-address={}", nsqlookupd.tcp),
            format!("--data-path={}", folder.path().display()),
        ];
        let nsqd = Server::new("nsqd", nsqd, flags)?;
        let mut servers = Self { nsqlookupd, nsqd, _folder: folder };
        servers.nsqlookupd.start(&[]).await?;
        servers.nsqd.start(&[]).await?;
        Ok(servers)
    }

    /// Stops both and starts them again on the same ports, nsqd with these flags as well.
    pub async fn restart(&mut self, nsqd_flags: &[&str]) -> anyhow::Result<()> {
        self.nsqd.stop().await?;
        self.nsqlookupd.stop().await?;
        self.nsqlookupd.start(&[]).await?;
        self.nsqd.start(nsqd_flags).await
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.nsqd.stop().await?;
        self.nsqlookupd.stop().await
    }

    pub fn print_logs(&self) {
        self.nsqlookupd.print_log();
        self.nsqd.print_log();
    }

    /// Waits until the channel's figures are these. What a client sends without an answer shows
    /// nowhere else.
    pub async fn wait_for_stats(
        &self,
        topic: &str,
        channel: &str,
        expected: &[(&str, u64)],
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.nsqd.get(&format!("/stats?format=json&topic={topic}")).await?;
            let channels = stats["topics"][0]["channels"].as_array();
            let seen = channels
                .and_then(|channels| channels.iter().find(|seen| seen["channel_name"] == channel));
            if seen.is_some_and(|seen| expected.iter().all(|(key, value)| seen[key] == *value)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{topic}: expected {expected:?}, got {seen:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Addresses that nobody listens on now.
fn free_addresses() -> anyhow::Result<[SocketAddr; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?, listeners[1].local_addr()?])
}
