//! An HTTP service that publishes what is posted to it: one producer for all requests.
//!
//! ```console
//! $ cargo run -p sansq-tokio --example axum_publish -- 127.0.0.1:4150
//! $ curl -d 'hello' http://127.0.0.1:8080/pub/greetings
//! ```
//!
//! With `--once` behind the address it sends itself one request, and ends.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::net::SocketAddr;
use std::{env, io};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use sansq_tokio::{Config, Outcome, Producer, ProducerConfig, PublishError, producer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nsqd = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4150".into());
    let is_once = env::args().any(|argument| argument == "--once");

    // A request waits no longer than that, and there are never more than 1000 publishes under way.
    let mut config = Config::default();
    config.set("publish_timeout", "2s")?;
    config.set("max_outstanding", "1000")?;
    let producer = producer(ProducerConfig::new().nsqd(nsqd).config(&config)?)?;

    // The producer is a handle: clones are the same one, and their publishes share writes.
    let router = Router::new().route("/pub/{topic}", post(publish)).with_state(producer.clone());
    let listener = TcpListener::bind(("127.0.0.1", if is_once { 0 } else { 8080 })).await?;
    let address = listener.local_addr()?;
    println!("POST to http://{address}/pub/TOPIC");
    let server = axum::serve(listener, router).into_future();
    if is_once {
        tokio::select! {
            result = server => result?,
            answer = ask(address) => println!("{}", answer?.lines().next().unwrap_or_default()),
        }
    } else {
        server.await?;
    }
    producer.close().await;
    Ok(())
}

async fn publish(
    State(producer): State<Producer>,
    Path(topic): Path<String>,
    body: Bytes,
) -> (StatusCode, String) {
    // `enqueue` says "full" at once, where `publish` would wait for room: under overload a client
    // hears of it while it is still there. If the client goes away, the message is published all
    // the same.
    let published = match producer.enqueue(topic, body) {
        Ok(receipt) => receipt.await,
        Err(error) => Err(error),
    };
    match published {
        Ok(()) => (StatusCode::OK, "OK".into()),
        Err(error) => (status(&error), error.to_string()),
    }
}

fn status(error: &PublishError) -> StatusCode {
    match error.outcome() {
        // A bad topic, no body, a body that is too long.
        Outcome::Rejected => StatusCode::BAD_REQUEST,
        // Too much under way, no nsqd, or no answer in time: worth another try. After `Unknown` the
        // message may be there already.
        Outcome::NotStored | Outcome::Unknown => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// One request, as curl would send it, and the answer.
async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let head = "POST /pub/greetings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    stream.write_all(format!("{head}Content-Length: 5\r\n\r\nhello").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
