//! What a client wants to speak, and the answer to it. No I/O.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use streaming::remote_command::{self, Channel};
use streaming::websocket::{self, Subprotocol};
use streaming::{port_forward, spdy};

use crate::runtime::Streams;
use crate::server::route::Refusal;

/// What a client of SPDY offers, and what is agreed upon.
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// The way to speak, and the answer that begins it.
pub type Agreed<C> = (C, Response<()>);

/// For exec and attach.
///
/// # Errors
/// 400 if nothing known is asked for, 403 if no known version is.
pub fn for_command(headers: &HeaderMap, streams: Streams) -> Result<Agreed<remote_command::Codec>, Refusal> {
    if websocket::is_asked(headers) {
        let (protocol, name) = subprotocol(headers, &remote_command::WEBSOCKET_VERSIONS)?;
        return Ok((remote_command::Codec::websocket(protocol), switch_to_websocket(headers, name)?));
    }
    require_spdy(headers)?;
    let offered = offered_over_spdy(headers);
    let (version, name) =
        remote_command::spdy_version(&offered).map_err(|known| no_protocol(&offered, &known))?;
    let wanted = [
        (streams.stdin, Channel::Stdin),
        (streams.stdout, Channel::Stdout),
        (streams.stderr, Channel::Stderr),
        (streams.tty, Channel::Resize),
    ];
    let wanted = wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, channel)| channel).collect();
    Ok((remote_command::Codec::spdy(version, wanted), switch_to_spdy(name)))
}

/// For port-forward; `ports` is what the query asks for.
///
/// # Errors
/// As [`for_command`], and 400 for a WebSocket without ports.
pub fn for_ports(headers: &HeaderMap, ports: Vec<u16>) -> Result<Agreed<port_forward::Codec>, Refusal> {
    if websocket::is_asked(headers) {
        if websocket::offered(headers).contains(&port_forward::TUNNEL) {
            let answer = switch_to_websocket(headers, Some(port_forward::TUNNEL))?;
            return Ok((port_forward::Codec::tunnel(), answer));
        }
        let (protocol, name) = subprotocol(headers, &port_forward::WEBSOCKET_VERSIONS)?;
        if ports.is_empty() {
            return Err((StatusCode::BAD_REQUEST, "query parameter \"port\" is required".to_owned()));
        }
        return Ok((port_forward::Codec::websocket(protocol, ports), switch_to_websocket(headers, name)?));
    }
    require_spdy(headers)?;
    let offered = offered_over_spdy(headers);
    match offered.contains(&port_forward::PROTOCOL) {
        true => Ok((port_forward::Codec::spdy(), switch_to_spdy(port_forward::PROTOCOL))),
        false => Err(no_protocol(&offered, &[port_forward::PROTOCOL])),
    }
}

fn subprotocol<'a>(
    headers: &'a HeaderMap,
    versions: &[u8],
) -> Result<(Subprotocol, Option<&'a str>), Refusal> {
    let chosen = Subprotocol::choose(&websocket::offered(headers), versions);
    chosen.map_err(|why| (StatusCode::FORBIDDEN, why))
}

fn switch_to_websocket(headers: &HeaderMap, name: Option<&str>) -> Result<Response<()>, Refusal> {
    websocket::switching(headers, name).ok_or_else(upgrade_required)
}

fn upgrade_required() -> Refusal {
    (StatusCode::BAD_REQUEST, "Upgrade request required".to_owned())
}

fn require_spdy(headers: &HeaderMap) -> Result<(), Refusal> {
    let asked = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    match asked.is_some_and(|asked| asked.eq_ignore_ascii_case(spdy::PROTOCOL)) {
        true => Ok(()),
        false => Err(upgrade_required()),
    }
}

fn offered_over_spdy(headers: &HeaderMap) -> Vec<&str> {
    let lines = headers.get_all(PROTOCOL_VERSION).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

fn no_protocol(offered: &[&str], known: &[&str]) -> Refusal {
    let why = format!(
        "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {known:?}"
    );
    (StatusCode::FORBIDDEN, why)
}

fn switch_to_spdy(name: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(spdy::PROTOCOL));
    if !name.is_empty() {
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(name));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    const SPDY: (&str, &str) = ("upgrade", "SPDY/3.1");
    const WEBSOCKET: [(&str, &str); 3] =
        [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-key", "x")];

    fn command(lines: &[(&'static str, &'static str)]) -> String {
        match for_command(&headers(lines), Streams { stdout: true, ..Streams::default() }) {
            Ok((_, answer)) => {
                let name = answer.headers().get("x-stream-protocol-version");
                let name = name.or(answer.headers().get("sec-websocket-protocol"));
                name.map_or("-".to_owned(), |name| name.to_str().expect("text").to_owned())
            }
            Err((code, why)) => format!("{} {why}", code.as_u16()),
        }
    }

    #[test]
    fn clients_are_spoken_to_in_their_own_way() {
        assert_eq!(command(&[]), "400 Upgrade request required");
        assert_eq!(command(&[SPDY]), "-");
        assert_eq!(
            command(&[SPDY, ("x-stream-protocol-version", "v5.channel.k8s.io, v3.channel.k8s.io")]),
            "v3.channel.k8s.io"
        );
        assert!(command(&[SPDY, ("x-stream-protocol-version", "v9")]).starts_with("403 unable to upgrade"));
        assert_eq!(command(&WEBSOCKET), "-");
        let offer = |offer| [&WEBSOCKET[..], &[("sec-websocket-protocol", offer)]].concat();
        assert_eq!(command(&offer("v5.channel.k8s.io,v4.channel.k8s.io")), "v5.channel.k8s.io");
        assert!(command(&offer("v9")).starts_with("403 requested protocol(s) are not supported"));
    }

    #[test]
    fn ports_are_forwarded_in_three_ways() {
        let forward = |lines: &[(&'static str, &'static str)], ports| {
            for_ports(&headers(lines), ports).map(|_| ()).map_err(|(code, _)| code.as_u16())
        };
        assert_eq!(forward(&[SPDY, ("x-stream-protocol-version", "portforward.k8s.io")], vec![]), Ok(()));
        assert_eq!(forward(&[SPDY], vec![]), Err(403));
        let offer = |offer| [&WEBSOCKET[..], &[("sec-websocket-protocol", offer)]].concat();
        assert_eq!(forward(&offer("SPDY/3.1+portforward.k8s.io"), vec![]), Ok(()));
        assert_eq!(forward(&offer("v5.channel.k8s.io, v4.channel.k8s.io"), vec![80]), Ok(()));
        assert_eq!(forward(&offer("v4.channel.k8s.io"), vec![]), Err(400));
    }
}
