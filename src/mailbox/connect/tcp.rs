//! A TCP connection to whichever of a server's addresses answers first.
//!
//! Happy eyeballs (RFC 8305): the next address is tried as soon as one has
//! failed, and beside it after a quarter of a second of silence, so that an
//! address whose packets are dropped uses up nobody else's time. The resolver's
//! order counts (RFC 6724), with the two families in turn.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::DEADLINE;

/// How long one address may take to answer. The system repeats its request
/// after 1, 3 and 7 seconds.
const AN_ADDRESS: Duration = Duration::from_secs(8);

/// How long an address is tried alone (RFC 8305, section 8).
const ALONE: Duration = Duration::from_millis(250);

/// A quiet connection is probed after this long …
const IDLE: Duration = Duration::from_secs(60);
/// … and then this often …
const PROBE: Duration = Duration::from_secs(15);
/// … and is dead when so many probes in a row were not answered.
const PROBES: u32 = 4;
/// What was sent must be acknowledged within this time. It is as long as all
/// the probes take, for a shorter one would cut them short.
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// Connects to a name or an address. An error is that of the address which
/// failed last.
pub(super) async fn to(host: &str, port: u16) -> io::Result<TcpStream> {
    // A look-up takes an IPv6 address without its brackets.
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let addresses = timeout(DEADLINE, lookup_host((host, port)))
        .await
        .unwrap_or_else(|_| Err(timed_out()))?;
    let stream = timeout(DEADLINE, first_of(in_turn(addresses)))
        .await
        .unwrap_or_else(|_| Err(timed_out()))?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(IDLE)
        .with_interval(PROBE)
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// The two families in turn, the first address's family first.
fn in_turn(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<_> = addresses.collect();
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (ours, others): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    let mut order = Vec::new();
    loop {
        match (ours.next(), others.next()) {
            (None, None) => return order,
            (one, other) => order.extend(one.into_iter().chain(other)),
        }
    }
}

async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut trying = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => trying.push(one(address)),
            None if trying.is_empty() => return Err(last),
            None => {}
        }
        let answer = if waiting.len() > 0 {
            match timeout(ALONE, trying.next()).await {
                Ok(answer) => answer,
                Err(_) => continue,
            }
        } else {
            trying.next().await
        };
        match answer {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last = error,
            None => {}
        }
    }
}

async fn one(address: SocketAddr) -> io::Result<TcpStream> {
    timeout(AN_ADDRESS, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(timed_out()))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address where nobody listens.
    async fn closed() -> SocketAddr {
        listener().await.1
    }

    /// An address that does not answer: its queue of connections is full, and
    /// the system drops what else comes. All sockets must be kept.
    async fn silent() -> (Socket, Vec<TcpStream>, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        let short = Duration::from_millis(200);
        while let Ok(stream) = timeout(short, TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        (socket, queued, address)
    }

    #[tokio::test]
    async fn dead_addresses_use_up_nobody_elses_time() {
        let (_good, good) = listener().await;
        let (_a, _b, silent) = silent().await;
        let closed = closed().await;
        let closed6 = SocketAddr::from((Ipv6Addr::LOCALHOST, closed.port()));
        let start = Instant::now();
        let found = first_of(vec![closed, silent, silent, closed6, silent, good]).await;
        assert_eq!(found.unwrap().peer_addr().unwrap(), good);
        assert!(start.elapsed() >= 3 * ALONE, "{:?}", start.elapsed());
        assert!(start.elapsed() < AN_ADDRESS / 2, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_refusal_is_not_waited_for() {
        let (_good, good) = listener().await;
        let mut addresses = vec![closed().await; 20];
        addresses.push(good);
        let start = Instant::now();
        assert!(first_of(addresses).await.is_ok());
        assert!(start.elapsed() < 20 * ALONE, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn an_address_that_is_silent_for_ever_is_an_error() {
        let (_a, _b, silent) = silent().await;
        let start = Instant::now();
        let error = first_of(vec![closed().await, silent]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= AN_ADDRESS);
        assert!(start.elapsed() < 2 * AN_ADDRESS);
        let none = first_of(Vec::new()).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_dead_peer_is_noticed_by_the_system() {
        let (_good, good) = listener().await;
        let stream = to("127.0.0.1", good.port()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBE);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
        assert_eq!(IDLE + PROBE * PROBES, UNACKNOWLEDGED);
        assert!(stream.nodelay().unwrap());
    }

    #[test]
    fn the_families_take_turns_and_the_resolver_says_which_is_first() {
        let four = |n| SocketAddr::from((Ipv4Addr::LOCALHOST, n));
        let six = |n| SocketAddr::from((Ipv6Addr::LOCALHOST, n));
        let order = |addresses: Vec<SocketAddr>| in_turn(addresses.into_iter());
        assert_eq!(
            order(vec![six(1), six(2), six(3), four(4), four(5)]),
            [six(1), four(4), six(2), four(5), six(3)]
        );
        assert_eq!(
            order(vec![four(1), six(2), six(3)]),
            [four(1), six(2), six(3)]
        );
    }
}
