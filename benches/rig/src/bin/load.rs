//! A closed-loop load generator. `load ADDRESS FILE CONNECTIONS REQUESTS`: sends the raw requests of the file
//! (each preceded by its length, 4 bytes, little endian) in turn, and prints how many were answered with
//! which status, and the latency quantiles in microseconds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Default)]
struct Shared {
    next: usize,
    statuses: BTreeMap<u16, usize>,
    micros: Vec<u32>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<_> = std::env::args().collect();
    let (connections, total): (usize, usize) = (args[3].parse().expect("n"), args[4].parse().expect("n"));
    let requests: Rc<Vec<Vec<u8>>> = Rc::new(read(&std::fs::read(&args[2]).expect("file")));
    let shared = Rc::new(RefCell::new(Shared::default()));
    let local = tokio::task::LocalSet::new();
    for _ in 0..connections {
        let (address, requests, shared) = (args[1].clone(), Rc::clone(&requests), Rc::clone(&shared));
        local.spawn_local(async move { drive(&address, &requests, &shared, total).await });
    }
    let began = Instant::now();
    local.await;
    let seconds = began.elapsed().as_secs_f64();
    let mut shared = shared.borrow_mut();
    shared.micros.sort_unstable();
    let at = |q: f64| shared.micros[((shared.micros.len() - 1) as f64 * q) as usize];
    println!("{:?} rps={:.0} p50={} p99={} p999={}", shared.statuses, total as f64 / seconds, at(0.5), at(0.99), at(0.999));
}

fn read(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (request, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        requests.push(request.to_vec());
        bytes = rest;
    }
    requests
}

async fn drive(address: &str, requests: &[Vec<u8>], shared: &RefCell<Shared>, total: usize) {
    let mut stream: Option<TcpStream> = None;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let index = {
            let mut shared = shared.borrow_mut();
            if shared.next >= total {
                return;
            }
            shared.next += 1;
            shared.next
        };
        let began = Instant::now();
        let mut connection = match stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(address).await.expect("connect");
                stream.set_nodelay(true).expect("nodelay");
                stream
            }
        };
        connection.write_all(&requests[index % requests.len()]).await.expect("write");
        let (status, keep) = answer(&mut connection, &mut buffer).await;
        stream = keep.then_some(connection);
        let mut shared = shared.borrow_mut();
        *shared.statuses.entry(status).or_default() += 1;
        shared.micros.push(began.elapsed().as_micros() as u32);
    }
}

async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> (u16, bool) {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await.expect("read");
        assert!(n > 0, "closed early: {}", String::from_utf8_lossy(&buffer[..filled]));
        filled += n;
        if let Some(at) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..at]).to_ascii_lowercase();
            let value = |name| head.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned());
            let length = value("content-length:").map_or(0, |v| v.parse().expect("length"));
            while filled < at + 4 + length {
                filled += stream.read(&mut buffer[filled..]).await.expect("read");
            }
            let close = value("connection:").is_some_and(|v| v == "close");
            return (head[9..12].parse().expect("status"), !close);
        }
    }
}
