//! etcd's URLs: a scheme, a host and a port, and nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// `http://127.0.0.1:2379`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// Whether it says `https`.
    pub secure: bool,
    /// A name or an address, without the brackets of IPv6.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Url {
    /// Whether nobody outside of this machine can reach it. A name other than `localhost` may mean anything.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }

    /// Whether it means every address of this machine, and so none that others could call.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }

    /// `127.0.0.1:2379`, `[::1]:2379`
    pub fn authority(&self) -> String {
        match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }

    /// The same with the port that was really bound.
    pub fn with_port(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| format!("\"{text}\" is not a URL like http://127.0.0.1:2379: {why}");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong("its scheme is neither http nor https")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(wrong("it must be a host and a port, nothing more"));
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
        let port = port.parse().map_err(|_| wrong("its port is not a number from 0 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(inside) if inside.parse::<Ipv6Addr>().is_ok() => inside,
            None if !host.is_empty() && !host.contains([':', '[', ']']) => host,
            _ => return Err(wrong("its host is neither a name nor an address (IPv6 goes in brackets)")),
        };
        Ok(Self { secure, host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written_alike() {
        for text in ["http://127.0.0.1:2379", "https://etcd-1.example.com:2380", "http://[::1]:0"] {
            assert_eq!(text.parse::<Url>().map(|url| url.to_string()), Ok(text.to_owned()));
        }
        let slash: Url = "http://localhost:1/".parse().expect("a closing slash is fine");
        assert_eq!((slash.authority().as_str(), slash.is_loopback()), ("localhost:1", true));
    }

    #[test]
    fn what_is_no_url_says_why() {
        let table = [
            ("127.0.0.1:2379", "no scheme"),
            ("unix://x:1", "neither http nor https"),
            ("http://a", "no port"),
            ("http://a:x", "0 to 65535"),
            ("http://a:1/v3", "nothing more"),
            ("http://::1:2379", "brackets"),
            ("http://:2379", "neither a name"),
        ];
        for (text, why) in table {
            let error = text.parse::<Url>().expect_err(text);
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn only_loopback_is_private() {
        let private = |text: &str| text.parse::<Url>().expect("a URL").is_loopback();
        assert!(private("http://127.9.9.9:1") && private("http://[::1]:1"));
        assert!(!private("http://0.0.0.0:1") && !private("http://10.0.0.1:1") && !private("http://db:1"));
    }
}
