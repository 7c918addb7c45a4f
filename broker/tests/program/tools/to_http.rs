//! `sansq to-http`: a request for each message, and again if the answer is not good.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;

use super::{nsqd, nsqd_with};
use crate::process::{Process, said};
use crate::server::{PATIENCE, Server};

/// An HTTP server that reports each request and answers with one status after the other, and with
/// 200 after the last of them.
struct Web {
    address: String,
    requests: Receiver<ReceivedRequest>,
}

struct ReceivedRequest {
    /// Method and target.
    line: String,
    headers: Vec<String>,
    body: String,
}

impl Web {
    fn start(statuses: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, requests) = channel();
        thread::spawn(move || {
            let mut statuses = statuses.iter();
            for socket in listener.incoming() {
                // One request per connection, so that statuses go in the order of requests.
                let status = statuses.next().unwrap_or(&"200 OK");
                if serve(socket.unwrap(), status, &sender).is_none() {
                    return;
                }
            }
        });
        Self { address, requests }
    }

    fn request(&self) -> ReceivedRequest {
        self.requests.recv_timeout(PATIENCE).expect("a request")
    }
}

fn serve(mut socket: TcpStream, status: &str, requests: &Sender<ReceivedRequest>) -> Option<()> {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let line = next();
    let mut headers = Vec::new();
    loop {
        let header = next();
        if header.is_empty() {
            break;
        }
        headers.push(header.to_lowercase());
    }
    let length = headers.iter().find_map(|header| header.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK");
    socket.write_all(answer.as_bytes()).unwrap();
    requests.send(ReceivedRequest { line, headers, body: String::from_utf8(body).unwrap() }).ok()
}

fn start(nsqd: &Server, flags: &[&str]) -> Process {
    let args = ["to-http", "--topic", "t", "--nsqd-tcp-address", &nsqd.tcp];
    Process::start(&[&args[..], flags].concat())
}

#[test]
fn post() {
    let (nsqd, web) = (nsqd(), Web::start(&["204 No Content"]));
    nsqd.publish("t", &["a b", "c"]);
    let url = format!("http://{}/in?x=1", web.address);
    let flags = ["--post", &url, "--content-type", "text/plain", "--header", "X-Key: 1"];
    let tool = start(&nsqd, &[&flags[..], &["--n=1", "--status-every=2"]].concat());
    nsqd.wait_until_done("t", "nsq_to_http", 2);
    let requests = [web.request(), web.request()];
    let mut bodies = requests.each_ref().map(|request| request.body.as_str());
    bodies.sort_unstable();
    assert_eq!(bodies, ["a b", "c"]);
    for ReceivedRequest { line, headers, .. } in &requests {
        assert_eq!(line, "POST /in?x=1 HTTP/1.1");
        for header in ["content-type: text/plain", "x-key: 1"] {
            assert!(headers.iter().any(|it| it == header), "{headers:?}");
        }
        assert!(headers.iter().any(|it| it.starts_with("user-agent: nsq_to_http/")));
    }
    let (status, _, log) = tool.stop(Signal::TERM);
    assert_eq!(
        (status, log.contains("[aggregate]: finished 2 - 99th: ")),
        (Some(0), true),
        "{log}"
    );
}

#[test]
fn get() {
    let (nsqd, web) = (nsqd(), Web::start(&[]));
    nsqd.publish("t", &["a b&c"]);
    let tool = start(&nsqd, &["-get", &format!("http://{}/in?m=%s&y", web.address)]);
    assert_eq!(web.request().line, "GET /in?m=a+b%26c&y HTTP/1.1");
    nsqd.wait_until_done("t", "nsq_to_http", 1);
    assert_eq!(tool.stop(Signal::INT).0, Some(0));
}

#[test]
fn an_answer_that_is_not_good_brings_the_message_again() {
    for (flag, suffix, status) in
        [("--get", "%s", "201 Created"), ("--post", "", "500 Internal Server Error")]
    {
        let nsqd = nsqd();
        let bad = Web::start(if flag == "--get" {
            &["201 Created"]
        } else {
            &["500 Internal Server Error"]
        });
        nsqd.publish("t", &["a"]);
        let mut tool = start(&nsqd, &[flag, &format!("http://{}/{suffix}", bad.address)]);
        tool.wait_for(&format!("the answer was {status}"));
        nsqd.wait("t", "nsq_to_http", &[("requeue_count", 1), ("in_flight_count", 0)]);
        assert_eq!(nsqd.waiting("t", "nsq_to_http"), 1);
        assert_eq!(tool.stop(Signal::TERM).0, Some(0));
    }
}

#[test]
fn all_or_a_share() {
    let nsqd = nsqd();
    let webs = [Web::start(&[]), Web::start(&[])];
    nsqd.publish("t", &["a"]);
    let urls = webs.each_ref().map(|web| format!("http://{}/", web.address));
    let tool = start(&nsqd, &["--post", &urls[0], "--post", &urls[1], "--mode", "multicast"]);
    nsqd.wait_until_done("t", "nsq_to_http", 1);
    for web in &webs {
        assert_eq!(web.request().body, "a");
    }
    assert_eq!(tool.stop(Signal::TERM).0, Some(0));
    // None of them: what is not sent is finished.
    let tool = start(&nsqd, &["--post", &urls[0], "--sample", "0"]);
    nsqd.publish("t", &["b"]);
    nsqd.wait_until_done("t", "nsq_to_http", 2);
    assert_eq!(tool.stop(Signal::TERM).0, Some(0));
    assert!(webs[0].requests.try_recv().is_err());
}

#[test]
fn tls() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let params = || CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let (mut authority, key) = (params(), KeyPair::generate().unwrap());
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = file("ca.pem", authority.self_signed(&key).unwrap().pem());
    let (issuer, key) = (Issuer::new(authority, key), KeyPair::generate().unwrap());
    let cert = file("cert.pem", params().signed_by(&key, &issuer).unwrap().pem());
    let key = file("key.pem", key.serialize_pem());

    let from = nsqd();
    let to = nsqd_with(&[
        "--https-address=127.0.0.1:0",
        &format!("--tls-cert={}", cert.display()),
        &format!("--tls-key={}", key.display()),
    ]);
    from.publish("t", &["a"]);
    let url = format!("https://{}/pub?topic=u", to.https.as_deref().unwrap());
    let args = ["to-http", "--topic=t", "--nsqd-tcp-address", &from.tcp, "--post", &url];
    // The server's certificate is of nobody whom the system knows.
    let mut tool = Process::start_in(&args, &[("SSL_CERT_FILE", &cert)]);
    tool.wait_for("ERROR: https://");
    assert_eq!(tool.stop(Signal::TERM).0, Some(0));
    assert_eq!(to.topic_count("u"), 0);
    from.post("/channel/empty?topic=t&channel=nsq_to_http", "");
    from.publish("t", &["b"]);
    let tool = Process::start_in(&args, &[("SSL_CERT_FILE", &root)]);
    from.wait("t", "nsq_to_http", &[("message_count", 2), ("in_flight_count", 0), ("depth", 0)]);
    assert_eq!(tool.stop(Signal::TERM).0, Some(0));
    assert_eq!(to.topic_count("u"), 1);
}

#[test]
fn wrong_flags() {
    let args = ["to-http", "--topic", "t", "--nsqd-tcp-address", "127.0.0.1:1"];
    for wrong in [
        &[][..],
        &["--get", "http://h/"],
        &["--post", "h"],
        &["--post", "http://h/", "--get", "http://h/%s", "--mode", "any"],
        &["--post", "http://h/", "--sample", "2"],
        &["--post", "http://h/", "--header", "x"],
        &["--post", "http://h/", "--lookupd-http-address", "127.0.0.1:1"],
    ] {
        assert_eq!(said(&[&args[..], wrong].concat()).0, Some(2), "{wrong:?}");
    }
}
