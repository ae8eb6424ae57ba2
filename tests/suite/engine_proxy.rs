//! A proxy between Callgate and Redis that harms the responses: it delays them, cuts the connection in the middle of one, or
//! sends one after the timeout.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the proxy does with a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Harm {
    /// Sends it later, within the timeout.
    Delay,
    /// Sends a half of it, and closes the connection.
    Cut,
    /// Sends it after the timeout.
    Late,
}

/// Which responses are harmed.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Nothing,
    /// One response, after this number of others.
    One(Harm, u32),
    /// All responses after this number of others.
    After(Harm, u32),
    /// This share of the responses, in percent, drawn with this state of a generator.
    Share(Harm, u64, u64),
}

/// The running proxy.
pub struct EngineProxy {
    pub address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    harmed: Arc<Mutex<u32>>,
}

impl EngineProxy {
    /// Starts a proxy in front of a server. `timeout` is the timeout of Callgate for one call.
    pub fn start(engine: SocketAddr, timeout: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (plan, harmed) = (Arc::new(Mutex::new(Plan::Nothing)), Arc::new(Mutex::new(0)));
        let proxy = Self { address, plan: Arc::clone(&plan), harmed: Arc::clone(&harmed) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(engine) else { continue };
                let (mut requests, mut to_server) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut requests, &mut to_server);
                    let _ = to_server.shutdown(Shutdown::Both);
                });
                let (plan, harmed) = (Arc::clone(&plan), Arc::clone(&harmed));
                std::thread::spawn(move || respond(server, client, &plan, &harmed, timeout));
            }
        });
        proxy
    }

    /// Harms one response, after `others` others.
    pub fn harm_one(&self, harm: Harm, others: u32) {
        *self.plan.lock().unwrap() = Plan::One(harm, others);
    }

    /// Harms all responses after `others` others.
    pub fn harm_all_after(&self, harm: Harm, others: u32) {
        *self.plan.lock().unwrap() = Plan::After(harm, others);
    }

    /// Harms a share of the responses, in percent.
    pub fn harm_share(&self, harm: Harm, percent: u64, seed: u64) {
        *self.plan.lock().unwrap() = Plan::Share(harm, percent, seed);
    }

    /// Harms no further response. Returns how many were harmed.
    pub fn stop_harming(&self) -> u32 {
        *self.plan.lock().unwrap() = Plan::Nothing;
        *self.harmed.lock().unwrap()
    }
}

/// Decides about the next response.
fn next(plan: &mut Plan) -> Option<Harm> {
    match plan {
        Plan::Nothing => None,
        Plan::One(harm, 0) => {
            let harm = *harm;
            *plan = Plan::Nothing;
            Some(harm)
        }
        Plan::After(harm, 0) => Some(*harm),
        Plan::One(_, others) | Plan::After(_, others) => {
            *others -= 1;
            None
        }
        Plan::Share(harm, percent, state) => {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((*state >> 33) % 100 < *percent).then_some(*harm)
        }
    }
}

fn respond(
    mut server: TcpStream,
    mut client: TcpStream,
    plan: &Mutex<Plan>,
    harmed: &Mutex<u32>,
    timeout: Duration,
) {
    let mut buffer = [0; 65_536];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let harm = next(&mut plan.lock().unwrap());
        *harmed.lock().unwrap() += u32::from(harm.is_some());
        // These pauses are the harm. No test waits for their end.
        let sent = match harm {
            Some(Harm::Cut) => {
                let _ = client.write_all(&buffer[..count / 2]);
                break;
            }
            Some(Harm::Delay) => {
                std::thread::sleep(timeout / 3);
                client.write_all(&buffer[..count])
            }
            Some(Harm::Late) => {
                std::thread::sleep(timeout * 5 / 4);
                client.write_all(&buffer[..count])
            }
            None => client.write_all(&buffer[..count]),
        };
        if sent.is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
