//! Puts tokio-nsq through the life of a message, on servers that it starts itself.
//!
//! `rust-tokio-nsq --nsqd 'target/release/sansq nsqd' --nsqlookupd 'target/release/sansq
//! nsqlookupd'`

mod life;
mod servers;

use anyhow::{Context, bail};

use crate::servers::Servers;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut nsqd, mut nsqlookupd) = (None, None);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next();
        match flag.as_str() {
            "--nsqd" => nsqd = value,
            "--nsqlookupd" => nsqlookupd = value,
            _ => bail!("unknown flag {flag}; there are --nsqd CMD and --nsqlookupd CMD"),
        }
    }
    let nsqd = nsqd.context("--nsqd CMD is missing")?;
    let nsqlookupd = nsqlookupd.context("--nsqlookupd CMD is missing")?;

    println!("tokio-nsq");
    let mut servers = Servers::start(&nsqd, &nsqlookupd).await?;
    if let Err(error) = life::live(&mut servers).await {
        servers.print_logs();
        return Err(error);
    }
    servers.stop().await
}
