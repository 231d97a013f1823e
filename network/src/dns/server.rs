//! Speaks DNS over UDP and TCP. A question about the cluster is answered here; any other is passed on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::zone::{Reply, View, Zone};

/// The longest UDP answer to a client that didn't say more (RFC 1035, 4.2.1).
const PLAIN_UDP: u16 = 512;
/// The longest UDP answer to anyone: what passes every network in one piece.
const LARGEST_UDP: u16 = 1232;
/// Questions of others that wait for an answer from outside.
const CONCURRENT: usize = 1024;
/// How long one of the machine's resolvers may take; then the next is asked.
const UPSTREAM_TIME: Duration = Duration::from_secs(2);
/// How long a TCP client may stay silent.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Whom questions go to.
pub struct Resolver {
    /// The cluster's names.
    pub zone: Zone,
    /// What they are answered from.
    pub view: Arc<dyn View>,
    /// Resolvers for all other names, in the order in which they are asked.
    pub upstream: Vec<SocketAddr>,
}

/// Answers until `shutdown` is requested. UDP and TCP take the same address.
///
/// # Errors
/// The address can't be bound.
pub async fn serve(address: SocketAddr, resolver: Arc<Resolver>, shutdown: Shutdown) -> io::Result<()> {
    let socket = Arc::new(UdpSocket::bind(address).await?);
    let listener = TcpListener::bind(socket.local_addr()?).await?;
    let seats = Arc::new(Semaphore::new(CONCURRENT));
    let mut tasks = JoinSet::new();
    let mut buffer = [0; u16::MAX as usize];
    loop {
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            received = socket.recv_from(&mut buffer) => {
                // An error here is an ICMP message about an earlier answer.
                let Ok((length, from)) = received else { continue };
                // Who asks too much gets nothing, and asks again.
                let Ok(seat) = seats.clone().try_acquire_owned() else { continue };
                let (resolver, socket, question) = (resolver.clone(), socket.clone(), buffer[..length].to_vec());
                tasks.spawn(async move {
                    if let Some(answer) = resolver.answer(&question, Transport::Udp).await {
                        let _ = socket.send_to(&answer, from).await;
                    }
                    drop(seat);
                });
            }
            Ok((stream, _)) = listener.accept() => {
                let Ok(seat) = seats.clone().try_acquire_owned() else { continue };
                let resolver = resolver.clone();
                tasks.spawn(async move {
                    let _ = converse(stream, &resolver).await;
                    drop(seat);
                });
            }
        }
    }
}

/// One TCP connection: questions and answers with their lengths before them.
async fn converse(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    loop {
        let length = timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(length)];
        timeout(TCP_IDLE, stream.read_exact(&mut question)).await??;
        let Some(answer) = resolver.answer(&question, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Answers must be short.
    Udp,
    /// Answers may have 64 KiB.
    Tcp,
}

impl Resolver {
    /// The answer to a message; `None` if it isn't one that is to be answered.
    pub async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Ok(message) = Message::from_vec(bytes) else { return malformed(bytes) };
        if message.metadata.message_type != MessageType::Query {
            return None;
        }
        let answer = match question(&message) {
            Err(code) => refusal(&message, code),
            Ok((name, kind)) => match self.zone.answer(self.view.as_ref(), &name, kind) {
                Reply::NotOurs => return Some(self.pass_on(bytes, &message, transport).await),
                Reply::Found { answers, additionals } => self.found(&message, answers, additionals),
                Reply::Alias(chain, target) => self.follow(&message, chain, target, kind).await,
                Reply::NoName => self.no_name(&message),
            },
        };
        encode(&answer, limit(&message, transport))
    }

    fn found(&self, message: &Message, mut answers: Vec<Record>, additionals: Vec<Record>) -> Message {
        let mut reply = reply(message, ResponseCode::NoError);
        if answers.is_empty() {
            reply.authorities.push(self.zone.authority());
        } else {
            // Another first address for each question, so that clients spread over the pods.
            let turn = usize::from(message.metadata.id) % answers.len();
            answers.rotate_left(turn);
        }
        reply.metadata.authoritative = true;
        reply.answers = answers;
        reply.additionals = additionals;
        reply
    }

    fn no_name(&self, message: &Message) -> Message {
        let mut reply = reply(message, ResponseCode::NXDomain);
        reply.metadata.authoritative = true;
        reply.authorities.push(self.zone.authority());
        reply
    }

    /// An alias of a name outside: the alias, and what the machine's resolvers say about the name.
    async fn follow(&self, message: &Message, chain: Vec<Record>, target: Name, kind: RecordType) -> Message {
        let mut further = Message::query();
        further.metadata.id = message.metadata.id;
        further.metadata.recursion_desired = true;
        further.add_query(Query::query(target, kind));
        let asked = match further.to_vec() {
            Ok(bytes) => self.ask(&bytes, Transport::Tcp).await,
            Err(_) => None,
        };
        let mut reply = reply(message, ResponseCode::NoError);
        reply.answers = chain;
        match asked.and_then(|bytes| Message::from_vec(&bytes).ok()) {
            Some(found) => reply.answers.extend(found.answers),
            None => reply.metadata.response_code = ResponseCode::ServFail,
        }
        reply
    }

    /// Somebody else's answer, untouched.
    async fn pass_on(&self, bytes: &[u8], message: &Message, transport: Transport) -> Vec<u8> {
        match self.ask(bytes, transport).await {
            Some(answer) => answer,
            None => encode(&refusal(message, ResponseCode::ServFail), u16::MAX).unwrap_or_default(),
        }
    }

    async fn ask(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        for server in &self.upstream {
            let asked = async {
                match transport {
                    Transport::Udp => ask_by_udp(*server, bytes).await,
                    Transport::Tcp => ask_by_tcp(*server, bytes).await,
                }
            };
            if let Ok(Ok(answer)) = timeout(UPSTREAM_TIME, asked).await {
                return Some(answer);
            }
        }
        None
    }
}

async fn ask_by_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    // A port of its own for each question, which the kernel chooses, makes forged answers miss.
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= 2 && buffer[..2] == question[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

pub(super) async fn ask_by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The one question of a message.
fn question(message: &Message) -> Result<(Name, RecordType), ResponseCode> {
    if message.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    match message.queries.as_slice() {
        [query] if query.query_class() == DNSClass::IN => Ok((query.name().clone(), query.query_type())),
        [_] => Err(ResponseCode::Refused),
        _ => Err(ResponseCode::FormErr),
    }
}

fn reply(message: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&message.metadata);
    reply.metadata.response_code = code;
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&message.queries);
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP);
        reply.set_edns(edns);
    }
    reply
}

fn refusal(message: &Message, code: ResponseCode) -> Message {
    reply(message, code)
}

/// What can't be read is told so, if it has an id and isn't an answer itself.
fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let [high, low, flags, ..] = *bytes else { return None };
    if bytes.len() < 12 || flags & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([high, low]);
    Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok()
}

fn limit(message: &Message, transport: Transport) -> u16 {
    match (transport, &message.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_UDP, LARGEST_UDP),
        (Transport::Udp, None) => PLAIN_UDP,
    }
}

/// An answer that is too long says so, and the client asks again by TCP.
fn encode(answer: &Message, limit: u16) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= usize::from(limit) { Some(bytes) } else { answer.truncate().to_vec().ok() }
}

/// The resolvers that a `resolv.conf` names.
pub fn upstream(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, 53)).collect()
}
