//! A server and a client that asks it: `cargo run --release -p onecopy --example request_reply`.
//!
//! The server listens at a name, as one that was started by itself would, and starts this program a second time as its client. A
//! request is a short message, its reply may have any length; both sides wait for each other with a deadline. The end of the client
//! is the end of the conversation.

use std::process::Command;
use std::time::{Duration, Instant};

use onecopy::channel::{Message, Policy};
use onecopy::{Channel, Deadline, Listener, Sender as _};

const REQUESTS: u64 = 2000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [role, name] if role == "client" => client(name),
        _ => server(),
    }
}

fn server() -> Outcome<()> {
    let name = format!("onecopy-example-{}", std::process::id());
    let listener = Listener::bind(&name)?;
    let mut client = Command::new(std::env::current_exe()?).args(["client", &name]).spawn()?;
    let mut channel = listener.accept_by(soon())?;
    println!("{} asks", channel.peer());
    let mut served = 0;
    while let Some(request) = channel.receiver().recv_by(soon())? {
        let number = number(&request)?;
        channel.sender().send_by(&reply(number), soon())?;
        served += 1;
    }
    let status = client.wait()?;
    if served != REQUESTS || !status.success() {
        return Err(format!("{served} of {REQUESTS} requests came, and the client ended with {status}").into());
    }
    Ok(())
}

fn client(name: &str) -> Outcome<()> {
    let mut channel = Channel::connect_by(&name.parse()?, &Policy::default(), soon())?;
    let begin = Instant::now();
    let mut bytes = 0;
    for number in 0..REQUESTS {
        channel.send(&number.to_le_bytes())?;
        let message = channel.receiver().recv_by(soon())?.ok_or("the server has gone")?;
        if message[..] != reply(number) {
            return Err(format!("the reply to {number} is not what it should be").into());
        }
        bytes += message.len();
    }
    let each = begin.elapsed() / REQUESTS as u32;
    println!("{REQUESTS} requests, {} MiB of replies, {each:?} for each", bytes >> 20);
    Ok(())
}

fn number(request: &Message) -> Outcome<u64> {
    Ok(u64::from_le_bytes(request[..].try_into()?))
}

/// What both sides know: mostly short, one in sixteen of 300 KiB and more.
fn reply(number: u64) -> Vec<u8> {
    let bytes = if number % 16 == 7 { 300 << 10 } else { 40 } + number as usize;
    vec![number as u8; bytes]
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}
