//! A sink on a free port, in a thread.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use loadgen::sink::{self, SinkConfig, SinkReport};
use loadgen::stop::Stop;

pub(crate) const ANY: &str = "127.0.0.1:0";

pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    stop: Stop,
    thread: JoinHandle<SinkReport>,
}

impl Sink {
    pub(crate) fn start(change: impl FnOnce(&mut SinkConfig)) -> Sink {
        let mut config = SinkConfig { announce: false, ..SinkConfig::on(vec![ANY.parse().unwrap()]) };
        change(&mut config);
        let (stop, (bound, address)) = (Stop::new(), channel());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            sink::run_until(&config, &stopped, |addresses| bound.send(addresses[0]).unwrap()).unwrap()
        });
        Sink { address: address.recv().unwrap(), stop, thread }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    pub(crate) fn end(self) -> SinkReport {
        self.stop.stop();
        self.thread.join().unwrap()
    }
}
